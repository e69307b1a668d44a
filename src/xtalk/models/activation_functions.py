"""Activation functions of MLPs, with the constants that bounds on their interactions need."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from xtalk.errors import XtalkError


@dataclass(frozen=True)
class ActivationFunction:
    """A scalar function phi, applied to each element, with sound bounds on its derivatives.

    phi' lies in [slope_min, slope_max] and |phi''| is at most `curvature` (inf where phi has a kink);
    each constant is rounded outwards at the seventh decimal.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    slope_min: float
    slope_max: float
    curvature: float

    def __call__(self, h: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """phi(h), element by element."""
        return self.function(h)

    @property
    def lipschitz(self) -> float:
        """The supremum of |phi'|: above 1 for GELU and SiLU, which overshoot the identity."""
        return max(self.slope_max, -self.slope_min)


RELU = ActivationFunction("relu", F.relu, 0.0, 1.0, inf)
GELU = ActivationFunction("gelu", F.gelu, -0.1289042, 1.1289042, 0.7978846)
GELU_TANH = ActivationFunction(
    "gelu_tanh", partial(F.gelu, approximate="tanh"), -0.1289931, 1.1289931, 0.7978846
)
SILU = ActivationFunction("silu", F.silu, -0.0998394, 1.0998394, 0.5)
ALL = (RELU, GELU, GELU_TANH, SILU)

_BY_HF_NAME = {
    "relu": RELU,
    "gelu": GELU,
    "gelu_python": GELU,
    "gelu_new": GELU_TANH,
    "gelu_fast": GELU_TANH,
    "gelu_pytorch_tanh": GELU_TANH,
    "silu": SILU,
    "swish": SILU,
}


def activation_function(hf_name: str) -> ActivationFunction:
    """The activation function that Hugging Face configurations call `hf_name`, with bounds on its slope.

    Errors: XtalkError for one that is not supported, with those that are.

    >>> xtalk.activation_function("gelu_new").lipschitz
    1.1289931
    """
    if hf_name not in _BY_HF_NAME:
        raise XtalkError(
            f"the model's MLPs use the activation function {hf_name!r}; supported are "
            f"{', '.join(_BY_HF_NAME)}; choose another model"
        )
    return _BY_HF_NAME[hf_name]
