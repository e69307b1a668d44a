"""Proof-aware training for the finite-data theorem: its bound in the loss of network and crosscoder."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.proofs.t1.bound import margin_loss, table_margins
from xtalk.proofs.t1.network import FiniteNetwork

HOOK_NAMES = ("blocks.0.ln2", "blocks.0.mlp_out")
"""Where the crosscoder reads: the MLP's input (the embedding itself: there is no norm) and its output."""

Augment = Callable[[Tensor, torch.Generator], Tensor]
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class FiniteTraining:
    """Adam; lr is warmed up over 50 steps and decayed to 0 over the last 40 % of the steps.

    bound: what the network's own cross-entropy loses of its weight to the loss on certified margins; the
    latter's weight grows from 0 to 1 over 10 % to 40 % of the steps. direct: weight of the variance of the
    direct path's logits: what it takes away, the MLP has to supply. reconstruction: weight of the
    crosscoder's squared error over the activations' variance. decay: weight of the squared norm of the
    network's matrices. gain: see `margin_loss`.
    """

    steps: int = 1500
    batch: int = 96
    lr: float = 3e-3
    bound: float = 0.7
    reconstruction: float = 1.0
    decay: float = 1e-4
    direct: float = 0.03
    gain: float = 1.0
    seed: int = 0

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        return self.lr * min(1.0, (step + 1) / 50, (self.steps - step) / (0.4 * self.steps))

    def bound_share(self, step: int) -> float:
        """The share of the bound in the loss of a step."""
        return self.bound * min(1.0, max(0.0, (step / self.steps - 0.1) / 0.3))


def activations(network: FiniteNetwork, z_BI: Float[Tensor, "B I"]) -> Float[Tensor, "B 2 D"]:
    """Activations at `HOOK_NAMES`."""
    x_BD = network.embedded(z_BI)
    return torch.stack([x_BD, network.mlp(x_BD)], 1)


def axes_crosscoder(d_model: int, k: int, generator: torch.Generator) -> Crosscoder:
    """An untrained crosscoder (TopK, K = k) with both directions of D orthogonal axes of the MLP's input."""
    axes_DD = torch.linalg.qr(torch.randn(d_model, d_model, generator=generator))[0]
    config = CrosscoderConfig(
        d_in=d_model, d_sae=2 * d_model, k=k, hook_names=HOOK_NAMES, architecture="topk"
    )
    crosscoder = Crosscoder(config)
    with torch.no_grad():
        crosscoder.W_dec[:, 0] = torch.cat([axes_DD, -axes_DD])
        crosscoder.W_enc[0] = crosscoder.W_dec[:, 0].T
    return crosscoder


@torch.no_grad()
def align_neurons(network: FiniteNetwork, crosscoder: Crosscoder, generator: torch.Generator) -> None:
    """Let every neuron of an untrained network read one feature, and little of others.

    Features that share no neuron do not interact, so training starts where the bound is tight and neurons are
    not linear; from a random start it finds networks whose bound is tight because they are linear.
    """
    D, N = network.sizes.d_model, network.sizes.neurons
    scale_N1 = 1 + 2 * torch.rand(N, 1, generator=generator)
    latent_N = torch.arange(N) % D + D * torch.randint(0, 2, (N,), generator=generator)
    read_ND = scale_N1 * crosscoder.W_dec[latent_N, 0]
    network.w_in.copy_(read_ND.T + 0.02 * torch.randn(D, N, generator=generator))
    network.b_in.copy_(0.7 * torch.randn(N, generator=generator))


def train_finite(
    network: FiniteNetwork,
    crosscoder: Crosscoder,
    inputs_RI: Float[Tensor, "R I"],
    labels_R: Int[Tensor, "R"],
    training: FiniteTraining,
    augment: Augment,
    *,
    frozen: bool = False,
    progress: Progress = lambda done, total: None,
) -> None:
    """Train network and crosscoder in place; `frozen` leaves the network as it is (post hoc).

    augment: called on each batch of inputs, with the training's generator.
    """
    generator = torch.Generator().manual_seed(training.seed)
    network.requires_grad_(not frozen)
    learned = [*crosscoder.parameters(), *([] if frozen else network.parameters())]
    optimiser = torch.optim.Adam(
        [parameter for parameter in learned if parameter.requires_grad], lr=training.lr
    )
    for step in range(training.steps):
        optimiser.param_groups[0]["lr"] = training.learning_rate(step)
        rows = torch.randint(len(inputs_RI), (training.batch,), generator=generator)
        loss = _loss(network, crosscoder, augment(inputs_RI[rows], generator), labels_R[rows], training, step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 5.0)
        optimiser.step()
        progress(step + 1, training.steps)


def _loss(
    network: FiniteNetwork,
    crosscoder: Crosscoder,
    z_BI: Float[Tensor, "B I"],
    labels_B: Int[Tensor, "B"],
    training: FiniteTraining,
    step: int,
) -> Float[Tensor, ""]:
    x_BPD = activations(network, z_BI)
    x_BPD = torch.stack([x_BPD[:, 0], x_BPD[:, 1].detach()], 1)  # else it learns to be linear in the features
    codes = crosscoder.encode_sparse(x_BPD)
    error_BPD = x_BPD - crosscoder.decode(codes)
    variance_P = (x_BPD - x_BPD.mean(0)).square().sum(2).mean(0).detach()
    reconstruction = (error_BPD.square().sum(2).mean(0) / variance_P).sum()
    direct = (x_BPD[:, 0] @ network.unembed).var(0).mean()
    matrices = (network.embed, network.w_in, network.w_out, network.unembed)
    decay = torch.stack([matrix.square().sum() for matrix in matrices]).sum()
    share = training.bound_share(step)
    own = F.cross_entropy(network(z_BI), labels_B)
    loss = (1 - share) * own + training.decay * decay + training.direct * direct
    loss = loss + training.reconstruction * (1 - 0.9 * share) * reconstruction
    if share:
        features_LD, base_D = crosscoder.W_dec[:, 0], crosscoder.b_dec[0]
        margins_BC = table_margins(network, base_D, features_LD, codes, x_BPD[:, 0], labels_B)
        loss = loss + share / training.bound * margin_loss(margins_BC, labels_B, training.gain)
    return loss
