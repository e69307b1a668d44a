"""Measures of interaction judged by interventions: does I(i, j) rank what removing features does?

The held-out text is cut in two. On the first half the measures are taken, on the second the interventions are
made; a document that the cut divides counts for the first alone, so that no measure is judged on documents
that it was read from. Pairs of latents that were active together are drawn by block, equally many from each
tenth of them in order of I(i, j), so that they stand for all such pairs. An intervention removes one latent's
part f_i d_i, the other's, or both, from what the model's own MLP reads at a token where both are active: of a
dictionary in the residual stream, from what the norm in front of the MLP reads, whose scale then changes too.
The effect is what removing both does beyond removing each, through this MLP alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import csc_array, csr_array, vstack

from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL, Counted, TokenSequences
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.evaluation.interventions import Occurrences, loss_effects, mixed, removed
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.interactions.pairs import PairInteractions
from xtalk.interactions.true_interaction import mixed_difference
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import Batch, batches
from xtalk.reading.explained import Explained
from xtalk.statistics.correlation import Correlated, Effects, mean_correlated, rank_correlations
from xtalk.statistics.interval import Interval

Effect = Literal["output", "loss"]
Weighting = Literal["occurrence", "text"]
MEASURES = ("interaction", "true_interaction", "co_activation", "co_activation_count", "decoder", "size")
BASELINES = ("co_activation", "co_activation_count")
CONTROL = "size"
STRATA = 10
FEWEST = 8  # occurrences of a pair in either half
FEWEST_PAIRS = 20


@dataclass(frozen=True)
class ValidationConfig:
    """How much is done: pairs per block, how many of them also for the loss, occurrences of each."""

    pairs: int = 200
    loss_pairs: int = 50
    occurrences: int = 32
    loss_occurrences: int = 8
    resamples: int = 1000


@dataclass(frozen=True)
class Validation:
    """How well one measure ranks one effect at one block, or the mean of that over blocks.

    effect: "output", the norm of the mixed change of the MLP's output; "loss", the size of that of the loss
    of the next 16 tokens. weighting: "occurrence", per token at which both are active; "text", per token of
    text, so that frequent pairs count for more. rho: Spearman, 95 % over pairs; documents: over documents;
    lead: over the better of the two forms of co-activation, 95 % over pairs; beyond_size: Spearman's partial
    correlation given `size`, 95 % over pairs.
    """

    block: int | Literal["mean"]
    measure: str
    effect: Effect
    weighting: Weighting
    pairs: int
    rho: Interval
    documents: Interval
    lead: Interval
    beyond_size: Interval


@dataclass(frozen=True)
class _Half:
    """One half of the text and which latents are active where: codes (tokens, L) by row and by column.

    counted_nS: which tokens count; tokens: how many of them, in documents that count; the codes of all others
    are left out.
    """

    sequences: TokenSequences
    counted_nS: Bool[np.ndarray, "n S"]
    tokens: int
    codes_TL: csr_array
    by_latent: csc_array

    @cached_property
    def counts_LL(self) -> csr_array:
        """At how many tokens both of two latents are active."""
        active = self.codes_TL.astype(bool).astype(np.float32)
        return csr_array(active.T @ active)

    @cached_property
    def products_LL(self) -> csr_array:
        """The products of two latents' activations, summed over tokens."""
        return csr_array(self.codes_TL.T @ self.codes_TL)

    def together(self, i: int, j: int) -> Int[np.ndarray, "Z"]:
        """The tokens at which both are active."""
        start = self.by_latent.indptr
        tokens = (self.by_latent.indices[start[latent] : start[latent + 1]] for latent in (i, j))
        return np.intersect1d(*tokens, assume_unique=True)


