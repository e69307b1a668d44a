"""What a rebuilt MLP output costs a model's predictions, by running the whole model: slow, obvious."""

import numpy as np
import torch
from torch import Tensor

from xtalk.activations import ActivationBatch
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel


def divergence(
    model: LanguageModel,
    tokens_SS: np.ndarray,
    batch: ActivationBatch,
    block: int,
    output_BD: Tensor,
    mid_BD: Tensor | None = None,
) -> Tensor:
    """KL(model || model with those outputs) in nat per replaced token, token by token.

    tokens_SS: the sequences that the batch's tokens are of; mid_BD: what the outputs are added to, by default
    the model's own resid_mid.
    """
    numbers = sorted(set(batch.sequences.tolist()))
    tokens, length = torch.from_numpy(tokens_SS[numbers]).long(), tokens_SS.shape[1]
    mid_mSD, n_mSD = model.capture(tokens, (Hookpoint(block, "resid_mid"), Hookpoint(block, "ln2"))).unbind(2)
    outputs = list(model.mlp_weights(block)(n_mSD).flatten(0, 1))
    for b, (number, position) in enumerate(
        zip(batch.sequences.tolist(), batch.positions.tolist(), strict=True)
    ):
        row = numbers.index(number)
        moved = 0 if mid_BD is None else mid_BD[b] - mid_mSD[row, position]
        outputs[row * length + position] = output_BD[b] + moved  # the block adds the model's own resid_mid
    spliced = model.logits_with_mlp_output(block, torch.stack(outputs).view(mid_mSD.shape), tokens)
    before, total = model.logits(tokens), torch.zeros((), dtype=torch.float64)
    for p_V, q_V in zip(before.flatten(0, 1).detach(), spliced.flatten(0, 1), strict=True):
        p_V, q_V = p_V.double().softmax(0), q_V.double().softmax(0)
        total = total + (p_V * (p_V.log() - q_V.log())).sum()
    return total / len(output_BD)
