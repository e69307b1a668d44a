"""Interactions at one MLP by loops over tokens b, neurons k and slots i: slow, obvious, differentiable."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from xtalk.models.mlp import MlpWeights

Kept = Callable[[int, int], Iterable[int]]
"""The slots that contribute to a neuron k at a token b."""


class Case(NamedTuple):
    """Codes of B tokens, the latents' directions at one MLP's input, the bias there, and the MLP."""

    decoder_LD: Tensor
    bias_D: Tensor
    latents_BK: Tensor
    values_BK: Tensor
    mlp: MlpWeights

    @property
    def tokens(self) -> range:
        """The numbers of the tokens."""
        return range(len(self.values_BK))

    @property
    def slots(self) -> range:
        """The numbers of the slots."""
        return range(self.values_BK.shape[1])

    @property
    def neurons(self) -> range:
        """The numbers of the neurons."""
        return range(self.mlp.W_out.shape[0])

    @property
    def paths(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and bias of the value path, and of the gate path of a gated MLP."""
        value = (self.mlp.W_in, self.mlp.b_in)
        if self.mlp.W_gate is None or self.mlp.b_gate is None:
            return [value]
        return [value, (self.mlp.W_gate, self.mlp.b_gate)]


def contribution(case: Case, path: int, b: int, k: int, i: int) -> Tensor:
    """What slot i adds to the pre-activation of neuron k at token b: f_i <w_k, d_i>."""
    weight_D = case.paths[path][0][:, k]
    return case.values_BK[b, i] * torch.dot(weight_D, case.decoder_LD[case.latents_BK[b, i]])


def base(case: Case, path: int, k: int) -> Tensor:
    """The pre-activation of neuron k without any latent."""
    W_DN, b_N = case.paths[path]
    return b_N[k] + torch.dot(W_DN[:, k], case.bias_D)


def pre_activation(case: Case, path: int, b: int, k: int, kept: Iterable[int]) -> Tensor:
    """The pre-activation of neuron k when only the slots `kept` contribute."""
    h = base(case, path, k)
    for i in kept:
        h = h + contribution(case, path, b, k, i)
    return h


def neuron(case: Case, b: int, k: int, kept: Iterable[int]) -> Tensor:
    """The neuron's activation when only the slots `kept` contribute."""
    phi, value = case.mlp.activation, pre_activation(case, 0, b, k, kept)
    return phi(pre_activation(case, 1, b, k, kept)) * value if case.mlp.gated else phi(value)


def score_weights(case: Case, b: int, k: int) -> list[Tensor]:
    """How much a unit contribution on each path counts in the dominance score."""
    if not case.mlp.gated:
        return [torch.ones(()).double()]
    phi, lipschitz = case.mlp.activation, case.mlp.activation.lipschitz
    value, gate = (pre_activation(case, path, b, k, case.slots).detach() for path in (0, 1))
    return [phi(gate).abs(), lipschitz * value.abs()]


def score(case: Case, b: int, k: int, i: int) -> Tensor:
    """The dominance score of slot i."""
    total = torch.zeros(()).double()
    for path, weight in enumerate(score_weights(case, b, k)):
        total = total + weight * contribution(case, path, b, k, i).abs()
    return total


def ranking(case: Case, b: int, k: int) -> list[int]:
    """Slots by score, largest first; the lower slot first on ties."""
    return sorted(case.slots, key=lambda i: (-float(score(case, b, k, i).detach()), i))


def share(case: Case, b: int, k: int, m: int) -> Tensor:
    """The part of the scores that the m largest make up; 1 where nothing contributes."""
    scores = [score(case, b, k, i) for i in ranking(case, b, k)]
    total = torch.stack(scores).sum()
    return torch.stack(scores[:m]).sum() / total if total > 0 else torch.ones(()).double()


def interaction_charge(case: Case, b: int, k: int, j: int) -> Tensor:
    """What latent j adds to T at a neuron that it does not dominate."""
    norm = case.mlp.W_out[k].norm()
    if not case.mlp.gated:
        return norm * contribution(case, 0, b, k, j).abs()
    phi, lipschitz = case.mlp.activation, case.mlp.activation.lipschitz
    gate = pre_activation(case, 1, b, k, case.slots)
    dominant_value = pre_activation(case, 0, b, k, ranking(case, b, k)[:1])
    by_value = phi(gate).abs() * contribution(case, 0, b, k, j).abs()
    by_gate = lipschitz * dominant_value.abs() * contribution(case, 1, b, k, j).abs()
    return norm * (by_value + by_gate)