def validate_interactions(
    model: LanguageModel,
    crosscoder: Crosscoder,
    sequences: TokenSequences,
    config: ValidationConfig,
    *,
    seed: int,
    counted: Counted = ALL,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Validation, ...]:
    """Rank-correlate each measure of `MEASURES` with the effects of interventions, by block and in the mean.

    interaction: I(i, j) + I(j, i); true_interaction: mean norm of the mixed difference at the crosscoder's
    reconstruction; co_activation: cosine of the latents' activations; co_activation_count; decoder: |cosine|
    of their directions at the MLP's input; size: the product of the mean norms of their parts f_i d_i there,
    a control: strong features do more, whichever they are. The crosscoder is in the model's own units.
    `seed` decides pairs, occurrences and resamples; measures are taken, features removed and losses added up
    at tokens that count. `progress` hears of steps done and their number.
    Errors: XtalkError for a text of one sequence, or too few pairs that are active together.
    """
    explained = Explained(model, crosscoder)
    steps, done = 2 + 2 * len(explained.blocks), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, steps)

    pairs = PairInteractions(crosscoder.config.d_sae, [f"blocks.{b}" for b in explained.blocks])
    cut = len(sequences) // 2
    if cut < 1:
        raise XtalkError("a text of one sequence; measures and interventions need one each; give more text")
    measured = _read(explained, sequences, counted, slice(0, cut), pairs=pairs)
    advance()
    intervened = _read(explained, sequences, counted, slice(cut, None), seen=sequences.documents[:cut])
    advance()
    matrix, found = pairs.result(), list[_OfBlock]()
    for block in explained.blocks:
        generator = np.random.default_rng([seed, block])
        pairs_Q2 = _draw_pairs(matrix, f"blocks.{block}", measured, intervened, config.pairs, generator)
        chosen = [_occurrences(h, pairs_Q2, config.occurrences, generator) for h in (measured, intervened)]
        measures = _measures(explained, block, matrix, measured, pairs_Q2, chosen[0])
        advance()
        effects = _effects(explained, block, intervened, pairs_Q2, chosen[1], config)
        advance()
        often_Q = np.asarray(intervened.counts_LL[pairs_Q2[:, 0], pairs_Q2[:, 1]]).ravel()
        weights: dict[Weighting, np.ndarray] = {
            "occurrence": np.ones(len(pairs_Q2)),
            "text": often_Q / intervened.tokens,
        }
        for effect, of in effects.items():
            few = len(of.sums_QE)
            for weighting, weight_Q in weights.items():
                values = {name: values_Q[:few] for name, values_Q in measures[weighting].items()}
                correlated = rank_correlations(values, of, weight_Q[:few], CONTROL, config.resamples, seed)
                found.append(_OfBlock(block, effect, weighting, few, correlated))
    return tuple(row for one in (*found, *_means(found)) for row in _rows(one))


@dataclass(frozen=True)
class _OfBlock:
    """The measures' correlations with one effect at one block, or their mean over blocks."""

    block: int | Literal["mean"]
    effect: Effect
    weighting: Weighting
    pairs: int
    correlated: Correlated


def _means(found: Sequence[_OfBlock]) -> Iterator[_OfBlock]:
    """The mean over blocks, for each effect and weighting."""
    kinds: list[tuple[Effect, Weighting]] = [(one.effect, one.weighting) for one in found]
    for effect, weighting in dict.fromkeys(kinds):
        blocks = [one for one in found if (one.effect, one.weighting) == (effect, weighting)]
        mean = mean_correlated([one.correlated for one in blocks])
        yield _OfBlock("mean", effect, weighting, sum(one.pairs for one in blocks), mean)


def _rows(one: _OfBlock) -> list[Validation]:
    def row(m: str) -> Validation:
        found = one.correlated
        estimates = found.over_pairs(m), found.over_documents(m), found.lead(m, BASELINES)
        beyond = found.beyond_control(m)
        return Validation(one.block, m, one.effect, one.weighting, one.pairs, *estimates, beyond)

    return [row(measure) for measure in MEASURES]


@torch.no_grad()
def _read(
    explained: Explained,
    sequences: TokenSequences,
    counted: Counted,
    part: slice,
    *,
    pairs: PairInteractions | None = None,
    seen: Int[np.ndarray, "n S"] | None = None,
) -> _Half:
    """A half of the text: the codes, of documents not yet `seen`; added to the pair interactions if given."""
    half = token_sequences(sequences.tokens[part], sequences.documents[part])
    counted_nS, codes = counted.mask(half.tokens), list[csr_array]()
    for batch in explained.batches(half, counted_nS):
        read = explained.read(batch)
        codes.append(csr_array(read.codes_everywhere.dense().cpu().numpy()))
        if pairs is not None:
            pairs.add(read.contributions.named("blocks.{}".format), read.documents_B)
    new_T = np.isin(half.documents.ravel(), [] if seen is None else seen, invert=True)
    codes_TL = csr_array(vstack(codes).multiply(new_T[:, None]))
    codes_TL.eliminate_zeros()
    tokens = int((new_T & counted_nS.ravel()).sum())
    return _Half(half, counted_nS, tokens, codes_TL, csc_array(codes_TL))


