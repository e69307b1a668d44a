"""A run and its steps."""

import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xtalk.cli.commands import Result, taking
from xtalk.cli.configuring import Choice, choice
from xtalk.cli.options import Device, Out, OutOfPreset, Track, Yes

if TYPE_CHECKING:
    from xtalk.runs.config import RunConfig
    from xtalk.runs.plan import Plan
    from xtalk.runs.run import Run


@taking(choice)
def run(
    wanted: Choice, out: OutOfPreset = None, device: Device = "auto", track: Track = None, yes: Yes = False
) -> Result:
    """Do every step, from the model and the text to the report.

    On a folder that is there already it goes on from what is complete; options left out are then the
    folder's. The first lines are the plan, as `xtalk plan` prints it.

    Examples:
    - `xtalk run` : quick preset, into runs/quick

    - `xtalk run --out runs/mine --model ./my-model --text stories.jsonl` : preset own, 15 minutes for a
    model of 0.1 B parameters

    - `xtalk run --out runs/two --hookpoints blocks.1.ln2 blocks.1.resid_mid --k 16 --penalty keep_one=16`

    - `xtalk run --preset paper --device cuda`
    """
    result = _configured("run", wanted, out, device, track, {"approve": partial(_approve, yes=yes)})
    return Result(result.data, f"report: {result.data['report']}")


@taking(choice)
def plan(wanted: Choice, out: OutOfPreset = None, device: Device = "auto", yes: Yes = False) -> Result:
    """Say what a run will cost: tokens, FLOPs, memory, disk and time, from a measured second of this machine.

    Computes and writes nothing else; of a run that has begun, counts the steps that are left. Above an hour
    it says what to change, and ends with exit code 2.

    Example: `xtalk plan --model ./my-model --text stories.jsonl --steps 5000`
    """
    from xtalk.progress import progress_bars
    from xtalk.runs.folder import RunFolder
    from xtalk.runs.plan import LIMIT, plan_run
    from xtalk.runs.workbench import Workbench

    path = _folder(wanted, out)
    with progress_bars():
        made = plan_run(Workbench(RunFolder(path.absolute(), wanted.config(path)), device))
        if made.total_seconds > LIMIT:
            _approve(made, yes)
    return Result(made.data(), "\n".join(made.lines()))


@taking(choice)
def harvest(wanted: Choice, out: OutOfPreset = None, device: Device = "auto") -> Result:
    """Read the text, and take each hookpoint's mean and scale.

    The first step; its options are those of `xtalk run`.

    Example: `xtalk harvest --out runs/mine --model ./my-model --text stories.jsonl`
    """
    return _configured("harvest", wanted, out, device)


def train(out: Out, device: Device = "auto", track: Track = None) -> Result:
    """Train a crosscoder for each set of penalties, after the harvest if that is not done.

    Leaves crosscoders/NAME/cfg.json and sae_weights.safetensors.
    A killed training goes on from its checkpoint.

    Example: `xtalk train --out runs/mine`
    """
    return _perform("train", out, None, device, {}, track)


def interact(
    out: Out,
    site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="qk|ov|norm ...",
            help="Also pair interactions in attention (qk, ov) or the norms.  [default: none]",
        ),
    ] = None,
    device: Device = "auto",
) -> Result:
    """Measure the interactions of each crosscoder's features: shares, pairs, tightness.

    Leaves its results in interactions/. MLPs are always measured, attention and norms where asked for.

    Examples:
    - `xtalk interact --out runs/mine`

    - `xtalk interact --out runs/mine --site qk ov norm`
    """
    return step("interact", out, device, sites=site)


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
            metavar="mlp|qk|ov|norm ...",
            help="Where features interact; of several sites, each site's interactions are divided by all of "
            "its terms, and added.  [default: mlp]",
        ),
    ] = None,
    normaliser: Annotated[
        str | None,
        typer.Option(
            metavar="total|none|co_occurrence|relative",
            help="What a pair's interaction is divided by; **total**: the geometric mean of both "
            "features' totals.  [default: total]",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of everything random.  [default: the run's]")
    ] = None,
    device: Device = "auto",
) -> Result:
    """Cluster a crosscoder's features by interaction and judge the clusters.

    Leaves clusters.json and cluster_map.json. Options given once are kept in the folder.

    Examples:
    - `xtalk cluster --out runs/mine`

    - `xtalk cluster --out runs/mine --name sparse --method affinity-propagation`

    - `xtalk cluster --out runs/mine --site mlp qk ov`
    """
    settings = {
        "crosscoder": name,
        "sites": site or None,
        "method": method,
        "normaliser": normaliser,
        "seed": seed,
    }
    return step("cluster", out, device, **settings)


def evaluate(out: Out, device: Device = "auto") -> Result:
    """Evaluate fidelity on held-out text, with intervals; harvests and trains first what is not there.

    Leaves metrics.json and report_data.json, with the results of other steps that are there.

    Example: `xtalk evaluate --out runs/mine`
    """
    from xtalk.runs.folder import RunFolder
    from xtalk.runs.layout import METRICS

    step("evaluate", out, device)
    return Result(RunFolder.open(out).read_json(METRICS))


def report(out: Out) -> Result:
    """Draw the figures and write report.html, after `evaluate` if that is not done.

    Example: `xtalk report --out runs/mine`
    """
    return step("report", out, "cpu")


def step(name: str, out: Path, device: str, **settings: Any) -> Result:
    """Do a step on the folder that is there; settings that were not given are the folder's."""
    return _perform(name, out, None, device, settings)


def _configured(
    name: str,
    wanted: Choice,
    out: Path | None,
    device: str,
    track: list[str] | None = None,
    settings: dict[str, Any] | None = None,
) -> Result:
    path = _folder(wanted, out)
    return _perform(name, path, wanted.config(path), device, settings or {}, track)


def _folder(wanted: Choice, out: Path | None) -> Path:
    return out or Path("runs") / wanted.base()


def _approve(plan: "Plan", yes: bool) -> None:
    """Say the plan. Errors: XtalkError for more than an hour, without `yes`."""
    for line in plan.lines():
        logging.getLogger("xtalk").info(line)
    plan.check(yes)


def _perform(
    name: str,
    path: Path,
    config: "RunConfig | None",
    device: str,
    settings: dict[str, Any],
    track: list[str] | None = None,
) -> Result:
    from xtalk import ranks
    from xtalk.progress import progress_bars, quietly
    from xtalk.runs.run import Run

    given = {key: value for key, value in settings.items() if value is not None}
    with ranks.joined(), nullcontext() if ranks.rank() == 0 else quietly(), progress_bars() as progress:
        run = Run(path, config, device=device, progress=progress, trackers=track or ())
        getattr(run, name)(**given)
        if ranks.rank() > 0:
            raise typer.Exit(0)  # the first one tells
        return Result(_described(run))


def _described(run: "Run") -> dict[str, Any]:
    """A run as data: its folder, the report if there is one, and which steps are complete."""
    from xtalk.runs.layout import REPORT
    from xtalk.runs.pipeline import Pipeline

    pipeline, report = Pipeline(run.folder), run.folder.file(REPORT)
    return {
        "folder": str(run.folder.path),
        "report": str(report) if report.exists() else None,
        "complete": {name: pipeline.is_current(name) for name in pipeline.steps},
    }
