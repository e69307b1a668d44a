"""Tiny random models of every supported family, with pairwise-distinct sizes and no trivial weight."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from xtalk.models.fused import use_fused_kernels
from xtalk.models.language_model import LanguageModel

VOCABULARY, CONTEXT, BLOCKS, D_MODEL, D_MLP, WINDOW = 53, 19, 3, 24, 40, 3

_COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
_LLAMA = _COMMON | {
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "pad_token_id": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50.0},
}
_NEOX = _COMMON | {
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.5},
}


_ROTARY = {"rope_type": "default", "rope_theta": 50.0}
_PART_ROTARY = {"rope_parameters": _ROTARY | {"partial_rotary_factor": 0.7}}  # 4 of 6 coordinates
_GEMMA = _LLAMA | {"query_pre_attn_scalar": 7, "sliding_window": WINDOW,
                   "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}  # fmt: skip
_GEMMA_3 = _GEMMA | {
    "rope_parameters": {
        "sliding_attention": _ROTARY,
        "full_attention": {"rope_type": "default", "rope_theta": 70.0},
    }
}
_GPT = _COMMON | {"n_embd": D_MODEL, "n_inner": D_MLP, "n_layer": BLOCKS, "n_head": 3}
_NO_HEAD_DIM = {key: value for key, value in _LLAMA.items() if key != "head_dim"}
_OPT = _COMMON | {
    "hidden_size": D_MODEL,
    "word_embed_proj_dim": D_MODEL,
    "ffn_dim": D_MLP,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 3,
    "pad_token_id": None,
}
_FALCON = _COMMON | {
    "hidden_size": D_MODEL,
    "ffn_hidden_size": D_MLP,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "rope_parameters": _ROTARY,
}
_GPT_NEO = _COMMON | {
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_layers": BLOCKS,
    "num_heads": 3,
    "attention_types": [[["global", "local", "local"], 1]],
    "window_size": WINDOW,
    "resid_dropout": 0.1,
}
_BLOOM = {"vocab_size": VOCABULARY, "hidden_size": D_MODEL, "n_layer": BLOCKS, "n_head": 4,
          "seq_length": CONTEXT, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}  # fmt: skip
_TINY = {
    "gpt_neo": _GPT_NEO,
    "gpt2": _GPT,
    "gptj": _GPT | {"n_positions": CONTEXT, "n_head": 4, "rotary_dim": 4},
    "gpt_neox": _NEOX | {"use_parallel_residual": True},
    "gpt_neox-sequential": _NEOX | {"use_parallel_residual": False},
    "opt": _OPT,
    "bloom": _BLOOM,
    "falcon": _FALCON,
    "falcon-new": _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon-sequential": _FALCON | {"parallel_attn": False, "alibi": True, "multi_query": False,
                                   "bias": True},
    "phi": _NO_HEAD_DIM | _PART_ROTARY,
    "phi3": _NO_HEAD_DIM | {"sliding_window": WINDOW},
    "llama": _LLAMA | {"mlp_bias": True, "attention_bias": True},
    "smollm3": _NO_HEAD_DIM | {"no_rope_layers": [1, 0, 1]},
    "mistral": _LLAMA | {"sliding_window": WINDOW},
    "qwen2": _LLAMA,
    "qwen2-sliding": _LLAMA | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA | {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0},
    "gemma3_text": _GEMMA_3,
    "olmo": _NO_HEAD_DIM,
    "olmo2": _NO_HEAD_DIM,
    "stablelm": _NO_HEAD_DIM | _PART_ROTARY | {"use_qkv_bias": True},
    "stablelm-parallel": _NO_HEAD_DIM | _PART_ROTARY | {"use_parallel_residual": True},
    "granite": _NO_HEAD_DIM | {"residual_multiplier": 0.4, "embedding_multiplier": 3.0,
                               "attention_multiplier": 0.3, "logits_scaling": 2.0},
    "glm4": _LLAMA | {"rope_parameters": _ROTARY | {"partial_rotary_factor": 0.4}, "attention_bias": True},
    "cohere": _NO_HEAD_DIM | {"logit_scale": 0.5},
}  # fmt: skip
KINDS = tuple(_TINY)


def tiny_config(kind: str, **changes):
    """The configuration of a kind: a model type, or one with a variant after a dash."""
    return AutoConfig.for_model(kind.split("-")[0], **_TINY[kind] | changes)


def tiny_hf(kind: str, seed: int = 0, **changes):
    """A transformers model whose parameters, norms and biases too, are all random."""
    config = tiny_config(kind, **changes)
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            around_one = "norm" in name or ".ln_" in name
            parameter.normal_(0.0, 0.25, generator=generator)
            if around_one and name.endswith("weight"):
                parameter.add_(0.0 if "gemma" in config.model_type else 1.0)
    return model.eval()


def tiny_model(kind: str, seed: int = 0, **changes) -> LanguageModel:
    return LanguageModel(use_fused_kernels(tiny_hf(kind, seed, **changes)), None, kind, "")


def tiny_tokens(batch: int = 2, length: int = 7, seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = {"<|endoftext|>": 0} | {f"w{i}": i for i in range(1, VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = Whitespace()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


def save_tiny(folder, kind: str = "gpt_neo", seed: int = 0) -> None:
    """Write a tiny model with its tokenizer as a model folder."""
    tiny_hf(kind, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
