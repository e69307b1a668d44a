"""One's own tensors as a crosscoder's: checked, and in its shapes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.crosscoder.saving import first_reason
from xtalk.errors import XtalkError

_HOOKPOINT_AXES = {"W_enc": (0,), "W_dec": (1,), "b_dec": (0,), "W_skip": (0, 2), "gate": (0,)}


def fitted(
    *,
    W_enc: Float[Tensor, "..."],
    W_dec: Float[Tensor, "..."],
    b_enc: Float[Tensor, "..."],
    b_dec: Float[Tensor, "..."],
    hook_names: str | Sequence[str],
    architecture: str,
    k: int | None = None,
    threshold: Float[Tensor, "..."] | float | None = None,
    hook_names_out: str | Sequence[str] | None = None,
    W_skip: Float[Tensor, "..."] | None = None,
    gate: Float[Tensor, "..."] | None = None,
) -> tuple[CrosscoderConfig, dict[str, Tensor]]:
    """The config that tensors make, and the tensors in its shapes; as `Crosscoder.from_tensors` says.

    Errors: XtalkError for shapes that do not fit, an unknown architecture, a missing threshold or k, and NaN
    or infinity.
    """
    kind = nonlinearity(architecture)
    if kind.infers_by_threshold and threshold is None:
        raise XtalkError(f"a {architecture} crosscoder without a threshold; give threshold=, (L) or a number")
    if kind.infers_by_k and k is None:
        raise XtalkError(f"a {architecture} crosscoder without k; give k=, its active latents per token")
    if W_enc.ndim < 2:
        raise XtalkError(f"W_enc has {W_enc.ndim} axis; expected (P, D, L), or (D, L) for one hookpoint")
    d_in, d_sae = W_enc.shape[-2:]
    try:
        config = CrosscoderConfig(
            d_in=d_in,
            d_sae=d_sae,
            k=k or d_sae,
            hook_names=_names(hook_names),
            architecture=architecture,
            hook_names_out=None if hook_names_out is None else _names(hook_names_out),
            skip=W_skip is not None,
            gated=gate is not None,
        )
    except ValidationError as error:
        raise XtalkError(f"the crosscoder: {first_reason(error)}") from error
    by_latent = torch.as_tensor(0.0 if threshold is None else threshold, device=W_enc.device)
    given = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": b_enc, "b_dec": b_dec, "threshold": by_latent}
    given |= {name: tensor for name, tensor in (("W_skip", W_skip), ("gate", gate)) if tensor is not None}
    return config, {name: _fitting(name, tensor, config) for name, tensor in given.items()}


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _fitting(name: str, tensor: Tensor, config: CrosscoderConfig) -> Tensor:
    """A given tensor in the crosscoder's shape. Errors: XtalkError if it does not fit, or is not finite."""
    expected, axes = config.shapes[name], _HOOKPOINT_AXES.get(name, ())
    one = all(expected[axis] == 1 for axis in axes)
    if name == "threshold" and tensor.ndim == 0:
        tensor = tensor.expand(expected)
    without = tuple(size for axis, size in enumerate(expected) if axis not in axes)
    if tuple(tensor.shape) != expected and not (one and tuple(tensor.shape) == without):
        raise XtalkError(
            f"{name} is {tuple(tensor.shape)}; expected {expected}: {len(config.hook_names)} hookpoints, "
            f"d_in {config.d_in} and {config.d_sae} latents, as hook_names and W_enc have it"
        )
    if not tensor.isfinite().all():
        raise XtalkError(f"{name} has NaN or infinity; expected finite numbers")
    return tensor.reshape(expected)
