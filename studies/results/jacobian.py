"""Jacobian SAEs: two dictionaries, at an MLP's input and output, with few edges between their latents.

Farnik, Lawson, Houghton and Aitchison 2025, "Jacobian Sparse Autoencoders: Sparsify Computations, Not Just
Activations" (arXiv 2502.18147). Two TopK SAEs learn an MLP's input n and its output y at once. The loss is
the sum of both reconstructions' and an L1 norm of the Jacobian of the output's latents by the input's, at the
K x K latents that are active. There TopK is the identity, so that

    J_ji = d g_j / d f_i = sum over neurons k of <d_i, W_in[:, k]> phi'(h_k) <W_out[k], e_j>

for input latent i with direction d_i, output latent j with encoder column e_j, and pre-activations h of the
true input, where the released code has them by default. Of a gated MLP the neuron's slope has two parts, by
value and by gate. The penalty is the mean over tokens of sum |J_ji| / K^2. Directions count as of unit norm,
in spaces where input and output have the mean norm sqrt(D): otherwise smaller codes of larger directions
would lower the penalty. The released code's rule for the weight, K^2 / (2 D) beside squared errors that are
means over D, is K^2 / 2 here, where errors are sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk.activations import ActivationBatches, Harvest, Scaling, measure_scaling
from xtalk.codes import Codes
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder, fold_scaling
from xtalk.data import Counted
from xtalk.models.mlp import MlpWeights
from xtalk.training.checkpoint import TrainingState
from xtalk.training.config import TrainingConfig
from xtalk.training.objective import Objective
from xtalk.training.preparation import prepare
from xtalk.training.train import dead_latents, training_state

OUTPUT = "mlp_out"


class MlpOutputs:
    """What a block's MLP puts out, as a source of activations: made of a harvest of its input."""

    def __init__(self, inputs: Harvest, mlp: MlpWeights) -> None:
        [name] = inputs.identity.hookpoints
        self.identity = replace(inputs.identity, hookpoints=(f"{name.rpartition('.')[0]}.{OUTPUT}",))
        self.sequences, self.d_model = inputs.sequences, inputs.d_model
        self._inputs, self._mlp = inputs, mlp

    def read(self, rows: Int[np.ndarray, "n"]) -> Iterator[Float[Tensor, "m S P D"]]:
        """Outputs of the sequences `rows`, in that order, in parts."""
        for n_mSPD in self._inputs.read(rows):
            yield self._mlp(n_mSPD.float())


def slopes(mlp: MlpWeights, n_BD: Float[Tensor, "B D"]) -> list[tuple[Tensor, Float[Tensor, "B N"]]]:
    """By path, its weights (D, N) and how much each neuron's activation changes with its pre-activation."""
    value_BN = n_BD @ mlp.W_in + mlp.b_in
    if mlp.W_gate is None or mlp.b_gate is None:
        return [(mlp.W_in, _derivative(mlp, value_BN))]
    gate_BN = n_BD @ mlp.W_gate + mlp.b_gate
    return [(mlp.W_in, mlp.activation(gate_BN)), (mlp.W_gate, _derivative(mlp, gate_BN) * value_BN)]


