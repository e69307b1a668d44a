"""Scaled-dot-product attention for GPT-Neo, which transformers ships in eager form only."""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention


class _SdpaSelfAttention(GPTNeoSelfAttention):
    """GPT-Neo's attention through the fused kernel: unscaled scores, causal, optionally windowed."""

    def _attn(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        q_len, k_len = query.shape[-2], key.shape[-2]
        plain_causal = attention_mask is None and q_len == k_len
        if plain_causal and self._window_covers(k_len):
            out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
            return out, None
        allowed = self.bias[:, :, k_len - q_len : k_len, :k_len]
        mask = torch.zeros(allowed.shape, dtype=query.dtype, device=query.device)
        mask = mask.masked_fill(~allowed, torch.finfo(query.dtype).min)
        if attention_mask is not None:
            mask = mask + attention_mask.to(query.dtype)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
        return out, None

    def _window_covers(self, length: int) -> bool:
        """Whether a local layer's window is at least `length`, so that it is plain causal."""
        return bool(self.bias[0, 0, length - 1, 0])


def use_sdpa(model: PreTrainedModel) -> PreTrainedModel:
    """Switch every GPT-Neo attention in `model` to the fused kernel, in place; other models pass through."""
    for module in model.modules():
        if type(module) is GPTNeoSelfAttention:
            module.__class__ = _SdpaSelfAttention
    return model
