"""The memory of an evaluation, model of 22 blocks against one of 4: contributions to one block are held.

SmolLM2-135M's shapes but for the depth, 16,384 latents at the MLP input of every block, 256 tokens. What
counts is the ratio of peaks, beside the weights of the model and the crosscoder; the floor is one forward
of the deep model. `value` is the number of tokens. Contributions to all 22 blocks would take 2.2 GB.
"""

import numpy as np
import torch

from benchmarks.paired import Variants
from benchmarks.random_models import CONTEXT, random_llama
from benchmarks.timing import peak_bytes, work
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data.tokens import token_sequences
from xtalk.evaluation.baselines import mean_mlp_outputs, measure_baselines
from xtalk.evaluation.evaluate import evaluate_crosscoder

VARIANTS: Variants = ("xtalk", "4 blocks", "forward")
BLOCKS, TOKENS, LATENTS = 22, 256, 16_384


def measure(variant: str, *, small: bool) -> dict[str, float]:
    """One variant."""
    before = peak_bytes()
    model = random_llama(4 if small or variant == "4 blocks" else BLOCKS, small=small)
    length = 16 if small else CONTEXT
    tokens_nS = np.random.default_rng(0).integers(0, model.vocabulary, (TOKENS // length, length), np.int32)
    text = token_sequences(tokens_nS, (np.arange(TOKENS, dtype=np.int32) // 16).reshape(tokens_nS.shape))
    names = tuple(f"blocks.{block}.ln2" for block in range(model.n_blocks))
    latents = 64 if small else LATENTS
    config = CrosscoderConfig(
        d_in=model.d_model, d_sae=latents, k=8 if small else 64, hook_names=names, architecture="topk"
    )
    crosscoder = Crosscoder(config)
    with torch.no_grad():  # in place: a copy would be most of the peak
        crosscoder.W_dec.normal_(generator=torch.Generator().manual_seed(0)).div_(model.d_model**0.5)
        crosscoder.W_enc.copy_(crosscoder.W_dec.permute(1, 2, 0))

    def evaluate() -> float:
        means = mean_mlp_outputs(model, text, TOKENS, tuple(range(model.n_blocks)))
        baselines = measure_baselines(model, text, means)
        factor_P = torch.ones(len(names))
        evaluate_crosscoder(model, crosscoder, factor_P, text, baselines, resamples=100, seed=0)
        return float(TOKENS)

    def forward() -> float:
        model.logits(torch.from_numpy(tokens_nS).long())
        return float(TOKENS)

    run = forward if variant == "forward" else evaluate
    weights = (*model.hf.parameters(), *crosscoder.parameters())
    before += sum(weight.nbytes for weight in weights)
    return work(forward, run, lambda found: found, before=before)
