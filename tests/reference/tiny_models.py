"""Tiny random models of every supported family, with pairwise-distinct sizes and no trivial weight."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from xtalk.models.families import FAMILIES
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


def tiny_config(kind: str):
    """The configuration of a kind: a model type, or one with a variant after a dash."""
    if kind == "gpt_neo":
        return GPTNeoConfig(**_COMMON, hidden_size=D_MODEL, intermediate_size=D_MLP, num_layers=BLOCKS,
                            num_heads=3, attention_types=[[["global", "local", "local"], 1]],
                            window_size=WINDOW, resid_dropout=0.1)  # fmt: skip
    if kind == "gpt2":
        return GPT2Config(**_COMMON, n_embd=D_MODEL, n_inner=D_MLP, n_layer=BLOCKS, n_head=3)
    if kind in ("gpt_neox", "gpt_neox-sequential"):
        return GPTNeoXConfig(**_NEOX, use_parallel_residual=kind == "gpt_neox")
    sliding = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
    return {
        "llama": lambda: LlamaConfig(**_LLAMA, mlp_bias=True, attention_bias=True),
        "mistral": lambda: MistralConfig(**_LLAMA, sliding_window=WINDOW),
        "qwen2": lambda: Qwen2Config(**_LLAMA),
        "qwen2-sliding": lambda: Qwen2Config(**_LLAMA, **sliding),
        "qwen3": lambda: Qwen3Config(**_LLAMA),
        "gemma": lambda: GemmaConfig(**_LLAMA),
    }[kind]()


KINDS = (*FAMILIES, "gpt_neox-sequential", "qwen2-sliding")


def tiny_hf(kind: str, seed: int = 0):
    """A transformers model whose parameters, norms and biases too, are all random."""
    config = tiny_config(kind)
    has_sdpa = FAMILIES[config.model_type].has_sdpa
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa" if has_sdpa else "eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            around_one = "norm" in name or ".ln_" in name
            parameter.normal_(0.0, 0.25, generator=generator)
            if around_one and name.endswith("weight"):
                parameter.add_(1.0 - FAMILIES[config.model_type].norm_offset)
    return model.eval()


def tiny_model(kind: str, seed: int = 0) -> LanguageModel:
    return LanguageModel(use_fused_kernels(tiny_hf(kind, seed)), None, kind, "")


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
