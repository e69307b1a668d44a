"""A run and its steps, in their order."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xtalk.cli.failing import one_line_errors
from xtalk.cli.options import Device, HeldOutText, Model, Out, OutOfPreset, Preset, Seed, Text

if TYPE_CHECKING:
    from xtalk.runs.folder import RunFolder

DEFAULT_PRESET = "quick"


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
        perform("run", folder, device)
        typer.echo(f"report: {folder.path / 'report.html'}")


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
        perform(
            "harvest",
            _folder(out, preset, model=model, text=text, held_out_text=held_out_text, seed=seed),
            device,
        )


def train(out: Out, device: Device = "auto") -> None:
    """Train a crosscoder for each set of penalties, after `harvest`.

    Leaves crosscoders/NAME/cfg.json and sae_weights.safetensors.
    A killed training goes on from its checkpoint.

    Example: `xtalk train --out runs/mine`
    """
    step("train", out, device)


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
    with one_line_errors():
        if site:
            from xtalk.runs.steps.sites import check_elsewhere

            check_elsewhere(site)  # before the hours that the step may take
    step("interact", out, device)
    if site:
        with one_line_errors():
            from xtalk.progress import progress_bars
            from xtalk.runs.folder import RunFolder
            from xtalk.runs.steps.sites import interact_elsewhere

            with progress_bars() as progress:
                interact_elsewhere(RunFolder.open(out), site, device=device, progress=progress)


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
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of everything random.  [default: the run's]")
    ] = None,
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
    step("cluster", out, device, **settings)


def evaluate(out: Out, device: Device = "auto") -> None:
    """Evaluate fidelity on held-out text, with intervals, after `detect dormant`.

    Leaves metrics.json and report_data.json.

    Example: `xtalk evaluate --out runs/mine`
    """
    step("evaluate", out, device)


def report(out: Out) -> None:
    """Draw the figures and write report.html, after `evaluate`.

    Example: `xtalk report --out runs/mine`
    """
    step("report", out, "cpu")


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


def step(name: str, out: Path, device: str, **settings: Any) -> None:
    """Do a step on the folder that is there."""
    with one_line_errors():
        from xtalk.runs.folder import RunFolder

        perform(name, RunFolder.open(out), device, **settings)


def perform(name: str, folder: "RunFolder", device: str, **settings: Any) -> None:
    """Do a step; settings that were not given are the folder's."""
    from xtalk.progress import progress_bars
    from xtalk.runs import pipeline as steps

    given = {key: value for key, value in settings.items() if value is not None}
    with progress_bars() as progress:
        getattr(steps, name)(folder, device=device, progress=progress, **given)
