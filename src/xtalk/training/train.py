"""Training a crosscoder, from the first step to calibrated weights in the model's own units."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.activations import ActivationBatches, Scaling
from xtalk.codes import Codes
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder, fold_scaling
from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.crosscoder.pre_activations import largest_but
from xtalk.crosscoder.provenance import Provenance
from xtalk.errors import XtalkError
from xtalk.training.adam import Adam
from xtalk.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from xtalk.training.config import TrainingConfig, calibration_tokens
from xtalk.training.loss_metric import LossMetric
from xtalk.training.mlps import Models, penalised_mlps, spliced_mlps
from xtalk.training.objective import Objective, PenalisedMlp
from xtalk.training.spliced import SPLICES, Places, places_of

LOG_EVERY = 50  # steps
_START_NOISE = 1.0  # of a decoder direction at the start, for each part that it has of a token
_SPLICE_SAMPLE = 32  # sequences, on which ablating an MLP is measured

Log = Callable[[dict[str, float]], object]
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Trained:
    """A trained crosscoder, and the median rate at which it trained, over all sessions of the training."""

    crosscoder: Crosscoder
    tokens_per_second: float


def train_crosscoder(
    config: CrosscoderConfig,
    training: TrainingConfig,
    stream: ActivationBatches,
    model: Models,
    scaling: Scaling,
    *,
    metric: LossMetric | None = None,
    start: Crosscoder | None = None,
    model_name: str | None = None,
    checkpoint_folder: Path | None = None,
    log: Log = lambda record: None,
    progress: Progress = lambda done, total: None,
) -> Trained:
    """Train a crosscoder on a stream; the result is in the model's own units, its threshold calibrated.

    It carries its provenance, the model by `model_name`.
    scaling: of these hookpoints, on the device to train on. model: whose MLPs the penalties are about;
    several by name where hookpoints are called NAME/blocks.0.ln2; metric: in which the penalties count errors
    of their outputs, by default all alike. start: a crosscoder of this config, in the
    model's own units, to train on from; by default a new one. Takes `training.tokens_needed` tokens of
    the stream, the last of them for calibration. Given a checkpoint_folder, goes on from the checkpoint
    there, bit for bit, and leaves the last one. log is called every 50 steps with the parts of the loss, L0,
    dead latents and tokens per second; progress with the steps done and their total. Errors: XtalkError for a
    stream that is too short or has other hookpoints, another config in `start`, a loss that is not finite,
    and a checkpoint that is broken or another training's.
    """
    _check(config, training, stream, scaling)
    if start is not None and start.config != config:
        raise XtalkError(
            f"`start` has the config {start.config}; it must equal that of the crosscoder to train, {config}"
        )
    objective = _objective(config, training, stream, model, scaling, metric)
    state = _initial_state(config, training, stream, scaling, start)
    identity = _identity(config, training, scaling, objective, start)
    if checkpoint_folder and (position := load_checkpoint(checkpoint_folder, state, identity)):
        stream.load_state_dict(position)

    logged_step, logged_at = state.step, time.perf_counter()
    while state.step < training.steps:
        batch = next(stream)
        places = places_of(batch, stream.source.sequences) if training.splices(state.step) else None
        codes, parts = train_step(state, objective, training, scaling.apply(batch.activations), places)
        if state.step % LOG_EVERY == 0 or state.step == training.steps:
            now = time.perf_counter()
            rate = (state.step - logged_step) * training.batch_tokens / (now - logged_at)
            state.rates.append(rate)
            log(_record(state, codes, parts, training) | {"tokens_per_second": rate})
            logged_step, logged_at = state.step, now
        if checkpoint_folder and state.step % training.checkpoint_every == 0:
            save_checkpoint(checkpoint_folder, state, stream.state_dict(), identity)
        progress(state.step, training.steps)

    if state.crosscoder.nonlinearity.calibrated_after:
        calibrate_threshold(state.crosscoder, stream, scaling)
    trained = fold_scaling(state.crosscoder, scaling.factor_P)
    trained.provenance = Provenance(
        model_name=model_name,
        model_weights_hash=stream.source.identity.model,
        text_hash=stream.source.identity.text,
        scaling_factors=tuple(scaling.factor_P.tolist()),
        training_tokens=training.steps * training.batch_tokens,
        train_batch_size_tokens=training.batch_tokens,
        penalties=training.penalties,
        seed=training.seed,
    )
    return Trained(trained, median(state.rates))


def _objective(
    config: CrosscoderConfig,
    training: TrainingConfig,
    stream: ActivationBatches,
    model: Models,
    scaling: Scaling,
    metric: LossMetric | None,
) -> Objective:
    mlps: list[PenalisedMlp] = []
    if training.penalties:
        with stream.rewound():
            mlps = penalised_mlps(config.hook_names, model, scaling, _calibration_batches(stream), metric)
    if any(name in SPLICES for name in training.penalties):
        tokens_nS = torch.from_numpy(stream.source.sequences.tokens[:_SPLICE_SAMPLE].astype("int64"))
        sample = tokens_nS.to(scaling.factor_P.device).split(1)  # logits of large vocabularies are large
        mlps = spliced_mlps(
            mlps, config.hook_names, model, scaling, sample, training.penalties, stream.counted
        )
    weights = training.penalties, training.aux, training.sparsity
    bfloat16 = training.uses_bfloat16(scaling.factor_P.device)
    return Objective(mlps, *weights, bfloat16, _recon_weights(config, training, scaling))


def _recon_weights(
    config: CrosscoderConfig, training: TrainingConfig, scaling: Scaling
) -> Float[Tensor, "P"] | None:
    """What each hookpoint counts in recon. Errors: XtalkError for a weight of a site without hookpoints."""
    weights: dict[str, float] = {**training.recon_weights}
    if not weights:
        return None
    sites = [name.rpartition(".")[2] for name in config.hook_names]
    if missing := weights.keys() - set(sites):
        raise XtalkError(
            f"recon_weights names {', '.join(sorted(missing))}; the hookpoints are of "
            f"{', '.join(sorted(set(sites)))}; add such hookpoints, or leave the weight out"
        )
    return torch.tensor([weights.get(s, 1.0) for s in sites]).to(scaling.factor_P)


def _initial_state(
    config: CrosscoderConfig,
    training: TrainingConfig,
    stream: ActivationBatches,
    scaling: Scaling,
    start: Crosscoder | None,
) -> TrainingState:
    device = scaling.factor_P.device
    if start is None:
        crosscoder = _new_crosscoder(config, training, stream, scaling)
    else:
        crosscoder = fold_scaling(start, 1 / scaling.factor_P)
    crosscoder.lay_out_for_training()
    last_fired_L = torch.zeros(config.d_sae, dtype=torch.int64, device=device)
    return TrainingState(crosscoder, Adam(crosscoder.parameters()), last_fired_L)


def _new_crosscoder(
    config: CrosscoderConfig, training: TrainingConfig, stream: ActivationBatches, scaling: Scaling
) -> Crosscoder:
    crosscoder = Crosscoder(config).to(scaling.factor_P.device)
    with stream.rewound():
        direction_LPD = _deviations(config.d_sae, stream, scaling, training.seed)
    crosscoder.initialise(scaling.apply(scaling.mean_PD), direction_LPD)
    if crosscoder.nonlinearity.calibrated_before:
        with stream.rewound():
            calibrate_threshold(crosscoder, stream, scaling)
    return crosscoder


def _deviations(count: int, stream: ActivationBatches, scaling: Scaling, seed: int) -> Float[Tensor, "L P D"]:
    """How random tokens deviate from the mean: directions that the data has, so that few latents start dead.

    With as much noise, for text has tokens (such as its first) that are the same many times.
    """
    generator = torch.Generator().manual_seed(seed)
    B = stream.batch_tokens
    chosen_L = torch.randint(calibration_tokens(B) // B * B, (count,), generator=generator)
    direction_LPD = scaling.mean_PD.new_empty(count, *scaling.mean_PD.shape)
    for number, x_BPD in enumerate(_calibration_batches(stream)):
        of_batch_L = chosen_L // B == number
        direction_LPD[of_batch_L] = scaling.apply(x_BPD[chosen_L[of_batch_L] % B])
    direction_LPD -= scaling.apply(scaling.mean_PD)
    noise_LPD = torch.randn(direction_LPD.shape, generator=generator).to(direction_LPD)
    size_L11 = direction_LPD.square().mean((1, 2), keepdim=True).sqrt()
    return direction_LPD + _START_NOISE * size_L11 * noise_LPD


def train_step(
    state: TrainingState,
    objective: Objective,
    training: TrainingConfig,
    x_BPD: Float[Tensor, "B P D"],
    places: Places | None = None,
) -> tuple[Codes, dict[str, Float[Tensor, ""]]]:
    """One step of the optimiser; returns the batch's codes and the parts of its loss."""
    dead_L = _dead(state, training)
    factor = training.penalty_factor(state.step)
    loss, codes, parts = objective(state.crosscoder, x_BPD, dead_L, factor, places)
    state.optimiser.zero_grad()
    loss.backward()
    norm = state.optimiser.gradient_norm()
    _check_finite(state.step, parts | {"loss": loss, "gradient": norm})
    state.optimiser.step(training.learning_rate(state.step), training.clip, norm)
    state.step += 1
    state.last_fired_L[codes.latents[codes.values > 0]] = state.step * training.batch_tokens
    return codes, parts


