"""Judge the measures of interaction by interventions, several seeds of them, and write docs/validation.md.

    python -m studies.validation.validation --runs RUNS --text train.jsonl --held-out-text test.jsonl

The runs are those of docs/clusters.md, made if they are not there yet (`studies/clusters/text_runs.py`);
without --text those that are in the folder, such as `studies/results/results.py` makes. What was validated is
not done again.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from studies import pages
from studies.clusters.text_runs import CROSSCODERS, add_arguments, command, sizes, text_runs
from xtalk.evaluation.validation import MEASURES
from xtalk.progress import progress_bars
from xtalk.runs import layout
from xtalk.runs.run import Run
from xtalk.runs.steps.validate import TOKENS

NAMES = {
    "interaction": "I(i, j)",
    "true_interaction": "true interaction",
    "co_activation": "co-activation, cosine",
    "co_activation_count": "co-activation, count",
    "decoder": "decoder cosine",
    "size": "size (control)",
}
EFFECTS = {"output": "the MLP's output", "loss": "the loss"}
WEIGHTINGS = {"occurrence": "per occurrence", "text": "over the text"}
Rows = list[dict[str, Any]]


def select(rows: Rows, **wanted: Any) -> dict[str, Any]:
    """The one row with these values."""
    [row] = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return row


def summary(seeds: list[Rows], quantity: str) -> str:
    """A row per measure, a column per effect and weighting: means over blocks and seeds."""
    keys = [(effect, weighting) for effect in EFFECTS for weighting in WEIGHTINGS]
    heads = [f"{EFFECTS[effect]}, {WEIGHTINGS[weighting]}" for effect, weighting in keys]

    def cell(measure: str, effect: str, weighting: str) -> str:
        wanted = {"block": "mean", "measure": measure, "effect": effect, "weighting": weighting}
        return pages.over_seeds([select(rows, **wanted)[quantity][0] for rows in seeds])

    lines = [[NAMES[measure], *(cell(measure, *key) for key in keys)] for measure in MEASURES]
    return pages.table(["measure", *heads], lines)


def by_block(seeds: list[Rows], effect: str, weighting: str) -> str:
    """A row per measure over seeds, the best in bold; then per seed rho with its two intervals."""
    blocks = sorted({row["block"] for row in seeds[0] if row["block"] != "mean"})
    lines: list[list[str]] = []

    def over(measure: str, block: int) -> list[float]:
        key = {"block": block, "measure": measure, "effect": effect, "weighting": weighting}
        return [select(rows, **key)["rho"][0] for rows in seeds]

    judged = [measure for measure in MEASURES if measure != "size"]
    best = {block: max(judged, key=lambda measure: mean(over(measure, block))) for block in blocks}
    for measure in MEASURES:
        marks = {block: "**" if best[block] == measure else "" for block in blocks}
        cells = [f"{marks[block]}{pages.over_seeds(over(measure, block))}{marks[block]}" for block in blocks]
        lines.append(["all", NAMES[measure], *cells])
    for seed, rows in enumerate(seeds):
        for measure in MEASURES:
            cells: list[str] = []
            for block in blocks:
                row = select(rows, block=block, measure=measure, effect=effect, weighting=weighting)
                (value, low, high), (_, d_low, d_high) = row["rho"], row["documents"]
                cells.append(f"{value:.2f} [{low:.2f}, {high:.2f}] [{d_low:.2f}, {d_high:.2f}]")
            lines.append([str(seed), NAMES[measure], *cells])
    return pages.table(["seed", "measure", *(f"block {block}" for block in blocks)], lines)


def verdict(seeds: list[Rows], effect: str, weighting: str) -> str:
    """In words: the best measure, and how far it leads co-activation and the control."""

    def rho(measure: str, quantity: str = "rho") -> list[list[float]]:
        found = [select(s, block="mean", measure=measure, effect=effect, weighting=weighting) for s in seeds]
        return [row[quantity] for row in found]

    def seeds_of(measure: str, quantity: str = "rho") -> str:
        return pages.over_seeds([value for value, _, _ in rho(measure, quantity)])

    best = max((m for m in MEASURES if m != "size"), key=lambda m: mean(value for value, _, _ in rho(m)))
    lead, beyond = (min(low for _, low, _ in rho(best, key)) for key in ("lead", "beyond_size"))
    return (
        f"- **{EFFECTS[effect]}, {WEIGHTINGS[weighting]}**: best is {NAMES[best]}, rho {seeds_of(best)}; "
        f"I(i, j) has {seeds_of('interaction')}. Ahead of the better form of co-activation by "
        f"{seeds_of(best, 'lead')} (lowest end of a seed's 95 % interval over pairs: {lead:.2f}). "
        f"The control, size alone: {seeds_of('size')}; what {NAMES[best]} ranks beyond size, as partial rho: "
        f"{seeds_of(best, 'beyond_size')} (lowest end {beyond:.2f}); what I(i, j) does: "
        f"{seeds_of('interaction', 'beyond_size')}."
    )


def section(name: str, seeds: list[Rows]) -> str:
    """What was found of one crosscoder."""
    verdicts = "\n".join(verdict(seeds, effect, weighting) for effect in EFFECTS for weighting in WEIGHTINGS)
    return f"""## {name}, {len(seeds)} seed{"s" if len(seeds) > 1 else ""}

