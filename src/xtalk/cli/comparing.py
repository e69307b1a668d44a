"""Two results beside each other."""

from pathlib import Path
from typing import Annotated

import typer

from xtalk.cli.commands import Result
from xtalk.errors import XtalkError


def compare(
    a: Annotated[
        Path,
        typer.Argument(metavar="A", help="A run's folder, or one of `xtalk measure`.", show_default=False),
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another.", show_default=False)],
    pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NAME",
            help="A crosscoder of A, and which one of B stands beside it; give the option once for each.  "
            "[default: those of one name, or the only one of each]",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="Where a page goes.  [default: nowhere]")
    ] = None,
) -> Result:
    """Put two results beside each other: figures, differences with intervals, and what was chosen otherwise.

    Reads metrics.json and report_data.json alone. An interval of a difference takes both sides as
    independent, so that it is too wide where both are of one text. With --out, leaves one self-contained page
    with the figures of both.

    Examples:
    - `xtalk compare runs/one runs/two --out compared.html`

    - `xtalk compare runs/mine measured --pair unpenalised=my-sae`
    """
    from xtalk.runs.comparing import compare as compare_folders

    found = compare_folders(a, b, dict(map(_names, pair or ())))
    words = str(found) if out is None else f"{found}\n{found.save(out)}"
    return Result(found.record.model_dump(mode="json"), words)


def _names(pair: str) -> tuple[str, str]:
    one, equals, other = pair.partition("=")
    if not (one and equals and other):
        raise XtalkError(f"--pair {pair!r}; expected a crosscoder of each: --pair NAME=NAME")
    return one, other
