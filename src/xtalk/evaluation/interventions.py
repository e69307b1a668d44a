"""Interventions on pairs of features in the model's own activations: what removing both does beyond each.

What the MLP reads is the model's, not the crosscoder's; a feature's part in it, f_i d_i, is taken out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import next_token_loss

_LOGITS = 1 << 25  # elements of the logits of a batch of interventions
WINDOW = 16  # tokens after an intervention whose losses count


@dataclass(frozen=True)
class Occurrences:
    """Where pairs occur: for each of Z occurrences its pair, and the token at which both are active."""

    pair_Z: Int[np.ndarray, "Z"]
    token_Z: Int[np.ndarray, "Z"]

    def between(self, start: int, stop: int) -> "Occurrences":
        """Those at tokens start..stop-1, tokens counted from there."""
        here = (self.token_Z >= start) & (self.token_Z < stop)
        return Occurrences(self.pair_Z[here], self.token_Z[here] - start)


@torch.no_grad()
def removed(
    mlp: Callable[[Tensor], Tensor],
    x_ZD: Float[Tensor, "Z D"],
    first_ZD: Float[Tensor, "Z D"],
    second_ZD: Float[Tensor, "Z D"],
) -> Float[Tensor, "4 Z D"]:
    """The MLP's output with all features, without the first, without the second, and without both.

    mlp: the output by what the features' parts are taken from: its input, or the residual stream before it.
    """
    return torch.stack(
        [mlp(x_ZD), mlp(x_ZD - first_ZD), mlp(x_ZD - second_ZD), mlp(x_ZD - first_ZD - second_ZD)]
    )


def mixed(outcomes_4: Float[Tensor, "4 *Z"]) -> Float[Tensor, "*Z"]:
    """What removing both does beyond each: all - without first - without second + without both."""
    everything, no_first, no_second, neither = outcomes_4.unbind(0)
    return (everything - no_first) - (no_second - neither)


@torch.no_grad()
def loss_effects(
    model: LanguageModel,
    block: int,
    resid_post_mSD: Float[Tensor, "m S D"],
    tokens_mS: Int[Tensor, "m S"],
    token_Z: Int[Tensor, "Z"],
    added_4ZD: Float[Tensor, "4 Z D"],
    counted_mS: Bool[np.ndarray, "m S"],
) -> Float[Tensor, "Z"]:
    """The mixed effect on the loss of changing what the MLP adds at one token per occurrence.

    token_Z: places in the flattened batch; added_4ZD: what the residual stream gains, in the order of
    `removed`. The loss: cross-entropy of the next 16
    tokens after the place, added up over predictions that count, nat; float32. A place at the end of its
    sequence has none, effect 0.
    """
    S = tokens_mS.shape[1]
    effects_Z = torch.zeros(len(token_Z), dtype=torch.float64)
    by_position = (token_Z % S).argsort()
    step = max(1, _LOGITS // (4 * S * model.vocabulary))
    for start in range(0, len(token_Z), step):
        chosen = by_position[start : start + step]
        row, position = token_Z[chosen] // S, token_Z[chosen] % S
        stop = min(S, int(position.max()) + WINDOW + 1)
        tokens = tokens_mS[row, :stop].repeat(4, 1)
        resid = resid_post_mSD[row, :stop].repeat(4, 1, 1)
        here, change = torch.arange(len(chosen)), added_4ZD[:, chosen] - added_4ZD[0, chosen]
        for c in range(4):
            resid[c * len(chosen) + here, position] += change[c]
        loss = next_token_loss(model.continue_from(block, resid, tokens), tokens).double().cpu()
        offset = torch.arange(stop - 1) - position.cpu()[:, None]
        read = torch.from_numpy(counted_mS)[row.cpu(), : stop - 1]
        window = (offset >= 0) & (offset < WINDOW) & read
        sums = (loss.view(4, len(chosen), -1) * window).sum(2)
        effects_Z[chosen.cpu()] = mixed(sums)
    return effects_Z
