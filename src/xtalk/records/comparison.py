"""Two results beside each other, whoever measured them: every figure, and how far they are apart."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any, NamedTuple

from xtalk.errors import XtalkError
from xtalk.reports import data
from xtalk.reports.comparison import ComparisonRecord, Pair, Row, Setting, Side, Value, write_comparison
from xtalk.reports.metrics import CrosscoderMetrics, Fidelity, FidelityMean, Metrics
from xtalk.reports.results import Results
from xtalk.statistics.interval import Interval

PRINTED = {"phi": ("full", "keep_2", "keep_1"), "lost": ("full", "keep_1")}
"""Schemes; rows and page have all."""


class Key(NamedTuple):
    """What makes two figures the same."""

    figure: str
    block: int | str | None = None
    resid_mid: str | None = None
    error: str | None = None
    scheme: str | None = None
    m: int | None = None


@dataclass(frozen=True)
class Measured:
    """One of the two: a folder's metrics.json, its report_data.json if there is one, and its settings."""

    folder: str
    metrics: Metrics
    results: Results | None
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """Two results beside each other; `record` is what `xtalk compare --json` prints."""

    record: ComparisonRecord
    sides: tuple[Measured, Measured]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each figure: value, low and high of A, of B and of the difference; for a DataFrame."""
        return [
            {"crosscoder_a": pair.a, "crosscoder_b": pair.b, **_flat(row)}
            for pair in self.record.pairs
            for row in pair.rows
        ]

    def save(self, page: str | Path) -> Path:
        """Write one self-contained page: both tables and figures, and what differs; returns its path.

        Errors: XtalkError for a full disk.
        """
        from xtalk.reports.page import figures_of  # loads matplotlib, which nothing else here needs

        figures = [{} if side.results is None else figures_of(side.results) for side in self.sides]
        write_comparison(self.record, Path(page), figures)
        return Path(page)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for letter, side in (("A", self.record.a), ("B", self.record.b)):
            yield f"{letter}: {side.folder}, {side.model}"
        yield from (f"NOTE: {note}" for note in self.record.notes)
        if self.record.settings:
            yield "What differs (A | B):"
            yield from (f"  {one.key}: {_cut(one.a)} | {_cut(one.b)}" for one in self.record.settings)
        for pair in self.record.pairs:
            yield pair.a if pair.a == pair.b else f"{pair.a} (A) and {pair.b} (B)"
            yield f"  {'':26}{'A':>24}{'B':>24}{'B - A':>24}"
            for row in filter(_printed, pair.rows):
                values = _words(row.a), _words(row.b), _words(row.difference, "+")
                yield f"  {_name(row):26}" + "".join(f"{words:>24}" for words in values)


def compared(a: Measured, b: Measured, pairs: Mapping[str, str] | None = None) -> Comparison:
    """Compare two results; pairs: which crosscoder of A stands beside which of B.

    By default those of one name, or the only one of each. Errors: XtalkError for a name that there is not,
    and where nothing pairs.
    """
    named = _pairs(a, b, pairs)
    ours, theirs = [one for one, _ in named], [other for _, other in named]
    record = ComparisonRecord(
        schema="xtalk.comparison/1",
        a=_side(a, ours),
        b=_side(b, theirs),
        notes=[*_notes(a, b), *_warnings("A", a, ours), *_warnings("B", b, theirs)],
        settings=_settings(a, b),
        pairs=[
            Pair(a=one, b=other, rows=_rows(_figures(a, one), _figures(b, other))) for one, other in named
        ],
    )
    return Comparison(record, (a, b))


def _pairs(a: Measured, b: Measured, wanted: Mapping[str, str] | None) -> list[tuple[str, str]]:
    ours, theirs = ([one.name for one in side.metrics.crosscoders] for side in (a, b))
    if wanted:
        for side, names, given in ((a, ours, wanted.keys()), (b, theirs, wanted.values())):
            if strangers := set(given) - set(names):
                raise XtalkError(
                    f"{side.folder} has no crosscoder {min(strangers)!r}; expected one of {', '.join(names)}"
                )
        return list(wanted.items())
    if shared := [(name, name) for name in ours if name in theirs]:
        return shared
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    raise XtalkError(
        f"no crosscoder has the same name in both; A has {', '.join(ours)}, B has {', '.join(theirs)}; "
        f"say which belong together: --pair {ours[0]}={theirs[0]}"
    )


def _side(side: Measured, taken: list[str]) -> Side:
    names = [one.name for one in side.metrics.crosscoders]
    return Side(
        folder=side.folder,
        model=side.metrics.model.name,
        alone=[name for name in names if name not in taken],
    )


def _notes(a: Measured, b: Measured) -> Iterator[str]:
    ours, theirs = (side.results.data.provenance if side.results else None for side in (a, b))
    differ = "the models differ: T and losses are in units of their own, and differences say little"
    if ours is None or theirs is None:
        if a.metrics.model.name != b.metrics.model.name:
            yield differ
        yield "whether both are of one text is not recorded (report_data.json is missing)"
        return
    if (a.metrics.model.name, ours.model_hash) != (b.metrics.model.name, theirs.model_hash):
        yield differ
    if ours.text_hash != theirs.text_hash:
        yield "the texts differ: so may figures of the same crosscoder"
    elif ours.tokens != theirs.tokens or a.metrics.counted != b.metrics.counted:
        yield "the texts are one, but not the tokens of it that were measured, or that count"
    if ours.blocks_averaged != theirs.blocks_averaged:
        yield f"means are over blocks {ours.blocks_averaged} in A and {theirs.blocks_averaged} in B"


def _warnings(letter: str, side: Measured, names: list[str]) -> Iterator[str]:
    for one in side.metrics.crosscoders:
        if one.name in names:
            yield from (f"{letter}, {one.name}: {warning}" for warning in one.warnings)


def _settings(a: Measured, b: Measured) -> list[Setting]:
    keys = [key for key in a.settings if key in b.settings]
    return [
        Setting(key=key, a=a.settings[key], b=b.settings[key])
        for key in keys
        if a.settings[key] != b.settings[key]
    ]


def _rows(ours: Mapping[Key, Value], theirs: Mapping[Key, Value]) -> list[Row]:
    return [
        Row.model_validate(
            key._asdict()
            | {
                "a": ours.get(key),
                "b": theirs.get(key),
                "difference": difference(ours.get(key), theirs.get(key)),
            }
        )
        for key in sorted(dict.fromkeys([*ours, *theirs]), key=_place)
    ]


def _place(key: Key) -> tuple[int, int]:
    """The crosscoder's own figures first, then means, single blocks, and blocks at once."""
    if isinstance(key.block, int):
        return 2, key.block
    return (None, "mean", 2, "all", "all_with_0").index(key.block), 0


