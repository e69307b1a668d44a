"""Language models of random weights, of any depth: what is timed does not depend on what they say."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from xtalk.models.language_model import LanguageModel

WIDTH, CONTEXT = 576, 128


def random_llama(blocks: int, *, small: bool) -> LanguageModel:
    """SmolLM2-135M's shapes but for the depth and the vocabulary, which is 8,192; small: tiny."""
    sizes = {"hidden_size": 24, "intermediate_size": 40, "vocab_size": 64} if small else {}
    shape = {"hidden_size": WIDTH, "intermediate_size": 1536, "vocab_size": 8192} | sizes
    config = LlamaConfig(
        **shape,
        num_hidden_layers=blocks,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=CONTEXT,
    )
    torch.manual_seed(0)
    return LanguageModel(AutoModelForCausalLM.from_config(config), None, f"random-{blocks}", "random")
