"""Pair interactions over many tokens against dense accumulation, token by token.

One block at the paper's size: D 768, N 3072, L 1536, K 20, 10,000 tokens; wide: 4 blocks, D 128, N 512,
L 16384, K 32, 65,536 tokens, whose codes are spread evenly, so that nearly all pairs that meet are new and
memory is the most it can be. The dense variant holds all L contributions of a token and adds each neuron's
row to an (L, L) matrix; it runs over the first 100 tokens (wide: 20), and its time is scaled up to all of
them. The floor is the product that makes M = W_dec W_in. `value` is the norm of the sums over those first
tokens, blocks added up.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.paired import Variants
from benchmarks.penalty import Inputs, draw
from benchmarks.timing import work
from xtalk.codes import Codes
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.pairs import PairInteractions

VARIANTS: Variants = ("xtalk", "dense", "floor")
DOCUMENT = 200  # tokens


@dataclass(frozen=True)
class Size:
    """Tokens, and how many of them the dense variant reads; then what `draw` takes."""

    tokens: int
    dense_tokens: int
    blocks: int
    D: int
    N: int
    L: int
    K: int


PAPER, WIDE = Size(10_000, 100, 1, 768, 3072, 1536, 20), Size(65_536, 20, 4, 128, 512, 16384, 32)
SMALL, SMALL_WIDE = Size(300, 100, 1, 24, 96, 48, 5), Size(300, 100, 3, 24, 96, 60, 5)


def drawn(size: Size) -> Inputs:
    """Random inputs; each token's K codes are one from each of K equal parts of the latents."""
    inputs = draw(1, size.blocks, size.D, size.N, size.L, size.K)
    generator, part = torch.Generator().manual_seed(1), size.L // size.K
    latents_BK = torch.randint(part, (size.tokens, size.K), generator=generator) + part * torch.arange(size.K)
    values_BK = torch.rand(size.tokens, size.K, generator=generator)
    return replace(inputs, codes=Codes(latents_BK, values_BK, size.L))


def fast(inputs: Inputs, tokens: slice) -> np.ndarray:
    """The sums over those tokens as xtalk computes them, of every pair that occurs, blocks added up."""
    parts = [f"blocks.{block}" for block in range(len(inputs.mlps))]
    pairs = PairInteractions(inputs.codes.n_latents, parts)
    bias_D = torch.zeros(inputs.decoders[0].shape[1])
    for start in range(tokens.start, tokens.stop, 2048):
        codes = inputs.codes.slice(start, min(start + 2048, tokens.stop))
        mlps = {
            part: MlpContributions(decoder_LD, bias_D, codes, mlp)
            for part, decoder_LD, mlp in zip(parts, inputs.decoders, inputs.mlps, strict=True)
        }
        pairs.add(mlps, np.arange(start, start + len(codes.latents)) // DOCUMENT)
    return pairs.result().sums_EP.sum(1)


def dense(inputs: Inputs, tokens: slice) -> torch.Tensor:
    """The sums over those tokens, one at a time, from all L contributions, blocks added up."""
    codes = inputs.codes.slice(tokens.start, tokens.stop)
    sums_LL = torch.zeros(codes.n_latents, codes.n_latents)
    for decoder_LD, mlp in zip(inputs.decoders, inputs.mlps, strict=True):
        M_LN, norm_N = decoder_LD @ mlp.W_in, mlp.W_out.norm(dim=1)
        for f_L in codes.dense():
            p_LN = (f_L[:, None] * M_LN).abs()
            sums_LL.index_add_(0, p_LN.argmax(0), (p_LN * norm_N).T)
    return sums_LL.double().fill_diagonal_(0)


@torch.no_grad()
def measure(variant: str, *, small: bool, wide: bool = False) -> dict[str, float]:
    """One variant."""
    size = (SMALL_WIDE if wide else SMALL) if small else (WIDE if wide else PAPER)
    inputs, tiny = drawn(size), draw(128 * torch.get_num_threads(), 1, 8, 16, 12, 3)
    first, every = slice(0, size.dense_tokens), slice(0, size.tokens)
    if variant == "floor":
        products = list(zip(inputs.decoders, inputs.mlps, strict=True))
        return work(
            lambda: None,
            lambda: [decoder_LD @ mlp.W_in for decoder_LD, mlp in products],
            lambda found: float(found[0].norm()),
        )
    if variant == "dense":
        scale = size.tokens / size.dense_tokens
        return work(
            lambda: dense(tiny, slice(0, 8)), lambda: dense(inputs, first), lambda x: float(x.norm()), scale
        )
    return work(
        lambda: fast(tiny, slice(0, 256)),
        lambda: fast(inputs, every),
        lambda _: float(np.linalg.norm(fast(inputs, first))),
    )
