"""One look for every figure: sized for a paper, legible without colour vision, the same bytes every time."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from xtalk.files import replacing
from xtalk.reports.html import Spot

PAGE = 7.0
"""Width in inches of a paper's page."""

# Okabe and Ito's palette, without the yellow that vanishes on white.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
GREY = "#767676"
_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, "#000000")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")

FONT = "DejaVu Sans"  # ships with matplotlib: the same everywhere

_STYLE: dict[str, object] = {
    "font.family": FONT,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 250,
    "savefig.facecolor": "white",
    "svg.hashsalt": "xtalk",
    "svg.fonttype": "path",
}


class Plate(Figure):
    """A figure that knows what stands where, for who points at it."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self._marked: list[tuple[Axes, float, float, str]] = []

    def mark(self, axes: Axes, x: float, y: float, words: str) -> None:
        """Say what stands at a point of the axes."""
        self._marked.append((axes, x, y, words))

    def spots(self) -> list[Spot]:
        """What was marked, and where; once the figure is laid out, as `save` does."""
        found: list[Spot] = []
        for axes, x, y, words in self._marked:
            across, up = self.transFigure.inverted().transform(axes.transData.transform((x, y)))
            found.append((round(float(across), 4), round(1 - float(up), 4), words))
        return found


def look(place: int) -> tuple[str, str]:
    """Colour and marker of the nth thing in a figure; beyond the palette they pair up anew."""
    return _COLOURS[place % len(_COLOURS)], _MARKERS[(place + place // len(_COLOURS)) % len(_MARKERS)]


@contextmanager
def figure_style() -> Generator[None, None, None]:
    """The style for figures made and saved inside it; the user's own matplotlib settings play no part."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes name.png and name.svg without dates or versions in their metadata."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with replacing(png) as partial:
        figure.savefig(partial, metadata={"Software": None})
    figure.set_layout_engine("none")  # the layout is costly, and both should have the same
    with replacing(svg) as partial:
        figure.savefig(partial, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return [png, svg]


def plain(text: str, longest: int = 34) -> str:
    """The user's text as a figure can show it: no mathematics, no missing glyphs, at most `longest` signs."""
    shown = "".join(sign if ord(sign) in _glyphs() else "\N{WHITE SQUARE}" for sign in text)
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    return shown.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())
