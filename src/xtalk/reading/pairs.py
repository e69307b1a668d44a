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
from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.interactions.attention import KEYS, Attended, AttentionFeatures, AttentionSite
from xtalk.interactions.norms import linear_parts, scale_change_norms
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.interactions.pairs import PairGroups, PairInteractions
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.models.norms import NormWeights
from xtalk.reading.batches import batches
from xtalk.reading.explained import Explained, ExplainedBatch

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
    top: int | None = None,
    keys: int = KEYS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MeasuredPairs:
    """The pair interactions at some sites, over a text, listing each row's and column's `top` largest.

    The crosscoder is in the model's own units. keys: per query, for qk and ov. `progress` hears of sequences
    done and their number. Errors: XtalkError for a site that the crosscoder has no hookpoints for.
    """
    explained = Explained(model, crosscoder)
    d_sae, attention = crosscoder.config.d_sae, _Attention(explained, keys) if _attends(sites) else None
    norms = _norms(explained) if "norm" in sites else {}
    blocks = explained.blocks if attention is None else attention.blocks
    parts: dict[Site, list[str]] = {site: [f"blocks.{b}" for b in blocks] for site in ("qk", "ov")}
    parts |= {"mlp": [f"blocks.{b}" for b in explained.blocks], "norm": list(norms)}
    found: dict[Site, PairInteractions] = {site: PairInteractions(d_sae, parts[site]) for site in sites}
    done = 0
    for batch in batches(model, sequences):
        read = explained.read(batch)
        if "mlp" in found:
            mlps = {f"blocks.{block}": mlp for block, mlp in read.contributions.items()}
            found["mlp"].add(mlps, read.documents_B)
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


def _norms(explained: Explained) -> dict[str, tuple[NormWeights, int]]:
    """The norms whose input the crosscoder reads, with the hookpoint's index. Errors: XtalkError if none."""
    norms: dict[str, tuple[NormWeights, int]] = {}
    for point in (Hookpoint(b, site) for b in range(explained.model.n_blocks) for site in ("ln1", "ln2")):
        norm, source = explained.model.norm_weights(point)
        if source in explained.index:
            norms[str(point)] = norm, explained.index[source]
    if not norms:
        raise XtalkError(
            "the crosscoder has no resid_pre or resid_mid hookpoint, where norms read; train it on them"
        )
    return norms


def _norm_groups(read: ExplainedBatch, norms: Mapping[str, tuple[NormWeights, int]]) -> PairGroups:
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
    """The attention of the blocks at whose input, and after it, the crosscoder reads."""

    def __init__(self, explained: Explained, keys: int) -> None:
        model, index, W_dec = explained.model, explained.index, explained.crosscoder.W_dec
        self.sites = {
            block: (index[Hookpoint(block, "ln1")], index[Hookpoint(block, "resid_mid")])
            for block in range(model.n_blocks)
            if Hookpoint(block, "ln1") in index and Hookpoint(block, "resid_mid") in index
        }
        if not self.sites:
            raise XtalkError(
                "the crosscoder has no block with hookpoints ln1 and resid_mid, which pairs in attention "
                "need; train it on them"
            )
        self.blocks = tuple(self.sites)
        self._features = [
            AttentionFeatures.of(model.attention_weights(block), W_dec[:, source], W_dec[:, destination])
            for block, (source, destination) in self.sites.items()
        ]
        self._keys = keys
        self._held, self._queries = 0.0, 0

    @property
    def coverage(self) -> float:
        """The part of the attention that the chosen keys held so far."""
        return self._held / self._queries

    def add(self, read: ExplainedBatch, into: Mapping[AttentionSite, PairInteractions]) -> None:
        """Add the pairs of every sequence of a batch."""
        S = read.batch.tokens_mS.shape[1]
        for start in range(0, len(read.documents_B), S):
            rows = slice(start, start + S)
            inputs_bSD = [read.x_BPD[rows, source] for source, _ in self.sites.values()]
            seen = Attended.of([features.attention for features in self._features], inputs_bSD, self._keys)
            self._held += seen.held
            self._queries += S
            codes = read.codes.slice(rows.start, rows.stop)
            latents_SK, active_SK = codes.latents.cpu(), (codes.values != 0).cpu()
            query, key = seen.query_G.cpu(), seen.key_G.cpu()
            sides = (latents_SK[query], active_SK[query], latents_SK[key], active_SK[key])
            for site, pairs in into.items():
                values = [
                    features.pair_terms(site, codes, seen.query_G, seen.key_G, pattern_GH).double().cpu()
                    for features, pattern_GH in zip(self._features, seen.pattern_bGH, strict=True)
                ]
                groups = PairGroups(*sides, torch.stack(values), query)
                pairs.add_groups(groups, latents_SK, active_SK, np.asarray(read.documents_B[rows]))
