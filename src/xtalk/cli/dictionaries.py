"""Dictionaries of any format: what one is, and another format of it."""

from pathlib import Path
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


def convert(
    path: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            metavar="xtalk|saelens|crosscoder_learning|paper", help="The format.", show_default=False
        ),
    ],
    lossy: Annotated[bool, typer.Option("--lossy", help="Write what the format does not lose.")] = False,
    hookpoints: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Names of the hookpoints that are read, for files that have none.  [default: the files']",
        ),
    ] = None,
) -> Result:
    """Write a dictionary in another format: the same bits, where that format has a place for them.

    What the format would lose is refused, or with --lossy named. What it has no key for (hookpoints, origin)
    is kept beside its keys, and xtalk reads it again.

    Example: `xtalk convert runs/mine/crosscoders/penalised sae --to saelens`
    """
    from xtalk.crosscoder.conversion import convert
    from xtalk.crosscoder.formats.format import named
    from xtalk.crosscoder.hub import stored_in

    stored = stored_in(path)
    if hookpoints is not None:
        stored = named(stored, [name.strip() for name in hookpoints.split(",")])
    lost = convert(stored, out, to, lossy=lossy)
    words = [f"{out}: in the format of {to}", *(f"lost: {what}" for what in lost)]
    return Result({"path": str(out), "format": to, "lost": list(lost)}, "\n".join(words))


def push(
    path: Source,
    name: Annotated[str, typer.Argument(metavar="NAME", help="OWNER/NAME on the hub.", show_default=False)],
    metrics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A metrics.json with its figures.  [default: of the run that PATH is in]"
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository a private one, if it is new.")
    ] = False,
) -> Result:
    """Upload a crosscoder to the Hugging Face hub, in xtalk's format and with a card.

    The card has hookpoints, sizes, figures and origin, as far as they are known. A token comes from
    `hf auth login` or HF_TOKEN.

    Example: `xtalk push runs/mine/crosscoders/penalised you/crosscoder --private`
    """
    from xtalk.crosscoder.crosscoder import Crosscoder
    from xtalk.runs import layout

    folder = Path(path).absolute()
    run = folder.parent.parent
    if metrics is None and run / layout.crosscoder(folder.name) == folder:
        metrics = run / layout.METRICS if (run / layout.METRICS).exists() else None
    pushed = Crosscoder.load(path).push_to_hub(name, metrics=metrics, crosscoder=folder.name, private=private)
    return Result({"source": pushed}, pushed)