def _dead(state: TrainingState, training: TrainingConfig) -> Int[Tensor, "dead"]:
    """The latents that did not fire for dead_after_tokens."""
    silent_L = state.step * training.batch_tokens - state.last_fired_L
    return (silent_L > training.dead_after_tokens).nonzero()[:, 0]


@torch.no_grad()
def calibrate_threshold(crosscoder: Crosscoder, stream: ActivationBatches, scaling: Scaling) -> None:
    """Set the threshold above which k latents per token are active, over the stream's next 16,384 tokens.

    What BatchTopK does within each batch of training, this does once for all tokens to come.
    """
    largest_N, active = torch.empty(0, device=crosscoder.threshold.device), 0
    for x_BPD in _calibration_batches(stream):
        active += crosscoder.config.k * len(x_BPD)
        pre_N = crosscoder.pre_activations(scaling.apply(x_BPD)).flatten()
        largest_N = torch.cat([largest_N, pre_N[pre_N > 0]])
        total = crosscoder.config.k * calibration_tokens(stream.batch_tokens) + 1
        largest_N = largest_N.topk(min(total, len(largest_N)), sorted=False).values
    crosscoder.threshold.fill_(largest_but(largest_N, active))


def _calibration_batches(stream: ActivationBatches) -> Iterator[Float[Tensor, "B P D"]]:
    """The stream's next activations, unscaled, as many as calibration takes."""
    for _ in range(calibration_tokens(stream.batch_tokens) // stream.batch_tokens):
        yield next(stream).activations


def _check(
    config: CrosscoderConfig, training: TrainingConfig, stream: ActivationBatches, scaling: Scaling
) -> None:
    given = stream.source.identity.hookpoints, stream.source.d_model
    if given != (config.hook_names, config.d_in):
        raise XtalkError(
            f"the activations are {given[1]} numbers at each of {', '.join(given[0])}; the crosscoder is for "
            f"{config.d_in} at each of {', '.join(config.hook_names)}; harvest or configure the same"
        )
    if scaling.mean_PD.shape != (len(config.hook_names), config.d_in):
        raise XtalkError(
            f"the scaling is of {tuple(scaling.mean_PD.shape)} hookpoints and numbers; expected "
            f"{(len(config.hook_names), config.d_in)}; measure it on the stream"
        )
    if stream.batch_tokens != training.batch_tokens:
        raise XtalkError(
            f"the stream's batches have {stream.batch_tokens} tokens, training's {training.batch_tokens}; "
            "make them the same"
        )
    left = stream.tokens_available - stream.tokens_seen
    if left < training.tokens_needed:
        raise XtalkError(
            f"the stream has {left} tokens left; {training.steps} steps of {training.batch_tokens} tokens "
            f"and calibration need {training.tokens_needed}; give more text, fewer steps or more epochs"
        )
    if nonlinearity(config.architecture).needs_sparsity_loss and not training.sparsity:
        raise XtalkError(
            f"nothing keeps a {config.architecture} crosscoder sparse; give sparsity a weight above 0"
        )


def _check_finite(step: int, parts: Mapping[str, Float[Tensor, ""]]) -> None:
    """Errors: XtalkError names the first part that is not finite."""
    if torch.stack([part.detach() for part in parts.values()]).isfinite().all():
        return
    name, value = next((name, part.item()) for name, part in parts.items() if not part.isfinite())
    raise XtalkError(
        f"training step {step}: {name} is {value}; expected a finite number; lower the learning rate or the "
        "penalties' weights, or go on from the last checkpoint in float32"
    )


def _identity(
    config: CrosscoderConfig,
    training: TrainingConfig,
    scaling: Scaling,
    objective: Objective,
    start: Crosscoder | None,
) -> dict[str, Any]:
    """All inputs but the stream that decide the trained weights; a checkpoint of others is refused."""
    own = config.model_dump(mode="json") | training.model_dump(mode="json", exclude={"checkpoint_every"})
    if start is not None:
        weights = b"".join(weight.cpu().numpy().tobytes() for weight in start.state_dict().values())
        own["start"] = hashlib.sha256(weights).hexdigest()
    return own | {"bfloat16": objective.bfloat16, "scaling": scaling.factor_P.tolist()}


def _record(
    state: TrainingState, codes: Codes, parts: Mapping[str, Float[Tensor, ""]], training: TrainingConfig
) -> dict[str, float]:
    return {
        "step": state.step,
        "tokens": state.step * training.batch_tokens,
        **{name: part.item() for name, part in parts.items()},
        "l0": float((codes.values.detach() > 0).sum(1).float().mean()),
        "dead": len(_dead(state, training)),
    }
