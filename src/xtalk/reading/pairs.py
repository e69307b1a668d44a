"""Pair interactions of a crosscoder over a text: at the MLPs, in attention (QK and OV), and in the norms.

What is added up for an ordered pair (i, j), as a mean over the tokens of the text:

- mlp: ||W_out[k]|| |p_kj| over the neurons k that i dominates (`PairInteractions`);
- qk: over the keys s of query t and the heads, A_ts |score term of i at t and j at s|, A the model's pattern;
- ov: over the keys s of query t, |OV term of i at t and j at s| (`xtalk.interactions.attention`);
- norm: half of ||D_ij||, the change of scale, to either order (`xtalk.interactions.norms`).

qk and ov take, for every query, the keys that it attends to most, by the mean over blocks and heads.
The relative normaliser divides by all terms; in norms by the features' linear parts as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL, Counted, TokenSequences
from xtalk.interactions.attention import KEYS, AttentionSite
from xtalk.interactions.norms import linear_parts, scale_change_norms
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.interactions.pairs import PairGroups, PairInteractions
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.models.norms import NormWeights
from xtalk.reading.explained import Explained, ExplainedBatch
from xtalk.reading.sites import ReadAttention, read_norms

Site = Literal["mlp", "qk", "ov", "norm"]
SITES: tuple[Site, ...] = get_args(Site)


@dataclass(frozen=True)
class MeasuredPairs:
    """A matrix per site, and the part of the attention that the chosen keys hold, mean over blocks and heads.

    coverage: 1 where every key was taken, None where attention was not measured.
    """

    matrices: dict[Site, PairMatrix]
    coverage: float | None


@torch.no_grad()
def measure_pairs(
    model: LanguageModel,
    crosscoder: Crosscoder,
    sequences: TokenSequences,
    sites: Sequence[Site] = ("mlp",),
    *,
    counted: Counted = ALL,
    top: int | None = None,
    keys: int = KEYS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MeasuredPairs:
    """The pair interactions at some sites, over a text, listing each row's and column's `top` largest.

    The crosscoder is in the model's own units. counted: the tokens that the mean is over; in attention, that
    are queries and keys. keys: per query, for qk and ov. `progress` hears of sequences
    done and their number. Errors: XtalkError for a site that the crosscoder has no hookpoints for.
    """
    explained = Explained(model, crosscoder)
    d_sae, attention = crosscoder.config.d_sae, _Attention(explained, keys) if _attends(sites) else None
    norms = read_norms(explained) if "norm" in sites else {}

    def parts(site: Site) -> list[str]:
        if site == "norm":
            return list(map(str, norms))
        blocks = attention.blocks if attention is not None and site in ("qk", "ov") else explained.blocks
        return [f"blocks.{block}" for block in blocks]

    found: dict[Site, PairInteractions] = {site: PairInteractions(d_sae, parts(site)) for site in sites}
    done = 0
    for batch in explained.batches(sequences, counted.mask(sequences.tokens)):
        read = explained.read(batch)
        if "mlp" in found:
            found["mlp"].add(read.contributions.named("blocks.{}".format), read.documents_B)
        if "norm" in found:
            _add(found["norm"], read, _norm_groups(read, norms))
        if attention is not None:
            attention.add(read, {site: pairs for site, pairs in found.items() if site in ("qk", "ov")})
        done += len(batch.tokens_mS)
        progress(done, len(sequences))
    matrices: dict[Site, PairMatrix] = {site: pairs.result(top) for site, pairs in found.items()}
    return MeasuredPairs(matrices, None if attention is None else attention.coverage)


def _attends(sites: Sequence[Site]) -> bool:
    return "qk" in sites or "ov" in sites


def _active(read: ExplainedBatch) -> tuple[Int[Tensor, "B K"], Bool[Tensor, "B K"]]:
    return read.codes.latents.cpu(), (read.codes.values != 0).cpu()


def _add(pairs: PairInteractions, read: ExplainedBatch, groups: PairGroups) -> None:
    pairs.add_groups(groups, *_active(read), np.asarray(read.documents_B))


def _norm_groups(read: ExplainedBatch, norms: Mapping[Hookpoint, tuple[NormWeights, int]]) -> PairGroups:
    """Half the change of scale to either order; a feature's linear part with itself, for the total."""
    values: list[Tensor] = []
    for norm, p in norms.values():
        x_BD, d_LD = read.x_BPD[:, p], read.explained.crosscoder.W_dec[:, p]
        halves_BKK = scale_change_norms(norm, x_BD, d_LD, read.codes) / 2
        own_BK = linear_parts(norm, x_BD, d_LD, read.codes).norm(dim=2).double()
        values.append((halves_BKK + torch.diag_embed(own_BK)).cpu())
    latents_BK, active_BK = _active(read)
    tokens_B = torch.arange(len(latents_BK))
    return PairGroups(latents_BK, active_BK, latents_BK, active_BK, torch.stack(values), tokens_B)


class _Attention:
    """Adds pairs in attention, and up how much of the attention the chosen keys hold."""

    def __init__(self, explained: Explained, keys: int) -> None:
        self._attention, self._keys = ReadAttention.of(explained), keys
        self.blocks = tuple(self._attention.features)
        self._held, self._queries = 0.0, 0

    @property
    def coverage(self) -> float:
        """The part of the attention that the chosen keys held so far."""
        return self._held / self._queries

    def add(self, read: ExplainedBatch, into: Mapping[AttentionSite, PairInteractions]) -> None:
        """Add the pairs of every sequence of a batch."""
        for row, codes, seen in self._attention.sequences(read, self._keys):
            counted_S = read.batch.counted_mS[row]
            documents = read.batch.documents_mS[row, counted_S]
            self._held += seen.held
            self._queries += int(counted_S.sum())
            latents_SK, active_SK = codes.latents.cpu(), (codes.values != 0).cpu()
            query, key = seen.query_G.cpu(), seen.key_G.cpu()
            at, place_S = torch.from_numpy(counted_S), torch.from_numpy(counted_S.cumsum() - 1)
            sides = (latents_SK[query], active_SK[query], latents_SK[key], active_SK[key])
            for site, pairs in into.items():
                values = [
                    features.pair_terms(site, codes, seen.query_G, seen.key_G, pattern_GH).double().cpu()
                    for features, pattern_GH in zip(
                        self._attention.features.values(), seen.pattern_bGH, strict=True
                    )
                ]
                groups = PairGroups(*sides, torch.stack(values), place_S[query])
                pairs.add_groups(groups, latents_SK[at], active_SK[at], documents)
