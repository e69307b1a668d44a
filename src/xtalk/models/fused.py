"""Fused kernels where transformers computes step by step: GPT-Neo's attention, and the tanh form of GELU."""

from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention


class _SdpaSelfAttention(GPTNeoSelfAttention):
    """GPT-Neo's attention through the fused kernel: unscaled scores, causal, optionally windowed."""

    def _attn(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """`attention_mask` is None (causal) or boolean (batch, 1, query, key), True to attend."""
        q_len, k_len = query.shape[-2], key.shape[-2]
        dropout = self.attn_dropout.p if self.training else 0.0
        windowed = self.attention_type == "local" and k_len > self.config.window_size
        if attention_mask is None and q_len == k_len and not windowed:
            out = F.scaled_dot_product_attention(
                query, key, value, dropout_p=dropout, is_causal=True, scale=1.0
            )
            return out, None
        allowed = self.bias[:, :, k_len - q_len : k_len, :k_len]
        if attention_mask is not None:
            allowed = allowed & attention_mask
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, dropout_p=dropout, scale=1.0
        )
        return out, None


class _FusedGelu(NewGELUActivation):
    """GELU in its tanh form ('gelu_new') as one kernel instead of eight."""

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate="tanh")


def use_fused_kernels(model: PreTrainedModel) -> PreTrainedModel:
    """Switch GPT-Neo attention and 'gelu_new' in `model` to fused kernels, in place; the rest stays."""
    for module in model.modules():
        if type(module) is GPTNeoSelfAttention:
            module.__class__ = _SdpaSelfAttention
            # transformers then makes boolean masks, and none at all for plain causal attention
            model.config._attn_implementation = "sdpa"  # pyright: ignore[reportPrivateUsage]
        elif type(module) is NewGELUActivation:
            module.__class__ = _FusedGelu
    return model
