"""Train variants of crosscoders at the MLPs' inputs, and draw how much of the model they keep at which share.

    python -m studies.results.frontier --text stories.jsonl --held-out-text held_out.jsonl \
        --out runs/frontier
    python -m studies.results.frontier ... --only nested --seed 1  # one variant, one seed
    python -m studies.results.frontier ... --taken runs/mine runs/other  # runs of `xtalk run` beside them

Variants are entries of a YAML file (frontier.yaml; --variants names another): keys of a run's configuration,
and the weights of penalties. Every variant and seed is a run folder of its own, OUT/VARIANT/seed-S, that goes
on where it was stopped. The page has all variants and seeds that are evaluated, also those of earlier calls.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import xtalk
from studies import pages
from studies.results.rows import Row, cell, evaluate, figures, frontier, is_evaluated
from xtalk.errors import XtalkError
from xtalk.runs import layout
from xtalk.runs.config import UNPENALISED, merged

VARIANTS = Path(__file__).with_suffix(".yaml")
FEW = ("keep_1", "keep_2", "keep_4", "keep_8", "full")


def read_variants(file: Path) -> dict[str, dict[str, Any]]:
    """By name, keys of a configuration and `penalties`. Errors: XtalkError for a file without variants."""
    content = yaml.safe_load(file.read_text())
    if not isinstance(content, Mapping) or not content.get("variants"):
        raise XtalkError(f"{file} has no entry `variants`; expected names, each with keys of a configuration")
    shared: dict[str, Any] = content.get("all", {})
    return {name: merged(shared, given) for name, given in content["variants"].items()}


def configuration(
    args: argparse.Namespace, name: str, variant: Mapping[str, Any], seed: int
) -> xtalk.RunConfig:
    """The configuration of one variant and seed; batches are whole sequences, cheapest to splice."""
    changes = {key: value for key, value in variant.items() if key != "penalties"}
    sequences = max(1, changes["training"]["batch_tokens"] // changes["sequence_length"])
    specs = [{"name": UNPENALISED, "penalties": {}}]  # no run is without it; it is trained if asked for
    if name != UNPENALISED:
        specs.append({"name": name, "penalties": variant["penalties"]})
    texts = {"model": args.model, "text": args.text, "held_out_text": args.held_out_text}
    own = {"seed": seed, "harvest": {"buffer_sequences": sequences}, "crosscoders": specs}
    return xtalk.preset("quick", **merged(own | texts, changes))


def evaluated(out: Path, names: Sequence[str]) -> dict[str, list[Row]]:
    """The rows of variants, those that are there, over seeds."""
    found: dict[str, list[Row]] = {}
    for name in names:
        for path in sorted((out / name).glob(f"seed-*/{layout.CONFIG}")):
            folder = xtalk.RunFolder.open(path.parent)
            if is_evaluated(folder, name):
                found.setdefault(name, []).append(figures(folder, name))
    return found


def taken(folders: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The rows of runs made by `xtalk run`, each crosscoder by its name and the size of its run."""
    for path in folders:
        folder = xtalk.RunFolder.open(path)
        for spec in folder.config.crosscoders:
            if is_evaluated(folder, spec.name):
                row = figures(folder, spec.name)
                size = f"{row['latents']:,.0f} latents, K {row['k']:.0f}, {row['tokens'] / 1e6:.2f} M tokens"
                yield f"{spec.name} ({size})", row


def page(args: argparse.Namespace, found: Mapping[str, Sequence[Row]], config: xtalk.RunConfig) -> str:
    """docs/results-frontier.md."""

    def table(columns: Mapping[str, tuple[str, int]]) -> str:
        rows = (
            [name, *(cell(rows, key, digits) for key, digits in columns.values())]
            for name, rows in found.items()
        )
        return pages.table(["crosscoder", *columns], rows)

    alone = {scheme: (f"{scheme}/model", 3) for scheme in FEW}
    together = {f"{scheme}, all": (f"{scheme}/all", 3) for scheme in ("keep_1", "full")}
    together |= {f"{scheme}, with block 0": (f"{scheme}/all_with_0", 3) for scheme in ("keep_1", "full")}
    general = {"share": ("dominant_share", 3), "T": ("interaction", 0), "FVU": ("fvu", 3), "L0": ("l0", 1)}
    cost = {key: (key, 0) for key in ("latents", "dead", "tokens", "seconds")}
    penalties = "\n".join(
        f"- **{name}**: " + (", ".join(f"{key} {weight:g}" for key, weight in given.items()) or "none")
        for name, given in ((n, v["penalties"]) for n, v in read_variants(args.variants).items())
        if name in found
    )
    seeds = "; ".join(f"{name} {len(rows)}" for name, rows in found.items())
    return f"""# How much is kept, at which share

Measured, on held-out text; means over seeds ± half the 95 % interval, where there are several. Fidelities
are Phi_mean: 1 is the model itself, 0 is the MLP replaced by its mean output; mean over all blocks but the
first, resid_mid from the model. Model: `{args.model}`; text: {args.label}. {config.evaluation.tokens} tokens
evaluated. Made by `studies/results/frontier.py`; variants are in its `frontier.yaml`.
Seeds: {seeds}. Penalties:

{penalties}

## One MLP rebuilt at a time, from m features for each token and neuron

{table(alone)}

## All MLPs rebuilt at once

{table(together)}

## Interaction and reconstruction

{table(general)}

## Size and cost

Seconds are those of training, on the machine that made the row:

{table(cost)}

![Fidelity and interaction against dominant share](figures/{args.page.stem}.png)
"""


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options given."""
    parser = pages.parser(__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--text", default="embedded")
    parser.add_argument("--held-out-text", default=None, help="default: a part of --text, by document")
    parser.add_argument("--label", default="the embedded text", help="the text, in words, for the page")
    parser.add_argument("--variants", type=Path, default=VARIANTS)
    parser.add_argument("--only", nargs="*", default=None, help="variants to train; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--taken", type=Path, nargs="+", default=[], help="folders of finished runs")
    parser.add_argument("--out", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--page", type=Path, default=Path("docs/results-frontier.md"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the page."""
    args = options(argv)
    variants = read_variants(args.variants)
    chosen = list(variants) if args.only is None else args.only
    if unknown := set(chosen) - variants.keys():
        raise XtalkError(f"no variant {min(unknown)!r} in {args.variants}; it has {', '.join(variants)}")
    for seed in args.seeds:
        for name in chosen:
            config = configuration(args, name, variants[name], seed)
            folder = xtalk.RunFolder.create(args.out / name / f"seed-{seed}", config)
            evaluate(folder, name)
            print(name, seed, dict(figures(folder, name)), flush=True)
    found = evaluated(args.out, list(variants))
    for label, row in taken(args.taken):
        found.setdefault(label, []).append(row)
    if not found:
        raise XtalkError(f"nothing is evaluated in {args.out}; name a variant, or finished runs (--taken)")
    drawn = args.page.parent / "figures" / f"{args.page.stem}.png"
    drawn.parent.mkdir(parents=True, exist_ok=True)
    frontier(found).savefig(drawn, dpi=200)
    config = configuration(args, *next(iter(variants.items())), args.seeds[0])
    args.page.write_text(page(args, found, config))
    print(f"{args.page}: {len(found)} variants")


if __name__ == "__main__":
    main()
