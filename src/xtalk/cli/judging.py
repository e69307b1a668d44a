"""What stands beside a run: judges of its clusters and of its measures."""

from typing import Annotated

import typer

from xtalk.cli.failing import one_line_errors
from xtalk.cli.options import Device, Out


def judge(
    out: Out,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="The endpoint's name for it.", show_default=False)
    ],
    describe: Annotated[bool, typer.Option("--describe", help="Describe each feature as well.")] = False,
    price: Annotated[
        float | None, typer.Option(min=0, help="Per million tokens, for the estimate.  [default: unknown]")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Send the requests that the estimate counts.")] = False,
    device: Device = "auto",
) -> None:
    """Have a language model judge the clusters, after `cluster`: any OpenAI-compatible endpoint.

    The endpoint is OPENAI_BASE_URL, the key OPENAI_API_KEY. Says first what it takes; --yes sends it.
    Answers are kept in endpoint_cache/, results in endpoint.json.

    Example: `xtalk judge --out runs/mine --model NAME --yes`
    """
    with one_line_errors():
        from xtalk.progress import progress_bars
        from xtalk.runs import judge as endpoint
        from xtalk.runs.folder import RunFolder

        with progress_bars() as progress:
            folder = RunFolder.open(out)
            record = endpoint.judge(
                folder,
                model,
                describe=describe,
                price=price,
                confirmed=yes,
                device=device,
                progress=progress,
            )
        typer.echo(endpoint.told(record))
        typer.echo(folder.file(endpoint.JUDGED))


def validate(
    out: Out,
    crosscoder: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A crosscoder of the run; may be repeated.  [default: all]"),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Held-out tokens to use.  [default: 16384]")
    ] = None,
    device: Device = "auto",
) -> None:
    """Judge the measures of interaction by interventions, after `train`: which predicts what removing does?

    Removes sampled pairs of features from the model's own MLP inputs, and rank-correlates what that does
    with each measure. About a minute per crosscoder of the quick preset. Leaves validation/NAME.json.

    Example: `xtalk validate --out runs/mine --crosscoder unpenalised`
    """
    with one_line_errors():
        from xtalk.progress import progress_bars
        from xtalk.runs.folder import RunFolder
        from xtalk.runs.steps import validation

        with progress_bars() as progress:
            files = validation.validate(
                RunFolder.open(out),
                crosscoders=crosscoder or (),
                tokens=tokens or validation.TOKENS,
                device=device,
                progress=progress,
            )
        for file in files:
            typer.echo(out / file)
