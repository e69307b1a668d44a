"""What every page is made with: templates that escape, numbers in words, and scripts that no text adds to."""

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from xtalk.reports import wording

Spot = tuple[float, float, str]
"""A place in a figure, as fractions of its width and height from the upper left, and what is there."""


@dataclass(frozen=True)
class ShownFigure:
    """A figure as a data URI, and what stands where in it."""

    uri: str
    spots: list[Spot]


def environment() -> Environment:
    """The templates, with every filter and function that one of them uses."""
    made = Environment(
        loader=PackageLoader("xtalk.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast(dict[str, Any], made.filters).update(
        number=wording.number,
        significant=wording.significant,
        whole=wording.whole,
        bounds=wording.bounds,
        duration=wording.duration,
        penalties=wording.penalties,
        visible=wording.visible,
        left_out=wording.left_out,
        text_words=wording.text_words,
        percent=lambda triple: f"{100 * triple[0]:.0f} %",
    )
    cast(dict[str, Any], made.globals).update(script=script, policy=policy)
    return made


def script(name: str) -> Markup:
    """A script of the templates' folder as an element."""
    return Markup(f"<script>{_source(name)}</script>")


def policy(*scripts: str) -> Markup:
    """The page's Content-Security-Policy: these scripts, images that it holds, and nothing from elsewhere."""
    digests = (hashlib.sha256(_source(name).encode()).digest() for name in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    rules = (
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src {hashes}",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return Markup(f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(rules)}">')


def _source(name: str) -> str:
    return files("xtalk.reports").joinpath("templates", name).read_text(encoding="utf-8")
