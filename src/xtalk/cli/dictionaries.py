"""Dictionaries of any format: what one is, and another format of it."""

from typing import Annotated

import typer

from xtalk.cli.commands import Result

Source = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help="A folder, or a hub name: OWNER/NAME[:FOLDER][@REVISION].", show_default=False
    ),
]


def inspect(path: Source) -> Result:
    """Say what a dictionary is, whoever trained it, and what xtalk can and cannot do with it.

    Reads xtalk's own format and those that docs/formats.md lists.

    Example: `xtalk inspect google/gemma-scope-2b-pt-res:layer_20/width_16k/average_l0_71`
    """
    from xtalk.crosscoder.hub import folder_of
    from xtalk.crosscoder.inspection import described, inspected

    about = inspected(folder_of(path))
    return Result(about, described(about))
