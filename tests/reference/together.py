"""Several MLPs rebuilt at once, by hooks on transformers' own modules: slow, obvious, differentiable."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn


def mlp_modules(hf) -> list[nn.Module]:
    """The MLPs of GPT-Neo, or of Llama, Gemma 2 and their like."""
    blocks = hf.transformer.h if hasattr(hf, "transformer") else hf.model.layers
    return [block.mlp for block in blocks]


def logits(hf, tokens_mS: Tensor, outputs: dict[int, Tensor]) -> Tensor:
    """With outputs (m, S, D) in the place of what some MLPs put out."""
    with ExitStack() as stack:
        for block, output_mSD in outputs.items():
            hook = mlp_modules(hf)[block].register_forward_hook(lambda *_, out=output_mSD: out)
            stack.callback(hook.remove)
        return hf(input_ids=tokens_mS, use_cache=False).logits


def clean_outputs(hf, tokens_mS: Tensor) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for block, module in enumerate(mlp_modules(hf)):
            hook = module.register_forward_hook(lambda _, __, out, block=block: found.update({block: out}))
            stack.callback(hook.remove)
        hf(input_ids=tokens_mS, use_cache=False)
    return found


def divergence(hf, tokens_mS: Tensor, places: list[tuple[int, int]], outputs: dict[int, Tensor]) -> Tensor:
    """KL in nat per token of `places`, (row, position), whose MLPs put out outputs (B, D), by block.

    All other tokens have what their MLPs put out in the clean run.
    """
    replaced: dict[int, Tensor] = {}
    own = clean_outputs(hf, tokens_mS)
    for block, output_BD in outputs.items():
        rows = [list(row_SD) for row_SD in own[block].detach()]
        for (row, position), output_D in zip(places, output_BD, strict=True):
            rows[row][position] = output_D
        replaced[block] = torch.stack([torch.stack(row) for row in rows])
    before, after = logits(hf, tokens_mS, {}).detach(), logits(hf, tokens_mS, replaced)
    total = torch.zeros(()).double()
    for p_V, q_V in zip(before.flatten(0, 1), after.flatten(0, 1), strict=True):
        p_V, q_V = p_V.double().softmax(0), q_V.double().softmax(0)
        total = total + (p_V * (p_V.log() - q_V.log())).sum()
    return total / len(places)
