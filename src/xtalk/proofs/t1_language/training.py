"""Proof-aware training of a language model's last MLP: each neuron reads one feature, exactly."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from xtalk.models.activation_functions import ActivationFunction
from xtalk.models.mlp import MlpWeights
from xtalk.proofs.t1_language.tail import LanguageTail

_ROUNDS = 50  # of clustering

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class LanguageTraining:
    """Adam; lr is warmed up over 50 steps and decayed to 0 over the last half of the steps."""

    steps: int = 1500
    batch: int = 1024
    lr: float = 3e-3
    seed: int = 0

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        return self.lr * min(1.0, (step + 1) / 50, (self.steps - step) / (0.5 * self.steps))


class FeatureMlp(nn.Module):
    """An MLP in which neuron k reads `gains[k]` times feature `features[k]`, and nothing else.

    `directions (F, D)`: what each feature reads of the MLP's input; `features (N)`, `gains (N)`, `b_in (N)`,
    `w_out (N, D)`, `b_out (D)`.
    """

    features: Int[Tensor, "N"]

    def __init__(
        self,
        mlp: MlpWeights,
        directions_FD: Float[Tensor, "F D"],
        features_N: Int[Tensor, "N"],
        gains_N: Float[Tensor, "N"],
    ) -> None:
        super().__init__()
        self.activation: ActivationFunction = mlp.activation
        self.register_buffer("features", features_N)
        self.directions = nn.Parameter(directions_FD.clone())
        self.gains = nn.Parameter(gains_N.clone())
        self.b_in = nn.Parameter(mlp.b_in.clone())
        self.w_out = nn.Parameter(mlp.W_out.clone())
        self.b_out = nn.Parameter(mlp.b_out.clone())

    def forward(self, n_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The MLP's output."""
        readings_BF = n_BD @ self.directions.T
        h_BN = readings_BF[:, self.features] * self.gains + self.b_in
        return self.activation(h_BN) @ self.w_out + self.b_out

    def weights(self) -> MlpWeights:
        """The same MLP as an ordinary one, in float32, up to the rounding of gain times direction."""
        with torch.no_grad():
            read_ND = self.directions.double()[self.features] * self.gains.double()[:, None]
            return MlpWeights(
                read_ND.T.float().contiguous(),
                self.b_in.detach().float(),
                self.w_out.detach().float(),
                self.b_out.detach().float(),
                self.activation,
            )


@torch.no_grad()
def one_feature_each(
    mlp: MlpWeights, n_BD: Float[Tensor, "B D"], features: int, generator: torch.Generator
) -> FeatureMlp:
    """The MLP with each neuron's reading replaced by its projection on one of some `features` directions.

    Directions come from clustering the neurons by what they read of the inputs `n_BD` (whitened; a direction
    and its opposite are one): the principal axis of each cluster. With as many features as neurons each
    neuron keeps its own.
    """
    if features >= mlp.W_in.shape[1]:
        neurons = mlp.W_in.shape[1]
        return FeatureMlp(mlp, mlp.W_in.T, torch.arange(neurons), torch.ones(neurons))
    root_DD = torch.linalg.cholesky(torch.cov(n_BD.T) + 1e-6 * torch.eye(n_BD.shape[1]))
    read_ND = mlp.W_in.T @ root_DD
    unit_ND = F.normalize(read_ND, dim=1)
    axes_FD = unit_ND[torch.randperm(len(unit_ND), generator=generator)[:features]]
    for _ in range(_ROUNDS):
        near_N = (unit_ND @ axes_FD.T).abs().argmax(1)
        for i in near_N.unique().tolist():
            axes_FD[i] = torch.linalg.svd(read_ND[near_N == i], full_matrices=False)[2][0]
    near_N = (unit_ND @ axes_FD.T).abs().argmax(1)
    used, features_N = near_N.unique(return_inverse=True)
    gains_N = (read_ND * axes_FD[near_N]).sum(1)
    directions_FD = torch.linalg.solve(root_DD, axes_FD[used], left=False)
    return FeatureMlp(mlp, directions_FD, features_N, gains_N)


def train_mlp(
    student: nn.Module,
    tail: LanguageTail,
    x_RD: Float[Tensor, "R D"],
    training: LanguageTraining,
    progress: Progress = lambda done, total: None,
) -> None:
    """Train what stands in the place of the tail's MLP to predict as the tail itself does, in place.

    The loss is the cross-entropy of its predictions under the tail's own. `student` maps n to the MLP's
    output.
    """
    generator = torch.Generator().manual_seed(training.seed)
    optimiser = torch.optim.Adam(student.parameters(), lr=training.lr, betas=(0.9, 0.99))
    for step in range(training.steps):
        optimiser.param_groups[0]["lr"] = training.learning_rate(step)
        x_BD = x_RD[torch.randint(len(x_RD), (training.batch,), generator=generator)]
        n_BD = tail.norm_in(x_BD)
        with torch.no_grad():
            wanted_BV = tail.logits(x_BD, tail.mlp(n_BD)).softmax(1)
        loss = F.cross_entropy(tail.logits(x_BD, student(n_BD)), wanted_BV)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress(step + 1, training.steps)
