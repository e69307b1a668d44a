"""Adam over parameters as they lie in memory, with the gradient clipped."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Adam:
    """torch's fused Adam; parameters that are not contiguous, such as the encoder by latents, it would copy.

    parameters: those that are trained; none of them may overlap itself in memory. Moments are 0 at first.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._numbers = [nn.Parameter(numbers_of(parameter.detach())) for parameter in self._parameters]
        self._adam = torch.optim.Adam(self._numbers, fused=True)
        for numbers in self._numbers:
            moments = {"exp_avg": torch.zeros_like(numbers), "exp_avg_sq": torch.zeros_like(numbers)}
            self._adam.state[numbers] = {"step": torch.zeros((), device=numbers.device), **moments}

    def moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Adam's state of a trained parameter by torch's names, in the parameter's shape, sharing memory."""
        place = next((i for i, own in enumerate(self._parameters) if own is parameter), None)
        if place is None:
            return {}
        shape, stride = parameter.shape, parameter.stride()
        state = self._adam.state[self._numbers[place]]
        return {
            name: value.as_strided(shape, stride) if value.ndim else value for name, value in state.items()
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def gradient_norm(self) -> Float[Tensor, ""]:
        """Of all gradients together."""
        return torch.nn.utils.get_total_norm(p.grad for p in self._parameters if p.grad is not None)

    def step(self, lr: float, most: float, norm: Float[Tensor, ""]) -> None:
        """One step; the gradient is scaled down to the norm `most` where its own, `norm`, is larger."""
        if norm > most:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, most, norm)
        for parameter, numbers in zip(self._parameters, self._numbers, strict=True):
            grad = parameter.grad
            if grad is not None and grad.stride() != parameter.stride():
                grad = torch.empty_like(parameter).copy_(grad)
            numbers.grad = None if grad is None else numbers_of(grad)
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()


def numbers_of(tensor: Tensor) -> Float[Tensor, "numbers"]:
    """A tensor's numbers in the order in which they lie in memory, sharing it."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
