"""Pair interactions over many tokens against dense accumulation, token by token.

One block at the paper's size: D 768, N 3072, L 1536, K 20. The dense variant holds all L contributions of a
token and adds each neuron's row to an (L, L) matrix; it runs over the first 100 of the 10,000 tokens, and its
time is scaled up to all of them. The floor is the product that makes M = W_dec W_in. `value` is the norm of
the sums over those first tokens.
"""

import numpy as np
import torch

from xtalk.benchmarks.paired import Variants, work
from xtalk.benchmarks.penalty import Inputs, draw
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.pairs import PairInteractions

VARIANTS: Variants = ("xtalk", "dense", "floor")
TOKENS = 10_000
DENSE_TOKENS = 100
DOCUMENT = 200  # tokens


def fast(inputs: Inputs, tokens: slice) -> np.ndarray:
    """The sums over those tokens as xtalk computes them, of every pair that occurs."""
    pairs = PairInteractions(inputs.codes.n_latents, ("mlp",))
    bias_D = torch.zeros(inputs.decoders[0].shape[1])
    for start in range(tokens.start, tokens.stop, 2048):
        codes = inputs.codes.slice(start, min(start + 2048, tokens.stop))
        mlp = MlpContributions(inputs.decoders[0], bias_D, codes, inputs.mlps[0])
        pairs.add({"mlp": mlp}, np.arange(start, start + len(codes.latents)) // DOCUMENT)
    return pairs.result().sums_EP


def dense(inputs: Inputs, tokens: slice) -> torch.Tensor:
    """The sums over those tokens, one at a time, from all L contributions."""
    mlp, codes = inputs.mlps[0], inputs.codes.slice(tokens.start, tokens.stop)
    M_LN, norm_N = inputs.decoders[0] @ mlp.W_in, mlp.W_out.norm(dim=1)
    sums_LL = torch.zeros(codes.n_latents, codes.n_latents)
    for f_L in codes.dense():
        p_LN = (f_L[:, None] * M_LN).abs()
        sums_LL.index_add_(0, p_LN.argmax(0), (p_LN * norm_N).T)
    return sums_LL.double().fill_diagonal_(0)


@torch.no_grad()
def measure(variant: str, *, small: bool) -> dict[str, float]:
    """One variant."""
    tokens, dense_tokens = (300, 100) if small else (TOKENS, DENSE_TOKENS)
    size = (1, 24, 96, 48, 5) if small else (1, 768, 3072, 1536, 20)
    inputs, tiny = draw(tokens, *size), draw(128 * torch.get_num_threads(), 1, 8, 16, 12, 3)
    first, every = slice(0, dense_tokens), slice(0, tokens)
    if variant == "floor":
        W_in = inputs.mlps[0].W_in
        return work(lambda: None, lambda: inputs.decoders[0] @ W_in, lambda M_LN: float(M_LN.norm()))
    if variant == "dense":
        scale = tokens / dense_tokens
        return work(
            lambda: dense(tiny, slice(0, 8)), lambda: dense(inputs, first), lambda x: float(x.norm()), scale
        )
    return work(
        lambda: fast(tiny, slice(0, 256)),
        lambda: fast(inputs, every),
        lambda _: float(np.linalg.norm(fast(inputs, first))),
    )