def interaction(case: Case, b: int) -> float:
    """The interaction T of a token."""
    total = 0.0
    for k in case.neurons:
        for j in ranking(case, b, k)[1:]:
            total += float(interaction_charge(case, b, k, j))
    return total


def pair_sums(case: Case) -> tuple[Tensor, Tensor, float]:
    """Sums over tokens of I(i, j); tokens with both active; all charges, dominant ones included."""
    L = len(case.decoder_LD)
    sums, together, total = torch.zeros(L, L).double(), torch.zeros(L, L).int(), 0.0
    for b in case.tokens:
        for k in case.neurons:
            dominant, *others = ranking(case, b, k)
            total += float(interaction_charge(case, b, k, dominant))
            for j in others:
                charge = float(interaction_charge(case, b, k, j))
                total += charge
                sums[case.latents_BK[b, dominant], case.latents_BK[b, j]] += charge
        for i in case.slots:
            for j in case.slots:
                if case.values_BK[b, i] != 0 and case.values_BK[b, j] != 0:
                    together[case.latents_BK[b, i], case.latents_BK[b, j]] += 1
    return sums, together, total


def output(case: Case, b: int, kept_of_neuron: Kept) -> Tensor:
    """The MLP's output with the slots kept_of_neuron(b, k) of each neuron."""
    out_D = case.mlp.b_out
    for k in case.neurons:
        out_D = out_D + neuron(case, b, k, kept_of_neuron(b, k)) * case.mlp.W_out[k]
    return out_D


def keep(case: Case, m: int) -> Kept:
    """The m slots of largest score."""
    return lambda b, k: ranking(case, b, k)[:m]


def keep_all(case: Case) -> Kept:
    """All slots."""
    return lambda b, k: case.slots


def mixed_difference(case: Case, b: int, i: int, j: int) -> Tensor:
    """D_ij of two slots through W_out."""
    rest = [s for s in case.slots if s not in (i, j)]
    out_D = torch.zeros_like(case.mlp.b_out)
    for k in case.neurons:
        both, no_i = neuron(case, b, k, [*rest, i, j]), neuron(case, b, k, [*rest, j])
        no_j, neither = neuron(case, b, k, [*rest, i]), neuron(case, b, k, rest)
        out_D = out_D + (both - no_i - no_j + neither) * case.mlp.W_out[k]
    return out_D


def sum_minus_max(case: Case, weight_N: Sequence[Tensor | float]) -> Tensor:
    """Mean over tokens and neurons of weight_k times all contributions but the dominant one."""
    total = torch.zeros(()).double()
    for b in case.tokens:
        for k in case.neurons:
            dominant = ranking(case, b, k)[0]
            for path in range(len(case.paths)):
                for j in case.slots:
                    if j != dominant:
                        total = total + weight_N[k] * contribution(case, path, b, k, j).abs()
    return total / (len(case.tokens) * len(case.neurons))


def relative(case: Case) -> Tensor:
    """1 - dominant share, mean over tokens and neurons."""
    shares = [share(case, b, k, 1) for b in case.tokens for k in case.neurons]
    return 1 - torch.stack(shares).mean()


def relative_error(
    case: Case, true_BD: Tensor | Sequence[Tensor], kept_of_neuron: Kept, variance: float
) -> Tensor:
    """Squared error over variance, times D, mean over tokens."""
    D = len(case.mlp.b_out)
    errors = [(true_BD[b] - output(case, b, kept_of_neuron)).square().sum() for b in case.tokens]
    return D * torch.stack(errors).mean() / variance


def penalties(case: Case, true_BD: Tensor, variance: float) -> dict[str, Tensor]:
    """Every penalty of `xtalk.interactions.penalties` by name."""
    norms = [case.mlp.W_out[k].norm() for k in case.neurons]
    rebuilt_BD = [output(case, b, keep_all(case)) for b in case.tokens]
    few = [relative_error(case, true_BD, keep(case, m), variance) for m in (1, 2, 4, 8, 99)]
    return {
        "sum_minus_max": sum_minus_max(case, [1.0 for _ in norms]),
        "out_norm": sum_minus_max(case, [norm * len(norms) / sum(norms) for norm in norms]),
        "relative": relative(case),
        "residual": relative_error(case, rebuilt_BD, keep(case, 1), variance),
        "keep_one": relative_error(case, true_BD, keep(case, 1), variance),
        "keep_2": relative_error(case, true_BD, keep(case, 2), variance),
        "keep_4": relative_error(case, true_BD, keep(case, 4), variance),
        "full_sum": relative_error(case, true_BD, keep_all(case), variance),
        "keep_few": torch.stack(few).mean(),
    }
