"""Tokens per second of the activation stream against the bare Hugging Face forward, in paired runs.

python benchmarks/harvest.py [MODEL] [--tokens 65536] [--pairs 7] [--dtype bfloat16] [--device cpu]

All read the same random tokens. The bare forward computes logits and keeps nothing: once the model as
transformers loads it, and once the model as xtalk runs it (for GPT-Neo with a fused attention kernel),
each at the micro-batch that is fastest for it. The stream gives shuffled float32 batches at the paper's
hookpoints.
Prints the ratio of tokens/s, stream over forward: median [low, high].
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from xtalk.activations import ActivationStream
from xtalk.data.tokens import token_sequences
from xtalk.models.checkpoint import EMBEDDED_FOLDER
from xtalk.models.language_model import LanguageModel, load_model

MICRO_BATCHES = (4, 8, 16, 32)


def seconds(work: Callable[..., None], *arguments: Any) -> float:
    """Wall time of `work`, with the device's queue emptied."""
    start = time.perf_counter()
    work(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


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
    """The micro-batch at which the bare forward is fastest; the first round warms up."""
    times = [{size: seconds(forward, hf, tokens_nS, size) for size in MICRO_BATCHES} for _ in range(3)]
    return min(MICRO_BATCHES, key=lambda size: min(times[1][size], times[2][size]))


def main() -> None:
    """Run the pairs and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="embedded")
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    model = load_model(options.model, device=options.device, dtype=dtype)
    folder = EMBEDDED_FOLDER if options.model == "embedded" else options.model
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(options.device)
    length = min(model.context, 256)
    shape = (options.tokens // length, length)
    tokens_nS = np.random.default_rng(0).integers(0, model.vocabulary, shape, dtype=np.int32)
    stream(model, tokens_nS[: 2**13 // length])
    for name, hf in (("as transformers loads it", bare), ("as xtalk runs it", model.hf)):
        size = fastest_size(hf, tokens_nS[: 2**15 // length])
        pairs = [
            (seconds(stream, model, tokens_nS), seconds(forward, hf, tokens_nS, size))
            for _ in range(options.pairs)
        ]
        ratios = [of_forward / of_stream for of_stream, of_forward in pairs]
        speeds = [tokens_nS.size / statistics.median(times) for times in zip(*pairs, strict=True)]
        print(f"stream {speeds[0]:.0f} tokens/s, forward {name} {speeds[1]:.0f} ({size} sequences at once)")
        print(f"  ratio {statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]", flush=True)


if __name__ == "__main__":
    main()
