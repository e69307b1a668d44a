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

from xtalk import ranks
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
from xtalk.training.mlps import Models
from xtalk.training.objective import Objective
from xtalk.training.preparation import Preparation, calibration_batches, prepare
from xtalk.training.sampling import draw
from xtalk.training.shares import ALL_TOKENS, Share, all_latents, of_all_ranks, own_latents
from xtalk.training.spliced import Places, places_of

LOG_EVERY = 50  # steps

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
    prepared: Preparation | None = None,
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
    model's own units, to train on from; by default a new one. prepared: what `prepare` gave for this stream
    and config, where several crosscoders share it. Takes `training.tokens_needed` tokens of the stream, the
    last of them for calibration. Given a checkpoint_folder, goes on from the checkpoint there, bit for bit,
    and leaves the last one. log is called every 50 steps with the parts of the loss, L0,
    dead latents and tokens per second; progress with the steps done and their total. Errors: XtalkError for a
    stream that is too short or has other hookpoints, another config in `start`, a loss that is not finite,
    and a checkpoint that is broken or another training's.
    """
    _check(config, training, stream, scaling, start)
    if prepared is None:
        prepared = prepare(config, training, stream, model, scaling, metric=metric, fresh=start is None)
    objective = _objective(config, training, scaling, prepared)
    state = _initial_state(config, training, stream, scaling, prepared, start)
    identity = _identity(config, training, scaling, objective, start)
    if checkpoint_folder and (position := load_checkpoint(checkpoint_folder, state, identity)):
        stream.load_state_dict(position)

    for _ in _steps(state, objective, training, stream, scaling, log):
        if checkpoint_folder and state.step % training.checkpoint_every == 0:
            save_checkpoint(checkpoint_folder, state, stream.state_dict(), identity)
        progress(state.step, training.steps)

    if state.crosscoder.nonlinearity.calibrated_after:
        calibrate_threshold(state.crosscoder, stream, scaling)
    trained = fold_scaling(all_latents(state.crosscoder), scaling.factor_P)
    trained.provenance = _provenance(training, stream, scaling, model_name)
    return Trained(trained, median(state.rates))


def _steps(
    state: TrainingState,
    objective: Objective,
    training: TrainingConfig,
    stream: ActivationBatches,
    scaling: Scaling,
    log: Log,
) -> Iterator[None]:
    """Take the steps that are left, one whenever it is asked for; log hears of every 50th and of the last."""
    logged_step, logged_at = state.step, time.perf_counter()
    while state.step < training.steps:
        batch = next(stream)
        places = places_of(batch, stream.source.sequences) if training.splices(state.step) else None
        x_BPD, share = of_all_ranks(scaling.apply(batch.activations))
        codes, parts = training_step(state, objective, training, x_BPD, places, share)
        if state.step % LOG_EVERY == 0 or state.step == training.steps:
            record = _record(state, codes, parts, training)
            now = time.perf_counter()
            rate = (state.step - logged_step) * training.batch_tokens / (now - logged_at)
            state.rates.append(rate)
            log(record | {"tokens_per_second": rate})
            logged_step, logged_at = state.step, now
        yield


def _provenance(
    training: TrainingConfig, stream: ActivationBatches, scaling: Scaling, model_name: str | None
) -> Provenance:
    return Provenance(
        model_name=model_name,
        model_weights_hash=stream.source.identity.model,
        text_hash=stream.source.identity.text,
        scaling_factors=tuple(scaling.factor_P.tolist()),
        training_tokens=training.steps * training.batch_tokens,
        train_batch_size_tokens=training.batch_tokens,
        penalties=training.penalties,
        seed=training.seed,
    )


def _objective(
    config: CrosscoderConfig, training: TrainingConfig, scaling: Scaling, prepared: Preparation
) -> Objective:
    mlps = prepared.mlps if training.penalties else ()
    weights = training.penalties, training.aux, training.sparsity
    bfloat16 = training.uses_bfloat16(scaling.factor_P.device)
    recon_weight_P = _recon_weights(config, training, scaling)
    return Objective(mlps, *weights, bfloat16, recon_weight_P, prepared.together)


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
    prepared: Preparation,
    start: Crosscoder | None,
) -> TrainingState:
    if start is None:
        crosscoder = _new_crosscoder(config, stream, scaling, prepared)
    else:
        crosscoder = fold_scaling(start, 1 / scaling.factor_P)
    return training_state(own_latents(crosscoder), training)


def training_state(crosscoder: Crosscoder, training: TrainingConfig) -> TrainingState:
    """A crosscoder before its first step, with its optimiser."""
    crosscoder.lay_out_for_training()
    last_fired_L = torch.zeros(crosscoder.config.d_sae, dtype=torch.int64, device=crosscoder.threshold.device)
    return TrainingState(crosscoder, Adam(crosscoder.parameters()), last_fired_L)


def _new_crosscoder(
    config: CrosscoderConfig, stream: ActivationBatches, scaling: Scaling, prepared: Preparation
) -> Crosscoder:
    crosscoder = Crosscoder(config).to(scaling.factor_P.device)
    assert prepared.direction_LPD is not None
    crosscoder.initialise(scaling.apply(scaling.mean_PD), prepared.direction_LPD)
    if crosscoder.nonlinearity.calibrated_before:
        with stream.rewound():
            calibrate_threshold(crosscoder, stream, scaling)
    return crosscoder


def training_step(
    state: TrainingState,
    objective: Objective,
    training: TrainingConfig,
    x_BPD: Float[Tensor, "B P D"],
    places: Places | None = None,
    share: Share = ALL_TOKENS,
) -> tuple[Codes, dict[str, Float[Tensor, ""]]]:
    """One step of the optimiser; returns the batch's codes and the parts of its loss, as `Objective` does."""
    state.optimiser.zero_grad()
    factor, dead_L = training.penalty_factor(state.step), dead_latents(state, training)
    now = draw(len(objective.mlps), training.sample_blocks, training.seed, state.step)
    loss, codes, parts = objective(state.crosscoder, x_BPD, dead_L, factor, places, now, share)
    loss.backward()
    norm = _gradient_norm(state)

    _check_finite(state.step, parts | {"loss": loss, "gradient": norm})
    state.optimiser.step(training.learning_rate(state.step), training.clip, norm)
    state.step += 1
    state.last_fired_L[codes.latents[codes.values > 0]] = state.step * training.batch_tokens
    return codes, parts