def difference(a: Value | None, b: Value | None) -> Value | None:
    """B less A. Of two intervals: the interval of the difference, as if both were independent.

    Source: Zou and Donner, Statistics in Medicine 27 (2008): the square and add method. The distances from
    either value to its bounds are added as squares.

    >>> difference(Interval(1.0, 0.6, 1.3), Interval(3.0, 2.6, 3.3))
    Interval(value=2.0, low=1.5, high=2.5)
    """
    if a is None or b is None:
        return None
    if not (isinstance(a, Interval) and isinstance(b, Interval)):
        return _value(b) - _value(a)
    apart = b.value - a.value
    down, up = hypot(b.value - b.low, a.high - a.value), hypot(b.high - b.value, a.value - a.low)
    return Interval(apart, apart - down, apart + up)


def _value(value: Value) -> float:
    return value.value if isinstance(value, Interval) else value


def _figures(side: Measured, name: str) -> dict[Key, Value]:
    """Every figure of a crosscoder that two results can have in common."""
    one = next(crosscoder for crosscoder in side.metrics.crosscoders if crosscoder.name == name)
    found: dict[Key, Value] = {}
    for figure in ("fvu", "recon", "l0", "dead", "interaction"):
        found[Key(figure)] = float(getattr(one, figure))
    found |= _shares(side, one)
    for mean in one.fidelity_mean:
        if mean.baseline == "mean":
            found |= _of_mean(mean)
    for error, rows in (("drop", one.fidelity), ("keep", one.fidelity_error_kept)):
        for row in rows:
            if row.baseline == "mean":
                found |= _of_row(row, error)
    return found


def _shares(side: Measured, one: CrosscoderMetrics) -> dict[Key, Value]:
    """The share of the m largest contributions, by block, where it was kept; else the mean of m = 1."""
    curves = [] if side.results is None else side.results.data.few_hot
    kept: dict[Key, Value] = {
        Key("share", curve.block, m=point.m): point.share
        for curve in curves
        if curve.crosscoder == one.name
        for point in curve.points
    }
    return kept or {Key("share", "mean", m=1): one.dominant_share}


def _of_mean(row: FidelityMean) -> dict[Key, Value]:
    at = ("mean", row.resid_mid, "drop")
    found: dict[Key, Value] = {Key("ablation", *at): row.ablation}
    for scheme in data.SCHEMES:
        for figure, values in (("phi", row.plain), ("phi_weighed", row.weighed), ("lost", row.lost)):
            if scheme in values:
                found[Key(figure, *at, scheme)] = values[scheme]
    return found


def _of_row(row: Fidelity, error: str) -> dict[Key, Value]:
    at = (row.block, row.resid_mid, error)
    found: dict[Key, Value] = {} if row.ablation is None else {Key("ablation", *at): row.ablation}
    for scheme, (low, high) in row.ci95.items():
        found[Key("phi", *at, scheme)] = Interval(getattr(row, scheme), low, high)
        if scheme in row.lost:
            found[Key("lost", *at, scheme)] = row.lost[scheme]
    return found


def _printed(row: Row) -> bool:
    """Whether a row is printed: fidelities with resid_mid from the model and the error node dropped."""
    if row.figure == "share":
        return row.m == 1
    if (row.resid_mid or "model", row.error or "drop") != ("model", "drop"):
        return False
    return row.scheme is None or row.scheme in PRINTED.get(row.figure, ())


def _name(row: Row) -> str:
    names = {"fvu": "FVU", "l0": "L0", "interaction": "T", "share": "dominant share", "phi": "Phi"}
    names |= {"lost": "nat lost,", "ablation": "ablation costs, nat"}
    figure = " ".join(filter(None, [names.get(row.figure, row.figure), row.scheme]))
    block = f"block {row.block}" if isinstance(row.block, int) else row.block
    return ", ".join(filter(None, [figure, block]))


def _words(value: Value | None, sign: str = "") -> str:
    if isinstance(value, Interval):
        return f"{value.value:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"
    return "-" if value is None else f"{value:{sign}.4g}"


def _cut(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _flat(row: Row) -> dict[str, Any]:
    flat = row.model_dump(exclude={"a", "b", "difference"})
    for name, value in (("a", row.a), ("b", row.b), ("difference", row.difference)):
        bounds = (value.low, value.high) if isinstance(value, Interval) else (None, None)
        flat[name] = None if value is None else _value(value)
        flat |= dict(zip((f"{name}_low", f"{name}_high"), bounds, strict=True))
    return flat
