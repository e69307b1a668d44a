"""Judges of a run: of its clusters, and of its measures."""

from typing import Annotated

import typer

from xtalk.cli.commands import Result
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
) -> Result:
    """Have a language model judge the clusters: any OpenAI-compatible endpoint.

    The endpoint is OPENAI_BASE_URL, the key OPENAI_API_KEY. Without --yes it says what
    it would send.
    Answers are kept in endpoint_cache/, results in endpoint.json.

    Example: `xtalk judge --out runs/mine --model NAME --yes`
    """
    from xtalk.clustering.asking import table
    from xtalk.progress import progress_bars
    from xtalk.runs.layout import ENDPOINT
    from xtalk.runs.run import Run

    with progress_bars() as progress:
        run = Run(out, device=device, progress=progress)
        record = run.judge(model, describe=describe, price=price, confirmed=yes)
    return Result(record, f"{table(record)}\n{run.folder.file(ENDPOINT)}")


def validate(
    out: Out,
    crosscoder: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME ...", help="Crosscoders of the run.  [default: all]"),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Held-out tokens to use.  [default: 16384]")
    ] = None,
    device: Device = "auto",
) -> Result:
    """Judge the measures of interaction by interventions: which predicts what removing features does?

    Removes sampled pairs of features from the model's own MLP inputs, and rank-correlates what that does
    with each measure. About a minute per crosscoder of the quick preset. Leaves validation/NAME.json.

    Example: `xtalk validate --out runs/mine --crosscoder unpenalised`
    """
    from xtalk.progress import progress_bars
    from xtalk.runs.run import Run
    from xtalk.runs.steps.validate import TOKENS

    with progress_bars() as progress:
        files = Run(out, device=device, progress=progress).validate(crosscoder or (), tokens or TOKENS)
    return Result({"files": list(map(str, files))}, "\n".join(map(str, files)))
