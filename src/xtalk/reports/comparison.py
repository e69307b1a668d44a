"""The record of a comparison of two results, and its page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt

from xtalk.files import write_text
from xtalk.reports import wording
from xtalk.reports.data import Interval, ResidMid, Scheme, Strict, Together
from xtalk.reports.html import ShownFigure, environment

Value = Interval | float
Figure = Literal[
    "fvu", "recon", "l0", "dead", "interaction", "share", "phi", "phi_weighed", "lost", "ablation"
]


class Row(Strict):
    """A figure of A's crosscoder and of B's, [value, low, high] or a number; null where one of them lacks it.

    block: null for a figure of the whole crosscoder. m: of a share. resid_mid, error, scheme: of a fidelity.
    difference: B less A; its interval takes both as independent, so that it is too wide where both are of
    one text.
    """

    figure: Figure
    block: NonNegativeInt | Literal["mean"] | Together | None = None
    resid_mid: ResidMid | None = None
    error: Literal["drop", "keep"] | None = None
    scheme: Scheme | None = None
    m: int | None = None
    a: Value | None
    b: Value | None
    difference: Value | None


class Pair(Strict):
    """A crosscoder of A beside one of B, by name."""

    a: str
    b: str
    rows: list[Row]


class Setting(Strict):
    """Something that differs between A and B: what was chosen, or what was measured on."""

    key: str
    a: str
    b: str


class Side(Strict):
    """One of the two folders; alone: its crosscoders that stand beside none of the other's."""

    folder: str
    model: str
    alone: list[str]


class ComparisonRecord(Strict):
    """What `xtalk compare --json` prints; notes: what to know before comparing, a sentence each."""

    schema_: Literal["xtalk.comparison/1"] = Field("xtalk.comparison/1", alias="schema")
    a: Side
    b: Side
    notes: list[str]
    settings: list[Setting]
    pairs: list[Pair]


def write_comparison(
    record: ComparisonRecord, page: Path, figures: Sequence[Mapping[str, ShownFigure]]
) -> None:
    """Writes a self-contained page; figures: of A and of B, by name."""
    names = list(dict.fromkeys(name for side in figures for name in side))
    template = environment().get_template("comparison.html.j2")
    shown = {"record": record, "names": names, "figures": figures}
    words = {
        "scheme_words": wording.SCHEME_WORDS,
        "blocks_words": wording.BLOCKS_WORDS,
        "figure_words": wording.FIGURE_WORDS,
    }
    write_text(page, template.render(shown | words))
