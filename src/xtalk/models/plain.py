"""What modules of a model compute, as plain tensors; told apart by their own outputs, not by their names."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from xtalk.models.activation_functions import ALL, ActivationFunction
from xtalk.models.norms import NormWeights

_PROBES = 8  # vectors on which a norm is compared with what it may compute
_EPS = 1e-5  # of norms that keep it in their code
_SAME = 1e-5  # largest difference of an activation function from itself, in other kernels


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer."""
    return isinstance(module, nn.Linear | Conv1D)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm; transformers has a class for nearly every architecture."""
    return "Norm" in type(module).__name__


def affine(layer: nn.Module) -> tuple[Float[Tensor, "in out"], Float[Tensor, " out"]]:
    """Weight and bias of a linear layer in float32; GPT-2's Conv1D stores the transpose of nn.Linear."""
    weight = layer.get_parameter("weight").detach()
    weight = weight if isinstance(layer, Conv1D) else weight.T
    weight = weight.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    bias = getattr(layer, "bias", None)
    if bias is None:
        return weight, weight.new_zeros(weight.shape[1])
    return weight, bias.detach().to(torch.float32, copy=True)


@torch.no_grad()
def norm_weights(norm: nn.Module, like: Tensor, width: int) -> NormWeights:
    """The norm of vectors of that width that comes nearest to what the module puts out, in float32.

    like: a tensor of the model's dtype and device. It may remove the mean or not, and its weight may count
    from 1 (Gemma), be a factor, or be absent (OLMo 1).
    """
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    ones = torch.ones(width, device=like.device)
    scale = ones if weight is None else weight.detach().to(torch.float32, copy=True)
    shift = 0 * ones if bias is None else bias.detach().to(torch.float32, copy=True)
    eps = float(getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None) or _EPS)
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(_PROBES, width, generator=generator) + 1).to(like)
    own = norm(x).float()
    candidates = [
        NormWeights(scale + offset, shift, eps, centred) for offset in (0.0, 1.0) for centred in (False, True)
    ]
    return min(candidates, key=lambda made: float((made(x.float()) - own).norm()))


@torch.no_grad()
def activation_of(module: nn.Module, like: Tensor) -> ActivationFunction | None:
    """The activation function that a module computes, of those with known bounds; None for another one.

    like: a tensor of the model's dtype and device.
    """
    h = torch.linspace(-8, 8, 257).to(like)
    own = module(h).float()
    rounding = torch.finfo(like.dtype).eps * 4
    differences = {phi: float((phi(h.float()) - own).abs().max()) for phi in ALL}
    nearest = min(differences, key=lambda phi: differences[phi])
    return nearest if differences[nearest] <= max(_SAME, 8 * rounding) else None
