"""Differentiable interaction penalties: loss terms that make crosscoders computationally sparse.

DESIGN section 4. Each term takes the contributions at one MLP, the MLP's true output and that output's
variance, and returns a scalar to be averaged over blocks. `PENALTIES` names them; a run weighs any
combination.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import dominant_share


@dataclass(frozen=True)
class MlpTarget:
    """What an MLP really put out, and that output's variance over text: mean ||output - its mean||^2."""

    output_BD: Float[Tensor, "B D"]
    variance: float


Penalty = Callable[[MlpContributions, MlpTarget], Float[Tensor, ""]]


def _weighted_sum_minus_max(mlp: MlpContributions, weight_N: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """Mean over tokens and neurons of weight_k (sum_i |p_ki| - max_i |p_ki|), summed over paths.

    sum_k weight_k sum_i |p_ki| = sum_i |f_i| r_i with r_i = sum_k weight_k |M_ik|: no (B, N) tensor here.
    """
    codes = mlp.codes
    total = torch.zeros((), device=weight_N.device)
    for path, dominant_BN in zip(mlp.paths, mlp.dominant, strict=True):
        r_L = path.M_LN.abs() @ weight_N
        total = total + (codes.values.abs() * r_L[codes.latents]).sum() - (dominant_BN.abs() * weight_N).sum()
    return total / (len(codes.values) * len(weight_N))


def sum_minus_max(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
    """The paper's penalty: mean over tokens and neurons of sum_i |p_ki| - max_i |p_ki| (paper section 4)."""
    return _weighted_sum_minus_max(mlp, torch.ones_like(mlp.output_norm_N))


def out_norm(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
    """The paper's penalty, neurons weighted by ||W_out[k]|| over its mean: for ordinary MLPs, T scaled."""
    return _weighted_sum_minus_max(mlp, mlp.output_norm_N / mlp.output_norm_N.mean())


def relative(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
    """1 - dominant share, mean over tokens and neurons: unchanged when all contributions shrink alike."""
    return 1 - dominant_share(mlp).mean()


def residual(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
    """The true residual: squared change of the output when only dominant contributions stay; as `keep`."""
    return _relative_error(mlp.output(mlp.totals), mlp.output(mlp.dominant), target)


def keep(m: int) -> Penalty:
    """Reconstruction error of the true MLP output from the m dominant contributions of each neuron.

    Squared error over the output's variance, times D: counted like one more hookpoint in scaled space.
    """

    def keep_m(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
        return _relative_error(target.output_BD, mlp.output(mlp.keep(m)), target)

    return keep_m


def full_sum(mlp: MlpContributions, target: MlpTarget) -> Float[Tensor, ""]:
    """Reconstruction error of the true MLP output from all contributions, in the same units as `keep`."""
    return _relative_error(target.output_BD, mlp.output(mlp.totals), target)


def _relative_error(
    true_BD: Float[Tensor, "B D"], rebuilt_BD: Float[Tensor, "B D"], target: MlpTarget
) -> Float[Tensor, ""]:
    return (true_BD - rebuilt_BD).square().sum(1).mean() * (true_BD.shape[1] / target.variance)


PENALTIES: dict[str, Penalty] = {
    "sum_minus_max": sum_minus_max,
    "out_norm": out_norm,
    "relative": relative,
    "residual": residual,
    "keep_one": keep(1),
    "keep_2": keep(2),
    "keep_4": keep(4),
    "full_sum": full_sum,
}


def penalty(name: str) -> Penalty:
    """The penalty of that name. Errors: XtalkError names the known ones."""
    if name not in PENALTIES:
        raise XtalkError(f"unknown penalty {name!r}; expected one of {', '.join(PENALTIES)}")
    return PENALTIES[name]
