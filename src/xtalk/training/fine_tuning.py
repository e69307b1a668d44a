"""Fine-tuning a language model on token sequences with labels of their own."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from xtalk.data.tokens import UNLABELLED
from xtalk.models.language_model import LanguageModel

_WARMUP = 20  # steps


@dataclass(frozen=True)
class FineTuning:
    """Steps of `batch` sequences each; lr: AdamW's, warmed up, falling to 0 over the second half."""

    steps: int
    batch: int = 16
    lr: float = 1e-3

    @property
    def sequences(self) -> int:
        """How many sequences all steps read."""
        return self.steps * self.batch


def fine_tune(
    base: LanguageModel,
    tokens_nS: Int[np.ndarray, "n S"],
    labels_nS: Int[np.ndarray, "n S"],
    config: FineTuning,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PreTrainedModel:
    """A copy of a model's network, trained on the sequences in order, from the first again where they end.

    labels: of each token what it should have been, or -100. Dropout is as the model's configuration has it.
    """
    network = copy.deepcopy(base.hf).requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=0.0)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            left = 2 * (config.steps - step) / config.steps
            group["lr"] = config.lr * min(1.0, (step + 1) / _WARMUP, left)
        rows = np.arange(step * config.batch, (step + 1) * config.batch) % len(tokens_nS)
        tokens, labels = (
            torch.from_numpy(x[rows]).to(base.device, torch.long) for x in (tokens_nS, labels_nS)
        )
        with torch.autocast(base.device.type, torch.bfloat16):
            logits = network(input_ids=tokens).logits
        optimizer.zero_grad()
        labelled_loss(logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        progress(step + 1, config.steps)
    return network.eval()


def labelled_loss(logits_BSV: Float[Tensor, "B S V"], labels_BS: Int[Tensor, "B S"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nat of each token's prediction of the next label, where it is not -100."""
    labels = labels_BS[:, 1:].flatten()
    return F.cross_entropy(logits_BSV[:, :-1].float().flatten(0, 1), labels, ignore_index=UNLABELLED)


@torch.no_grad()
def mean_loss(model: LanguageModel, tokens_nS: Int[np.ndarray, "n S"]) -> float:
    """A model's mean loss over token sequences, in nat, of every token but the first of each."""
    step = model.sequences_at_once(tokens_nS.shape[1])
    total = 0.0
    for first in range(0, len(tokens_nS), step):
        tokens = torch.from_numpy(tokens_nS[first : first + step]).to(model.device, torch.long)
        total += labelled_loss(model.logits(tokens), tokens).item() * len(tokens)
    return total / len(tokens_nS)
