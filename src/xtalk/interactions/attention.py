"""Pair terms of attention: query feature against key feature (QK), source against destination (OV).

QK: with n_t the attention's input, the score of query t and key s is bilinear in both. Removing f_i d_i from
what the query reads and f_j d_j from what the key reads changes it beyond either removal by

    scale f_i(t) f_j(s) <R_t W_Q^T d_i, R_s W_K^T d_j>,

for each head, rotary positions R included. OV: at a fixed pattern A the output is linear in the sources,
whose mixed difference is therefore 0. What a source feature j at s writes along a destination feature i at t,
d'_i its direction in the residual stream after attention, is sum over heads of

    A_ts f_i(t) f_j(s) <d'_i, d_j W_V W_O>,

the mixed difference of <x_t, out_t> in the feature of x_t and that of the source.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.codes import Codes
from xtalk.models.attention import AttentionWeights

AttentionSite = Literal["qk", "ov"]
KEYS = 8  # per query, unless said otherwise
_GROUP_ELEMENTS = 1 << 21  # of a (groups, heads, K, K) intermediate


@dataclass(frozen=True, eq=False)
class AttentionFeatures:
    """The latents' directions as the heads of one block see them: as queries, keys, values, and readers.

    read: d'_i W_O^T, what a destination feature reads of a head's result.
    """

    attention: AttentionWeights
    query_LHh: Float[Tensor, "L H h"]
    key_LHh: Float[Tensor, "L H h"]
    value_LHh: Float[Tensor, "L H h"]
    read_LHh: Float[Tensor, "L H h"]

    @staticmethod
    def of(
        attention: AttentionWeights, source_LD: Float[Tensor, "L D"], destination_LD: Float[Tensor, "L D"]
    ) -> "AttentionFeatures":
        """From the latents' directions at the attention's input, and in the residual stream after it."""
        query, key, value = (
            torch.einsum("ld,hde->lhe", source_LD, W) for W in (attention.W_Q, attention.W_K, attention.W_V)
        )
        read_LHh = torch.einsum("ld,hed->lhe", destination_LD, attention.W_O)
        return AttentionFeatures(attention, query, key, value, read_LHh)

    def qk_terms(
        self, codes: Codes, query_G: Int[Tensor, "G"], key_G: Int[Tensor, "G"]
    ) -> Float[Tensor, "G H K K"]:
        """QK terms of pairs of tokens of one sequence: each slot of the query's with each of the key's."""
        q_SKHh = self._rotated(self.query_LHh, codes)
        k_SKHh = self._rotated(self.key_LHh, codes)
        return self.attention.scale * torch.einsum("gkhe,gjhe->ghkj", q_SKHh[query_G], k_SKHh[key_G])

    def ov_terms(
        self,
        codes: Codes,
        query_G: Int[Tensor, "G"],
        key_G: Int[Tensor, "G"],
        pattern_GH: Float[Tensor, "G H"],
    ) -> Float[Tensor, "G K K"]:
        """OV terms, summed over heads: row the destination's slot, at the query; column the source's."""
        read_SKHh = self.read_LHh[codes.latents] * codes.values[:, :, None, None]
        value_SKHh = self.value_LHh[codes.latents] * codes.values[:, :, None, None]
        weighed_GKHh = read_SKHh[query_G] * pattern_GH[:, None, :, None]
        return torch.einsum("gkhe,gjhe->gkj", weighed_GKHh, value_SKHh[key_G])

    def pair_terms(
        self,
        site: AttentionSite,
        codes: Codes,
        query_G: Int[Tensor, "G"],
        key_G: Int[Tensor, "G"],
        pattern_GH: Float[Tensor, "G H"],
    ) -> Float[Tensor, "G K K"]:
        """What each slot of the query's and each of the key's add: qk's sizes weighed by the pattern, ov's.

        Some groups at a time, so that no intermediate of all heads is large; groups that use about as many
        slots come together, and the slots that none of them uses are left at 0, uncomputed.
        """
        K, H = codes.latents.shape[1], pattern_GH.shape[1]
        used_S = (torch.arange(1, K + 1, device=codes.values.device) * (codes.values != 0)).amax(1)
        used_G = torch.maximum(used_S[query_G], used_S[key_G])
        terms_GKK = codes.values.new_zeros(len(query_G), K, K)
        for g in used_G.argsort().split(max(1, _GROUP_ELEMENTS // (H * K * K))):
            k = int(used_G[g[-1]])
            cut = Codes(codes.latents[:, :k], codes.values[:, :k], codes.n_latents)
            if site == "qk":
                sizes_GHkk = self.qk_terms(cut, query_G[g], key_G[g]).abs()
                terms_GKK[g, :k, :k] = torch.einsum("ghkj,gh->gkj", sizes_GHkk, pattern_GH[g])
            else:
                terms_GKK[g, :k, :k] = self.ov_terms(cut, query_G[g], key_G[g], pattern_GH[g]).abs()
        return terms_GKK

    def _rotated(self, feature_LHh: Tensor, codes: Codes) -> Float[Tensor, "S K H h"]:
        """Each token's active features, scaled by their values, turned by the token's position."""
        x_SKHh = feature_LHh[codes.latents] * codes.values[:, :, None, None]
        return self.attention.rotated(x_SKHh, torch.arange(len(codes.latents), device=x_SKHh.device))


@dataclass(frozen=True, eq=False)
class Attended:
    """Pairs of query and key of one sequence, and what each head of each block attends to them."""

    query_G: Int[Tensor, "G"]
    key_G: Int[Tensor, "G"]
    pattern_bGH: Float[Tensor, "b G H"]

    @staticmethod
    def of(
        attentions: Sequence[AttentionWeights], n_bSD: Sequence[Float[Tensor, "S D"]], keys: int
    ) -> "Attended":
        """For every query the keys that it attends to most, by the mean over blocks and heads.

        n_bSD: the attention's input in each block.
        """
        pattern_bHSS = torch.stack(
            [attention.pattern(n_SD) for attention, n_SD in zip(attentions, n_bSD, strict=True)]
        )
        query_G, key_G = strongest_keys(pattern_bHSS.mean(1).mean(0), keys)
        return Attended(query_G, key_G, pattern_bHSS[:, :, query_G, key_G].transpose(1, 2))

    @property
    def held(self) -> float:
        """The part of the attention that the pairs hold, mean over blocks and heads; at most 1 per query."""
        return float(self.pattern_bGH.mean(2).mean(0).sum())


def strongest_keys(pattern_SS: Float[Tensor, "S S"], keys: int) -> tuple[Int[Tensor, "G"], Int[Tensor, "G"]]:
    """Pairs of query and key: for every query, in order, the keys it attends to most, at most so many."""
    S = len(pattern_SS)
    key_Sm = pattern_SS.topk(min(keys, S), dim=1).indices.sort(dim=1).values
    query_Sm = torch.arange(S, device=pattern_SS.device)[:, None].expand_as(key_Sm)
    seen = pattern_SS.gather(1, key_Sm) > 0
    return query_Sm[seen], key_Sm[seen]