def _gradient_norm(state: TrainingState) -> Float[Tensor, ""]:
    """Of all ranks' gradients together. That of b_dec, which all ranks have, becomes the sum of theirs."""
    if ranks.world() == 1:
        return state.optimiser.gradient_norm()
    bias_PD = state.crosscoder.b_dec.grad
    assert bias_PD is not None
    ranks.summed(bias_PD)
    own = [p.grad for p in state.crosscoder.parameters() if p.grad is not None and p.grad is not bias_PD]
    square = torch.stack([grad.square().sum() for grad in own]).sum()
    return (ranks.summed(square) + bias_PD.square().sum()).sqrt()


def dead_latents(state: TrainingState, training: TrainingConfig) -> Int[Tensor, "dead"]:
    """The latents that did not fire for dead_after_tokens."""
    silent_L = state.step * training.batch_tokens - state.last_fired_L
    return (silent_L > training.dead_after_tokens).nonzero()[:, 0]


@torch.no_grad()
def calibrate_threshold(crosscoder: Crosscoder, stream: ActivationBatches, scaling: Scaling) -> None:
    """Set the threshold above which k latents per token are active, over the stream's next 16,384 tokens.

    What BatchTopK does within each batch of training, this does once for all tokens to come.
    """
    largest_N, active = torch.empty(0, device=crosscoder.threshold.device), 0
    for own_bPD in calibration_batches(stream):
        x_BPD, _ = of_all_ranks(own_bPD)
        active += crosscoder.config.k * len(x_BPD)
        pre_N = crosscoder.pre_activations(scaling.apply(x_BPD)).flatten()
        largest_N = torch.cat([largest_N, pre_N[pre_N > 0]])
        total = crosscoder.config.k * calibration_tokens(stream.batch_tokens) + 1
        largest_N = largest_N.topk(min(total, len(largest_N)), sorted=False).values
    crosscoder.threshold.fill_(largest_but(ranks.gathered(largest_N), active))


def _check(
    config: CrosscoderConfig,
    training: TrainingConfig,
    stream: ActivationBatches,
    scaling: Scaling,
    start: Crosscoder | None,
) -> None:
    if start is not None and start.config != config:
        raise XtalkError(
            f"`start` has the config {start.config}; it must equal that of the crosscoder to train, {config}"
        )
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
    if nonlinearity(config.architecture).trains_threshold and ranks.world() > 1:
        raise XtalkError(
            f"a {config.architecture} crosscoder trains on one process, for its sparsity loss squares a sum "
            "over latents; use batchtopk, or start one process"
        )
    if config.d_sae < ranks.world():
        raise XtalkError(f"{ranks.world()} processes share {config.d_sae} latents; start fewer processes")
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
    """The parts of the loss and L0, to which every rank adds its own."""
    values = {name: part.item() for name, part in parts.items()}
    active, dead = int((codes.values.detach() > 0).sum()), len(dead_latents(state, training))
    sums: dict[str, float] = {}
    for own in ranks.each(values | {"l0": active / training.batch_tokens, "dead": dead}):
        for name, value in own.items():
            sums[name] = sums.get(name, 0) + value
    return {"step": state.step, "tokens": state.step * training.batch_tokens, **sums}
