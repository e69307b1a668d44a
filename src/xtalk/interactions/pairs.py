"""The pair interactions I(i, j) of an MLP: how much latent j adds where i dominates (DESIGN section 3)."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.interactions import kernels
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.measures import interaction_weights

Normaliser = Literal["none", "co_occurrence", "relative"]

_CHUNK_ELEMENTS = 1 << 25  # of a (tokens, K, N) or (tokens, K, K) intermediate: at most 256 MB


class PairInteractions:
    """The interaction of every ordered pair of latents at one MLP, summed over tokens; 12 L^2 bytes.

    For a token, I(i, j) = sum over neurons k with i*(k) = i of ||W_out[k]|| |p_kj|, j != i; for a gated MLP,
    of what `interaction` charges for j. Over all pairs that adds up to the token's interaction T. Sums are
    float64 and do not depend on the number of threads.

    sums_LL: I(i, j), row i the dominant latent; co_active_LL: tokens at which i and j are both active, on the
    diagonal those at which i is; total: what sums_LL would add up to with the dominant contributions too.
    """

    def __init__(self, n_latents: int) -> None:
        self.sums_LL = torch.zeros(n_latents, n_latents, dtype=torch.float64)
        self.co_active_LL = torch.zeros(n_latents, n_latents, dtype=torch.int32)
        self.total = 0.0
        self.tokens = 0

    @torch.no_grad()
    def add(self, mlp: MlpContributions) -> None:
        """Add a batch of tokens. Errors: XtalkError if its codes have another number of latents."""
        L, (B, K) = len(self.sums_LL), mlp.codes.latents.shape
        if mlp.codes.n_latents != L:
            raise XtalkError(f"codes of {mlp.codes.n_latents} latents; expected {L}, as in the first batch")
        weights = interaction_weights(mlp)
        step = max(1, _CHUNK_ELEMENTS // (K * max(K, len(mlp.output_norm_N))))
        for start in range(0, B, step):
            chunk = slice(start, start + step)
            blocks_BKK = _pair_blocks(mlp, weights, chunk)
            self.total += float(blocks_BKK.sum())
            blocks_BKK.diagonal(dim1=1, dim2=2).zero_()
            latents_BK = mlp.codes.latents[chunk].cpu()
            active_BK = mlp.codes.values[chunk].cpu() != 0
            cells = (latents_BK[:, :, None] * L + latents_BK[:, None]).flatten()
            together = (active_BK[:, :, None] & active_BK[:, None]).flatten()
            # index_add sums the writes of a repeated cell, which `sums[i, j] += x` would lose
            self.sums_LL.view(-1).index_add_(0, cells, blocks_BKK.flatten())
            self.co_active_LL.view(-1).index_add_(0, cells, together.int())
        self.tokens += B

    @property
    def active_L(self) -> Int[Tensor, "L"]:
        """At how many tokens each latent is active."""
        return self.co_active_LL.diagonal().clone()

    def matrix(self, normaliser: Normaliser = "none") -> Float[Tensor, "L L"]:
        """I(i, j), row i the dominant latent, as float64 on the CPU.

        none: mean over tokens; the matrix sums to the mean T. co_occurrence: mean over the tokens at which
        both are active, 0 where there are none. relative: over the mean of sum_k ||W_out[k]|| sum_i |p_ki|,
        so that the matrix sums to at most 1: the part of all contributions that is not dominant.
        Errors: XtalkError for an unknown normaliser, and before any token was added.
        """
        if self.tokens == 0:
            raise XtalkError("pair interactions of no tokens; add a batch first")
        if normaliser == "none":
            return self.sums_LL / self.tokens
        if normaliser == "co_occurrence":
            return self.sums_LL / self.co_active_LL.clamp(min=1)
        if normaliser == "relative":
            return self.sums_LL / self.total if self.total else self.sums_LL.clone()
        raise XtalkError(
            f"unknown normaliser {normaliser!r}; expected one of {', '.join(get_args(Normaliser))}"
        )


def sum_over_blocks(blocks: Sequence[PairInteractions]) -> PairInteractions:
    """The pair interactions of several blocks at the same tokens, added up.

    Errors: XtalkError if they come from different tokens.
    """
    summed = PairInteractions(len(blocks[0].sums_LL))
    summed.tokens, summed.co_active_LL = blocks[0].tokens, blocks[0].co_active_LL.clone()
    for block in blocks:
        if block.tokens != summed.tokens or not torch.equal(block.co_active_LL, summed.co_active_LL):
            raise XtalkError(
                f"blocks measured at different tokens ({block.tokens} and {summed.tokens}); "
                "expected the same codes for every block"
            )
        summed.sums_LL += block.sums_LL
        summed.total += block.total
    return summed


def _pair_blocks(mlp: MlpContributions, weights: Sequence[Tensor], chunk: slice) -> Float[Tensor, "B K K"]:
    """What slot j adds where slot i dominates, token by token; the dominant's own part on the diagonal."""
    codes, slots_BN = mlp.codes.slice(chunk.start, chunk.stop), mlp.dominant_BN[chunk]
    B, K = codes.latents.shape
    blocks_BKK = torch.zeros(B, K, K, dtype=torch.float64)
    for path, weight_BN in zip(mlp.paths, weights, strict=True):
        args = (path.M_LN, codes.latents, codes.values, slots_BN, weight_BN[chunk])
        if slots_BN.device.type == "cpu":
            kernels.add_pair_blocks(*args, blocks_BKK)
        else:
            blocks_BKK += _pair_blocks_by_matmul(*args).cpu()
    return blocks_BKK


def _pair_blocks_by_matmul(
    M_LN: Tensor, latents_BK: Tensor, values_BK: Tensor, slots_BN: Tensor, weight_BN: Tensor
) -> Float[Tensor, "B K K"]:
    """As `kernels.add_pair_blocks`, for any device."""
    charge_BKN = (M_LN[latents_BK] * values_BK[:, :, None]).abs() * weight_BN[:, None]
    slot_K = torch.arange(latents_BK.shape[1], device=slots_BN.device)
    dominates_BKN = (slots_BN[:, None] == slot_K[:, None]).to(charge_BKN.dtype)
    return dominates_BKN @ charge_BKN.transpose(1, 2)
