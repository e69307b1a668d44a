"""What every page is made with: templates that escape, and filters that put numbers into words."""

from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined

from xtalk.reports import wording


def environment() -> Environment:
    """The templates, with every filter that one of them uses."""
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
    return made
