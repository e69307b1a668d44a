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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.codes import Codes, of_like_width
from xtalk.models.attention import AttentionWeights

AttentionSite = Literal["qk", "ov"]
KEYS = 8  # per query, unless said otherwise
_ELEMENTS = 1 << 18  # of a (groups, heads, K, K) intermediate: 1 MB, which caches hold


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

    def pair_terms(
        self,
        site: AttentionSite,
        codes: Codes,
        query_G: Int[Tensor, "G"],
        key_G: Int[Tensor, "G"],
        pattern_GH: Float[Tensor, "G H"],
    ) -> Float[Tensor, "G K K"]:
        """What each slot of the query's and each of the key's add, for pairs of tokens of one sequence.

        qk: the sizes of the terms, weighed by the pattern; ov: of their sum over heads.
        """
        K = codes.latents.shape[1]
        terms_GKK = codes.values.new_zeros(len(query_G), K, K)
        for g, terms_gkk in self.some_pair_terms(site, codes, query_G, key_G, pattern_GH):
            k = terms_gkk.shape[1]
            terms_GKK[g, :k, :k] = terms_gkk
        return terms_GKK

    def some_pair_terms(
        self,
        site: AttentionSite,
        codes: Codes,
        query_G: Int[Tensor, "G"],
        key_G: Int[Tensor, "G"],
        pattern_GH: Float[Tensor, "G H"],
    ) -> Iterator[tuple[Int[Tensor, "g"], Float[Tensor, "g k k"]]]:
        """`pair_terms` of some pairs of tokens at a time, of the first k slots, as many as they use."""
        used_S = codes.used
        query_SHKh, key_SHKh = self.sides(site, codes)
        used_G = torch.maximum(used_S[query_G], used_S[key_G])
        for g, k in of_like_width(used_G, _ELEMENTS // pattern_GH.shape[1]):
            query_gHkh, key_gHkh = query_SHKh[query_G[g], :, :k], key_SHKh[key_G[g], :, :k]
            pattern_gH11 = pattern_GH[g, :, None, None]
            if site == "qk":
                terms_gHkk = (query_gHkh @ key_gHkh.mT).abs_()
                yield g, terms_gHkk.mul_(pattern_gH11).sum(1)
            else:
                weighed_gkD = (query_gHkh * pattern_gH11).transpose(1, 2).flatten(2)
                yield g, (weighed_gkD @ key_gHkh.transpose(1, 2).flatten(2).mT).abs_()

    def sides(
        self, site: AttentionSite, codes: Codes
    ) -> tuple[Float[Tensor, "S H K h"], Float[Tensor, "S H K h"]]:
        """What each slot of a token is as a query (ov: destination), and as a key (source), by head.

        The inner product of two is their term: for qk, rotary positions and scale included; for ov, without
        the pattern.
        """
        if site == "qk":
            query_SKHh, key_SKHh = (
                self.attention.rotated(
                    active_SKHh, torch.arange(len(codes.latents), device=active_SKHh.device)
                )
                for active_SKHh in (_active(self.query_LHh, codes), _active(self.key_LHh, codes))
            )
            query_SKHh = query_SKHh * self.attention.scale
        else:
            query_SKHh, key_SKHh = _active(self.read_LHh, codes), _active(self.value_LHh, codes)
        return query_SKHh.transpose(1, 2).contiguous(), key_SKHh.transpose(1, 2).contiguous()


def _active(feature_LHh: Float[Tensor, "L H h"], codes: Codes) -> Float[Tensor, "S K H h"]:
    return feature_LHh[codes.latents] * codes.values[:, :, None, None]


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
    """Pairs of query and key: for every query, in order, the `keys` keys that it attends to most."""
    S = len(pattern_SS)
    key_Sm = pattern_SS.topk(min(keys, S), dim=1).indices.sort(dim=1).values
    query_Sm = torch.arange(S, device=pattern_SS.device)[:, None].expand_as(key_Sm)
    seen = pattern_SS.gather(1, key_Sm) > 0
    return query_Sm[seen], key_Sm[seen]
