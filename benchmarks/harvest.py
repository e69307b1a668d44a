"""The activation stream against the bare Hugging Face forward, on random tokens, of the embedded model.

The forward computes logits and keeps nothing, at the micro-batch that is fastest for it: the model as
transformers loads it, and for a floor as xtalk runs it (for GPT-Neo with a fused attention kernel). The
stream gives shuffled float32 batches at the paper's hookpoints. `value` is the number of tokens.
"""

import time
from functools import partial

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.paired import Variants
from benchmarks.timing import work
from xtalk.activations import ActivationStream
from xtalk.data.tokens import token_sequences
from xtalk.models.checkpoint import EMBEDDED_FOLDER
from xtalk.models.language_model import LanguageModel, load_model

VARIANTS: Variants = ("xtalk", "transformers", "floor")
TOKENS = 65_536
LENGTH = 256
MICRO_BATCHES = (4, 8, 16, 32)


@torch.no_grad()
def forward(hf: PreTrainedModel, tokens_nS: np.ndarray, size: int) -> None:
    """All layers and the head, in micro-batches of `size` sequences."""
    for first in range(0, len(tokens_nS), size):
        tokens = torch.from_numpy(tokens_nS[first : first + size]).to(hf.device, torch.int64)
        hf(input_ids=tokens, use_cache=False)


def stream(model: LanguageModel, tokens_nS: np.ndarray) -> None:
    """One epoch of the activation stream."""
    sequences = token_sequences(tokens_nS, np.zeros_like(tokens_nS))
    for _ in ActivationStream(model, sequences, model.hookpoints(), batch_tokens=2048, seed=0):
        pass


def fastest_size(hf: PreTrainedModel, tokens_nS: np.ndarray) -> int:
    """The micro-batch at which the bare forward is fastest, by the second of two rounds."""

    def seconds(size: int) -> float:
        start = time.perf_counter()
        forward(hf, tokens_nS, size)
        return time.perf_counter() - start

    rounds = [{size: seconds(size) for size in MICRO_BATCHES} for _ in range(2)]
    return min(MICRO_BATCHES, key=rounds[1].__getitem__)


def measure(variant: str, *, small: bool) -> dict[str, float]:
    """One variant, in bfloat16."""
    tokens = 8192 if small else TOKENS
    model = load_model("embedded", dtype=torch.bfloat16)
    shape = (tokens // LENGTH, LENGTH)
    tokens_nS = np.random.default_rng(0).integers(0, model.vocabulary, shape, dtype=np.int32)
    few_nS = tokens_nS[: 2**13 // LENGTH]
    if variant == "xtalk":
        return work(lambda: stream(model, few_nS), lambda: stream(model, tokens_nS), lambda _: tokens)
    hf = model.hf
    if variant == "transformers":
        hf = AutoModelForCausalLM.from_pretrained(EMBEDDED_FOLDER, dtype=torch.bfloat16).eval()
    run = partial(forward, hf, tokens_nS, fastest_size(hf, few_nS))
    return work(lambda: None, run, lambda _: tokens)