{verdicts}

Spearman's rho, mean over blocks, mean over seeds ± half the 95 % interval over seeds:

{summary(seeds, "rho")}

What each ranks beyond size (partial rho, size given):

{summary(seeds, "beyond_size")}

### {name}, by block: the MLP's output, per occurrence

Over seeds, mean ± half the 95 % interval, the best measure of each block in bold (the control aside); by seed
rho [95 % over pairs] [95 % over documents].

{by_block(seeds, "output", "occurrence")}

### {name}, by block: the MLP's output, over the text

{by_block(seeds, "output", "text")}

### {name}, by block: the loss, per occurrence

{by_block(seeds, "loss", "occurrence")}
"""


def page(made_by: str, label: str, records: dict[str, list[dict[str, Any]]]) -> str:
    """docs/validation.md; label: model, text and crosscoders, in words."""
    first = next(iter(records.values()))[0]
    config = first["config"]
    sections = "\n".join(section(name, [r["rows"] for r in found]) for name, found in records.items())
    return f"""# Which measure predicts interventions?

Made by

    {made_by}

{label}; {first["tokens"]} held-out tokens per run:
measures are taken on the first half of the text, interventions made on the documents that begin in the
second.

By block, {config["pairs"]} pairs of features that are active together at 8 tokens or more of either half,
equally many from every tenth of them in order of I(i, j), so that they stand for all such pairs. For each,
at up to {config["occurrences"]} tokens where both are active, one feature's part f_i d_i, the other's, or
both are taken out of the *model's own* MLP input. The effect is what removing both does beyond removing each:

- on the MLP's output: the norm of `MLP(n) - MLP(n - a_i) - MLP(n - a_j) + MLP(n - a_i - a_j)`, mean over
  occurrences;
- on the loss: the size of the same difference of the cross-entropy of the next 16 tokens, with the MLP's
  output changed at that token and the rest of the model run on ({config["loss_pairs"]} of the pairs,
  {config["loss_occurrences"]} occurrences each);
- per occurrence, or over the text: times how often both are active.

Measures: the paper's I(i, j) + I(j, i), per co-occurrence or over the text; the true interaction, which is
the norm of the mixed difference at the crosscoder's reconstruction (the output's effect is the same
difference at the model's own activations, on other text); co-activation as the cosine of activations and as
a count; the cosine of the decoder directions. **Size** is a control: the product of the norms of both
features' parts in the MLP's input, which knows nothing of the MLP: where a measure is not ahead of it, the
measure says no more than that strong features do more. Intervals over documents draw the
documents of the interventions anew; drawing adds noise to the effects, so they lie below the estimate.

{sections}"""


def main(argv: Sequence[str] | None = None) -> None:
    """Validate what is missing, then write the page."""
    parser = pages.parser(__doc__)
    add_arguments(parser)
    parser.add_argument("--crosscoders", nargs="+", default=CROSSCODERS)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--page", type=Path, default=Path("docs/validation.md"))
    args = parser.parse_args(argv)
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in args.crosscoders}
    folders = text_runs(args)
    for folder in folders:
        with progress_bars() as progress:
            Run(folder.path, progress=progress).validate(args.crosscoders, args.tokens)
        for name in args.crosscoders:
            records[name].append(folder.read_json(layout.validation(name)))
    label = f"Text: {args.label}; the model is `embedded`; {sizes(folders)}"
    if args.text is not None:
        label += ", the runs of [clusters.md](clusters.md)"
    args.page.write_text(page(command("validation.validation", args), label, records))
    print(f"{args.page}: {len(folders)} seeds, {len(records)} crosscoders each")


if __name__ == "__main__":
    main()
