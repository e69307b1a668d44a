"""What peers do to activations beside the weights, folded into the weights; float32, as peers compute it."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.crosscoder.formats.format import Stored
from xtalk.crosscoder.provenance import Provenance
from xtalk.crosscoder.tensors import fitted

NEVER = torch.finfo(torch.float32).max  # a threshold that nothing is above


def stored(
    tensors: Mapping[str, Tensor | None],
    *,
    provenance: Provenance | None = None,
    notes: tuple[str, ...] = (),
    **how: Any,
) -> Stored:
    """A crosscoder of tensors by name and what else `fitted` takes: hook_names, architecture, k."""
    config, fitting = fitted(**tensors, **how)  # pyright: ignore[reportArgumentType]  by name, checked there
    whole = {name: tensor.contiguous() for name, tensor in fitting.items()}
    return Stored(config, whole, provenance or Provenance(), notes)


def subtracted(
    W_enc_PDL: Float[Tensor, "P D L"], b_enc_L: Float[Tensor, "L"], x_PD: Float[Tensor, "P D"]
) -> Float[Tensor, "L"]:
    """The encoder's bias for x that does what `b_enc` does for x - x_PD."""
    return b_enc_L - torch.einsum("pd,pdl->l", x_PD, W_enc_PDL)


def over_norm(threshold: Float[Tensor, "..."], norm: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The thresholds of values that do what the given ones do for values times the decoder's norm."""
    return torch.where(norm > 0, threshold / norm, NEVER).clamp(max=NEVER)


def gated_threshold(
    r_mag_L: Float[Tensor, "L"], b_gate_L: Float[Tensor, "L"], b_mag_L: Float[Tensor, "L"]
) -> Float[Tensor, "L"]:
    """A gated SAE's gate h + b_gate > 0 as a threshold of its magnitude exp(r_mag) h + b_mag."""
    return b_mag_L - r_mag_L.exp() * b_gate_L
