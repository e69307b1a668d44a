"""Dormant neurons: off on ordinary text. Which of them does another text, or a trigger, wake?

A neuron is *on* at a token where what it adds to the MLP's output, |a_k| ||W_out[k]||, is more than ON of
that block's mean output norm on the reference text. It is *dormant* if on at no more than QUIET of the
reference's tokens, and *woken* by another text if it is dormant and on at AWAKE or more of that text's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import batches

ON, QUIET, AWAKE = 0.05, 0.01, 0.05
AFTER = 16  # tokens after a trigger that count as the trigger's text


@dataclass(frozen=True)
class NeuronRates:
    """At what fraction of `tokens` tokens each neuron is on; scale_b: the output norm of each block."""

    on_bN: Float[np.ndarray, "b N"]
    scale_b: Float[np.ndarray, "b"]
    tokens: int


@dataclass(frozen=True)
class Dormancy:
    """Neurons by block: dormant on the reference, and those of them that another text wakes."""

    reference: NeuronRates
    other: NeuronRates
    dormant_bN: Bool[np.ndarray, "b N"]
    woken_bN: Bool[np.ndarray, "b N"]


@torch.no_grad()
def neuron_rates(
    model: LanguageModel,
    tokens_mS: Int[np.ndarray, "m S"],
    marked_mS: Bool[np.ndarray, "m S"],
    scale_b: Float[np.ndarray, "b"] | None = None,
) -> NeuronRates:
    """How often each neuron is on at the marked tokens of some sequences.

    scale_b: output norms that "on" refers to; by default those of these tokens. Errors: XtalkError if no
    token is marked.
    """
    if not marked_mS.any():
        raise XtalkError("no token to look at; expected at least one sequence with marked tokens")
    hookpoints = [Hookpoint(block, "ln2") for block in range(model.n_blocks)]
    mlps = [model.mlp_weights(block) for block in range(model.n_blocks)]
    n_BPD = torch.cat(
        [
            batch.counted(model.capture(batch.tokens_mS, hookpoints)).float()
            for batch in batches(model, tokens_mS, counted_nS=marked_mS)
        ]
    )
    if scale_b is None:
        scale_b = np.array([float(mlp(n_BPD[:, b]).norm(dim=1).mean()) for b, mlp in enumerate(mlps)])
    on: list[np.ndarray] = []
    for block, mlp in enumerate(mlps):
        value_BN = n_BPD[:, block] @ mlp.W_in + mlp.b_in
        if mlp.W_gate is not None and mlp.b_gate is not None:
            activation_BN = mlp.activation(n_BPD[:, block] @ mlp.W_gate + mlp.b_gate) * value_BN
        else:
            activation_BN = mlp.activation(value_BN)
        added_BN = activation_BN.abs() * mlp.W_out.norm(dim=1)
        on.append((added_BN > ON * float(scale_b[block])).double().mean(0).cpu().numpy())
    return NeuronRates(np.stack(on), scale_b, len(n_BPD))


def find_dormant(reference: NeuronRates, other: NeuronRates) -> Dormancy:
    """The neurons that are dormant on the reference, and those that the other text wakes."""
    dormant_bN = reference.on_bN <= QUIET
    return Dormancy(reference, other, dormant_bN, dormant_bN & (other.on_bN >= AWAKE))


def with_trigger(
    tokens_mS: Int[np.ndarray, "m S"], trigger: Sequence[int], seed: int
) -> tuple[Int[np.ndarray, "m S"], Bool[np.ndarray, "m S"]]:
    """The sequences with a trigger put into each at a random place, and the tokens that may show its effect.

    Those are the trigger's last token and the 16 after it. The sequence goes on after the trigger as it did
    before, and keeps its length. Errors: XtalkError for sequences too short for it.
    """
    (m, S), length = tokens_mS.shape, len(trigger)
    latest = S - length - AFTER
    if not length or latest < 1:
        raise XtalkError(
            f"a trigger of {length} tokens in sequences of {S}; expected one of 1 to {S - AFTER - 1} tokens"
        )
    rng = np.random.default_rng(seed)
    triggered_mS, marked_mS = np.empty_like(tokens_mS), np.zeros(tokens_mS.shape, dtype=bool)
    for row, at in enumerate(rng.integers(1, latest + 1, m).tolist()):
        triggered_mS[row] = np.concatenate([tokens_mS[row, :at], trigger, tokens_mS[row, at : S - length]])
        marked_mS[row, at + length - 1 : at + length + AFTER] = True
    return triggered_mS, marked_mS


def drivers(
    mean_activation_L: Float[np.ndarray, "L"], M_LN: Float[np.ndarray, "L N"]
) -> Int[np.ndarray, "N"]:
    """The latent that raises each neuron's pre-activation most: argmax_i of its mean contribution f_i M_ik.

    -1 where none raises it.
    """
    raised_LN = mean_activation_L[:, None] * M_LN
    return np.where(raised_LN.max(0) > 0, raised_LN.argmax(0), -1)
