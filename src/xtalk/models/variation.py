"""Hookpoints at which nothing varies: nothing is to explain there, and figures would divide by zero."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel

_NOTHING = 1e-10  # of the mean square, which rounding leaves of a constant


@torch.no_grad()
def check_variation(
    model: LanguageModel, tokens_BS: Int[Tensor, "B S"], hookpoints: Sequence[Hookpoint]
) -> None:
    """Refuse hookpoints whose activations, or whose MLP's outputs (ln2), are the same at every token.

    Such are MLPs that write nothing, in pruned models and in blocks that were added to be trained. Errors:
    XtalkError names the hookpoint and the option to leave it out by.
    """
    for point, x_BSD in zip(hookpoints, model.capture(tokens_BS, hookpoints).float().unbind(2), strict=True):
        x_BD = x_BSD.flatten(0, 1)
        if point.site == "ln2":
            output_BD = model.mlp_weights(point.block).to(x_BD.device)(x_BD)
            _check(output_BD, f"the MLP of block {point.block} puts out the same", point)
        _check(x_BD, f"the activations at {point} are the same", point)


def _check(x_BD: Float[Tensor, "B D"], what: str, point: Hookpoint) -> None:
    deviation_BD = x_BD - x_BD.mean(0)
    if deviation_BD.square().mean() <= _NOTHING * x_BD.square().mean():  # NaN is refused by the harvest
        raise XtalkError(
            f"{what} at every token, so that nothing of it can be explained; give hookpoints (--hookpoints) "
            f"without {point}, or another model"
        )