def _draw_pairs(
    matrix: PairMatrix,
    part: str,
    measured: _Half,
    intervened: _Half,
    count: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, "Q 2"]:
    """Pairs i < j that occur often enough in both halves, equally many of every tenth by I(i, j).

    In random order. Errors: XtalkError if there are too few.
    """
    upper = matrix.interactions(part, symmetric=True).tocoo()
    i_Q, j_Q = upper.coords
    candidates = np.flatnonzero(i_Q < j_Q)
    for half in (measured, intervened):
        often = np.asarray(half.counts_LL[i_Q[candidates], j_Q[candidates]])
        candidates = candidates[often >= FEWEST]
    if len(candidates) < FEWEST_PAIRS:
        raise XtalkError(
            f"{len(candidates)} pairs of latents are active together at {FEWEST} tokens of either half of "
            f"the text; expected {FEWEST_PAIRS} or more; give more text"
        )
    ordered = candidates[np.argsort(upper.data[candidates], kind="stable")]
    strata = np.array_split(ordered, STRATA)
    each = -(-count // STRATA)
    drawn = np.concatenate([generator.permutation(stratum)[:each] for stratum in strata])
    drawn = generator.permutation(drawn)[:count]
    return np.stack([i_Q[drawn], j_Q[drawn]], axis=1)


def _occurrences(
    half: _Half, pairs_Q2: Int[np.ndarray, "Q 2"], most: int, generator: np.random.Generator
) -> Occurrences:
    """At most `most` of the tokens at which both latents of a pair are active, drawn at random."""
    tokens = [generator.permutation(half.together(*pair))[:most] for pair in pairs_Q2.tolist()]
    pair_Z = np.repeat(np.arange(len(tokens)), [len(t) for t in tokens])
    return Occurrences(pair_Z, np.concatenate(tokens))


@torch.no_grad()
def _measures(
    explained: Explained,
    block: int,
    matrix: PairMatrix,
    half: _Half,
    pairs_Q2: Int[np.ndarray, "Q 2"],
    chosen: Occurrences,
) -> dict[Weighting, dict[str, Float[np.ndarray, "Q"]]]:
    """Every measure of every pair, per occurrence and per token of text."""
    i_Q, j_Q = pairs_Q2.T
    part, Q = f"blocks.{block}", len(pairs_Q2)
    d_LD = explained.decoder(block)
    found: list[np.ndarray] = []
    start = 0
    for batch in batches(explained.model, half.sequences, counted_nS=half.counted_nS):
        here = chosen.between(start, start + batch.tokens_mS.numel())
        start += batch.tokens_mS.numel()
        if len(here.pair_Z):
            contributions = explained.read(batch).contributions[block]
            tokens, codes = torch.from_numpy(_among_counted(batch, here)), contributions.codes
            slots = (_slots(codes, tokens, latents[here.pair_Z]) for latents in (i_Q, j_Q))
            D_ZD = mixed_difference(contributions, tokens, *slots)
            f_BL = codes.dense()
            parts = (f_BL[tokens, torch.from_numpy(latents[here.pair_Z])] for latents in (i_Q, j_Q))
            rows = torch.stack([D_ZD.norm(dim=1), *parts]).double().cpu().numpy()
            found.append(np.vstack([here.pair_Z, rows]))
    pair_Z, *values = np.hstack(found)
    sums_3Q = [np.bincount(pair_Z.astype(int), value_Z, Q) for value_Z in values]
    true_Q, f_i, f_j = np.stack(sums_3Q) / np.bincount(chosen.pair_Z, minlength=Q)
    count_Q = np.asarray(half.counts_LL[i_Q, j_Q]).ravel().astype(float)
    often_Q = count_Q / half.tokens
    norms_L = np.sqrt(half.products_LL.diagonal())
    d_i, d_j = d_LD[torch.from_numpy(i_Q)], d_LD[torch.from_numpy(j_Q)]
    sizes = (torch.norm(d, dim=1).double().cpu().numpy() for d in (d_i, d_j))
    size_Q = f_i * f_j * np.prod(list(sizes), axis=0)
    alike = {
        "co_activation": np.asarray(half.products_LL[i_Q, j_Q]).ravel() / (norms_L[i_Q] * norms_L[j_Q]),
        "co_activation_count": count_Q,
        "decoder": torch.cosine_similarity(d_i, d_j, dim=1).abs().double().cpu().numpy(),
    }
    pairs = (
        matrix.interactions(part, normaliser, symmetric=True) for normaliser in ("co_occurrence", "none")
    )
    per_occurrence, per_token = (np.asarray(pair[i_Q, j_Q]).ravel() for pair in pairs)
    return {
        "occurrence": {"interaction": per_occurrence, "true_interaction": true_Q, **alike, "size": size_Q},
        "text": {
            "interaction": per_token,
            "true_interaction": true_Q * often_Q,
            **alike,
            "size": size_Q * often_Q,
        },
    }


def _among_counted(batch: Batch, here: Occurrences) -> Int[np.ndarray, "Z"]:
    """The places of occurrences among the tokens of a batch that count, which all of them do."""
    return np.searchsorted(batch.places_B, here.token_Z)


def _slots(codes: Codes, tokens: torch.Tensor, latents: Int[np.ndarray, "Z"]) -> torch.Tensor:
    """The slots of active latents at tokens."""
    wanted = torch.from_numpy(latents).to(codes.latents.device)[:, None]
    return ((codes.latents[tokens] == wanted) & (codes.values[tokens] != 0)).int().argmax(1)


@torch.no_grad()
def _effects(
    explained: Explained,
    block: int,
    half: _Half,
    pairs_Q2: Int[np.ndarray, "Q 2"],
    chosen: Occurrences,
    config: ValidationConfig,
) -> dict[Effect, Effects]:
    """The effects of interventions on the model's own activations, by document."""
    model, place, d_LD = explained.model, explained.places[block], explained.directions(block)
    rank_Z = np.arange(len(chosen.pair_Z)) - np.searchsorted(chosen.pair_Z, chosen.pair_Z)
    for_loss_Z = (chosen.pair_Z < config.loss_pairs) & (rank_Z < config.loss_occurrences)
    found: dict[Effect, list[np.ndarray]] = {"output": [], "loss": []}
    start = 0
    for batch in batches(model, half.sequences, counted_nS=half.counted_nS):
        stop = start + batch.tokens_mS.numel()
        here = chosen.between(start, stop)
        loss_here = for_loss_Z[(chosen.token_Z >= start) & (chosen.token_Z < stop)]
        start = stop
        if not len(here.pair_Z):
            continue
        read = explained.read(batch, (*explained.around_mlps(batch), place.stream))
        token_Z = torch.from_numpy(_among_counted(batch, here))
        f_BL, latents = read.codes.dense(), torch.from_numpy(pairs_Q2[here.pair_Z])
        parts = (f_BL[token_Z, latent_Z][:, None] * d_LD[latent_Z] for latent_Z in latents.unbind(1))
        stream_BD = read.captured(place.stream)
        out_4ZD = model.added(block, removed(place.mlp_output, stream_BD[token_Z], *parts))
        where = np.stack([here.pair_Z, read.documents_B[token_Z.numpy()]]).astype(float)
        found["output"].append(np.vstack([where, mixed(out_4ZD).norm(dim=1).double().cpu().numpy()]))
        if loss_here.any():
            added_BD = model.added(block, place.mlp_output(stream_BD))
            post_BD = read.captured(Hookpoint(block, "resid_mid")) + added_BD
            post_mSD = read.spliced(post_BD, Hookpoint(block, "resid_post"))
            use, place_Z = torch.from_numpy(loss_here), torch.from_numpy(here.token_Z)
            change_Z = loss_effects(
                model, block, post_mSD, batch.tokens_mS, place_Z[use], out_4ZD[:, use], batch.counted_mS
            )
            found["loss"].append(np.vstack([where[:, loss_here], change_Z.abs().numpy()]))
    documents = len(np.unique(half.sequences.documents))
    sizes: dict[Effect, int] = {"output": len(pairs_Q2), "loss": min(config.loss_pairs, len(pairs_Q2))}
    return {effect: _by_document(np.hstack(rows), sizes[effect], documents) for effect, rows in found.items()}


def _by_document(rows_3Z: Float[np.ndarray, "3 Z"], pairs: int, documents: int) -> Effects:
    """Effects from rows of pair, document and value."""
    cell_Z = (rows_3Z[0] * documents + rows_3Z[1]).astype(int)
    shape, size = (pairs, documents), pairs * documents
    sums = np.bincount(cell_Z, rows_3Z[2], size).reshape(shape)
    return Effects(sums, np.bincount(cell_Z, minlength=size).reshape(shape).astype(float))
