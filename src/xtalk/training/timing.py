"""How long a step of training takes on this machine, apart from activations and from running a model on."""

import time
from collections.abc import Mapping

import torch

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.models.mlp import MlpWeights
from xtalk.training.config import TrainingConfig
from xtalk.training.objective import Objective, PenalisedMlp
from xtalk.training.train import training_state, training_step

_PARAMETERS = 20_000_000  # of the crosscoder that is timed, at most: a plan should not need a run's memory
_STEPS = 3


def seconds_per_step(
    config: CrosscoderConfig,
    training: TrainingConfig,
    device: torch.device,
    penalties: Mapping[str, float] | None = None,
    mlp: MlpWeights | None = None,
) -> float:
    """Seconds of a step of the crosscoder, on random activations.

    penalties: with these, of those that stay at their MLP, at one `mlp`. A large crosscoder is timed by a
    part of its latents. Counted are the second and third of three steps.
    """
    per_latent = 2 * len(config.hook_names) * config.d_in
    latents = max(config.k, min(config.d_sae, _PARAMETERS // per_latent))
    crosscoder = Crosscoder(config.model_copy(update={"d_sae": latents})).to(device)
    generator = torch.Generator().manual_seed(0)
    x_BPD = torch.randn(training.batch_tokens, len(config.hook_names), config.d_in, generator=generator)
    direction_LPD = torch.randn(crosscoder.W_dec.shape, generator=generator).to(device)
    crosscoder.initialise(torch.zeros(x_BPD.shape[1:], device=device), direction_LPD)
    state = training_state(crosscoder, training)
    weights = training.aux, training.sparsity, training.uses_bfloat16(device)
    mlps = () if mlp is None else (PenalisedMlp(mlp.to(device), 0, 1.0, 1.0),)
    objective = Objective(mlps, penalties or {}, *weights)
    started = 0.0
    for step in range(_STEPS):
        training_step(state, objective, training, x_BPD.to(device))
        if step == 0:
            started = time.perf_counter()
    return (time.perf_counter() - started) / (_STEPS - 1) * config.d_sae / latents
