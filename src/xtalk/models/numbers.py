"""A block's own activations compared, in numbers, with what its weights are taken to compute."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Site
from xtalk.models.mlp import MlpWeights
from xtalk.models.norms import NormWeights

_RELATIVE = 1e-3  # of what is computed: float32 in another order is far below
_CANCELLED = 1e-5  # of the residual stream, from which an MLP's output is a difference


@torch.no_grad()
def check_block(
    block: str,
    own: Mapping[Site, Float[Tensor, "S D"]],
    norms: Mapping[Site, tuple[NormWeights, Site]],
    added: Callable[[Float[Tensor, "S D"]], Float[Tensor, "S D"]],
    mlp: MlpWeights,
) -> None:
    """Refuse a block whose norms or MLP, as plain tensors, do not give the block's own activations.

    block: its name; own: its float32 activations, by site; norms: by the site of their output, with the site
    that they read; added: what the residual stream gains of an output of the MLP, which must make resid_post
    of resid_mid and ln2. Errors: XtalkError names the block, the part and the difference, or the first site
    whose activations are not finite.
    """
    for site, x_SD in own.items():
        if not x_SD.isfinite().all():
            raise XtalkError(
                f"{block} has NaN or infinity at {site}; expected finite activations; check the model's "
                "weights, or get its files again"
            )
    for site, (norm, source) in norms.items():
        _compare(f"the norm at {site} of {block}", norm(own[source]), own[site], 0.0)
    rounding_S = _CANCELLED * own["resid_post"].norm(dim=1)
    _compare(f"the MLP of {block}", added(mlp(own["ln2"])), own["resid_post"] - own["resid_mid"], rounding_S)


def check_causal(model: str, longer_SD: Float[Tensor, "S D"], own_SD: Float[Tensor, "S D"]) -> None:
    """Refuse a model whose activations at some tokens depend on the token after them.

    longer_SD: the same tokens' with another one behind them. Errors: XtalkError names the difference.
    """
    off = float((longer_SD - own_SD).norm() / own_SD.norm())
    if off > _RELATIVE:
        raise XtalkError(
            f"the activations of {model} change by {off:.2g} with the token after them; expected a causal "
            "model, which reads from left to right; choose another model"
        )


def _compare(
    part: str, made_SD: Float[Tensor, "S D"], own_SD: Float[Tensor, "S D"], rounding: Tensor | float
) -> None:
    size_S, difference_S = own_SD.norm(dim=1), (made_SD - own_SD).norm(dim=1)
    wrong_S = difference_S > _RELATIVE * size_S + rounding
    if wrong_S.any():
        worst = float((difference_S / size_S.clamp(min=1e-30))[wrong_S].max())
        raise XtalkError(
            f"{part}, computed from its weights, is off by {worst:.2g} of what the model itself puts out; "
            "expected a plain block of its architecture; choose another model"
        )