def _derivative(mlp: MlpWeights, h_BN: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    with torch.enable_grad():
        h_BN = h_BN.detach().requires_grad_()
        return torch.autograd.grad(mlp.activation(h_BN).sum(), h_BN)[0]


def jacobian(
    mlp: MlpWeights,
    by_path: Sequence[tuple[Tensor, Float[Tensor, "B N"]]],
    direction_LD: Float[Tensor, "L D"],
    encoder_DM: Float[Tensor, "D M"],
    inputs: Codes,
    outputs: Codes,
) -> Float[Tensor, "B K J"]:
    """d g_j / d f_i of the active latents i of the inputs (K) and j of the outputs (J); 0 at padding.

    by_path: `slopes`. direction_LD, encoder_DM: in the model's own units.
    """
    out_MN = (mlp.W_out @ encoder_DM).T
    out_BJN = F.embedding(outputs.latents, out_MN) * (outputs.values != 0)[..., None]
    total = torch.zeros(())
    for W_DN, slope_BN in by_path:
        in_BKN = F.embedding(inputs.latents, direction_LD @ W_DN) * (inputs.values != 0)[..., None]
        total = total + (in_BKN * slope_BN[:, None].to(in_BKN)) @ out_BJN.transpose(1, 2)
    return total


def unit_jacobian(
    mlp: MlpWeights,
    n_BD: Float[Tensor, "B D"],
    pair: Sequence[Crosscoder],
    codes: Sequence[Codes],
    scale: Sequence[float],
) -> Float[Tensor, "B K J"]:
    """The active block of the Jacobian for directions of unit norm; n_BD in the model's own units.

    pair, codes, scale: of the input and of the output; the crosscoders in scaled space, of one hookpoint, and
    the factors to that.
    """
    of_input, of_output = pair
    direction_LD, encoder_DM = of_input.W_dec[:, 0], of_output.W_enc[0]
    norm_BK = F.embedding(codes[0].latents, direction_LD.norm(dim=1, keepdim=True))
    norm_BJ = F.embedding(codes[1].latents, of_output.W_dec[:, 0].norm(dim=1, keepdim=True))
    by_path = slopes(mlp, n_BD)
    J_BKJ = jacobian(mlp, by_path, direction_LD / scale[0], encoder_DM * scale[1], *codes)
    return J_BKJ.float() * norm_BJ.transpose(1, 2) / norm_BK


def jacobian_penalty(
    mlp: MlpWeights,
    n_BD: Float[Tensor, "B D"],
    pair: Sequence[Crosscoder],
    codes: Sequence[Codes],
    scale: Sequence[float],
) -> Float[Tensor, ""]:
    """The mean over tokens of sum |J_ji| / K^2; arguments as for `unit_jacobian`."""
    unit_BKJ = unit_jacobian(mlp, n_BD, pair, codes, scale)
    return unit_BKJ.abs().sum((1, 2)).mean() / (pair[0].config.k * pair[1].config.k)


def train_pair(
    inputs: Harvest,
    mlp: MlpWeights,
    training: TrainingConfig,
    *,
    d_sae: int,
    k: int,
    weight: float,
    counted: Counted,
) -> tuple[Crosscoder, Crosscoder]:
    """Jacobian SAEs of an MLP's input and output, in the model's own units; weight: of the penalty.

    Trained as any crosscoder, on the same tokens for both.
    """
    outputs = MlpOutputs(inputs, mlp)
    per_epoch = int(counted.mask(inputs.sequences.tokens).sum())
    epochs = max(1, -(-training.tokens_needed // per_epoch))
    streams = [
        ActivationBatches(source, training.batch_tokens, training.seed, epochs=epochs, counted=counted)
        for source in (inputs, outputs)
    ]
    scalings = [measure_scaling(stream, 16_384) for stream in streams]
    states = [
        _start(stream, scaling, training, d_sae, k) for stream, scaling in zip(streams, scalings, strict=True)
    ]
    bfloat16 = training.uses_bfloat16(scalings[0].factor_P.device)
    objective = Objective((), {}, training.aux, training.sparsity, bfloat16)
    scale = [float(scaling.factor_P) for scaling in scalings]
    pair = [state.crosscoder for state in states]
    for step in range(training.steps):
        n_BD = next(streams[0]).activations[:, 0].float()
        loss, codes = torch.zeros(()), list[Codes]()
        for state, scaling, y_BD in zip(states, scalings, (n_BD, mlp(n_BD)), strict=True):
            state.optimiser.zero_grad()
            x_BPD = scaling.apply(y_BD[:, None])
            own, found, _ = objective(state.crosscoder, x_BPD, dead_latents(state, training), 1.0)
            loss, codes = loss + own, [*codes, found]
        with torch.autocast(n_BD.device.type, torch.bfloat16, enabled=bfloat16):
            penalty = jacobian_penalty(mlp, n_BD, pair, codes, scale)
        (loss + weight * training.penalty_factor(step) * penalty).backward()
        for state, found in zip(states, codes, strict=True):
            state.optimiser.step(training.learning_rate(step), training.clip, state.optimiser.gradient_norm())
            state.step += 1
            state.last_fired_L[found.latents[found.values > 0]] = state.step * training.batch_tokens
    made = [
        fold_scaling(state.crosscoder, scaling.factor_P)
        for state, scaling in zip(states, scalings, strict=True)
    ]
    return made[0], made[1]


def _start(
    stream: ActivationBatches, scaling: Scaling, training: TrainingConfig, d_sae: int, k: int
) -> TrainingState:
    hook_names = stream.source.identity.hookpoints
    config = CrosscoderConfig(
        d_in=stream.source.d_model, d_sae=d_sae, k=k, hook_names=hook_names, architecture="topk"
    )
    crosscoder = Crosscoder(config)
    prepared = prepare(config, training, stream, {}, scaling)
    assert prepared.direction_LPD is not None
    crosscoder.initialise(scaling.apply(scaling.mean_PD), prepared.direction_LPD)
    return training_state(crosscoder, training)
