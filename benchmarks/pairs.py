"""Pair interactions over many tokens against dense accumulation, token by token.

python benchmarks/pairs.py [--tokens 10000] [--dense-tokens 100] [--pairs 5] [--threads 2] [--small]

One block at the paper's size: D 768, N 3072, L 1536, K 20. The dense variant holds all L contributions of a
token and adds each neuron's row to an (L, L) matrix; it runs over the first --dense-tokens, and its time is
scaled up to all of them. The floor is the product that makes M = W_dec W_in. `value` is the norm of the sums
over those first tokens.
"""

import argparse

import numpy as np
import torch
from paired import compare, report, work
from penalty import Inputs, draw

from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.pairs import PairInteractions

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
def main() -> None:
    """Read the options; run one variant where asked to, else all of them in pairs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--dense-tokens", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--variant", choices=("xtalk", "dense", "floor"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.variant:
        report([compare("pairs", "xtalk", "dense", "floor", options.pairs)])
        return
    size = (1, 24, 96, 48, 5) if options.small else (1, 768, 3072, 1536, 20)
    inputs, tiny = draw(options.tokens, *size), draw(128 * options.threads, 1, 8, 16, 12, 3)
    first, every = slice(0, options.dense_tokens), slice(0, options.tokens)
    if options.variant == "floor":
        work(lambda: None, lambda: inputs.decoders[0] @ inputs.mlps[0].W_in, lambda M_LN: float(M_LN.norm()))
    elif options.variant == "dense":
        scale = options.tokens / options.dense_tokens
        work(lambda: dense(tiny, slice(0, 8)), lambda: dense(inputs, first), lambda x: float(x.norm()), scale)
    else:
        work(
            lambda: fast(tiny, slice(0, 256)),
            lambda: fast(inputs, every),
            lambda _: float(np.linalg.norm(fast(inputs, first))),
        )


if __name__ == "__main__":
    main()
