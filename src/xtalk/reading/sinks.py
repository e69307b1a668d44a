"""Attention sinks: positions and tokens whose activations are out of all proportion, found in a text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from xtalk.data import Counted, TokenSequences, token_texts
from xtalk.data.tokens import token_sequences
from xtalk.models.hookpoints import Hookpoint, Site
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import batches

SEQUENCES = 16  # that are looked at
POSITION, TOKEN = 5.0, 20.0
"""How many times a hookpoint's median norm is out of proportion, for a position and for a token.

A position costs one token of each sequence, a token all of its places: some models write a common word a few
times larger than others, and leaving that out would leave out language.
"""
LATEST = 4  # positions from the start that are looked at
OFTEN = 0.25  # of a token's places that are out of proportion: fewer are left in


@dataclass(frozen=True)
class Sinks:
    """What was found: first positions and tokens, with the largest norm of either over the median.

    positions: how many first ones; tokens: ids with their ratio, largest first; where: the hookpoint at which
    positions stand out most.
    """

    positions: int
    position_ratio: float
    tokens: dict[int, float]
    where: Hookpoint | None

    @property
    def counted(self) -> Counted:
        """Every token but these."""
        return Counted(self.positions, frozenset(self.tokens))

    def sentence(self, model: LanguageModel) -> str | None:
        """What is left out and why, in one line; None where nothing is."""
        parts: list[str] = []
        if self.positions:
            what = "the first position" if self.positions == 1 else f"the first {self.positions} positions"
            times = f"{self.position_ratio:.0f} times the median at {self.where}"
            parts.append(f"{what} of every sequence, with norms {times}")
        if self.tokens:
            ids, tokenizer = list(self.tokens), model.tokenizer
            texts = ids if tokenizer is None else (token_texts(tokenizer, [i], inside=True)[0] for i in ids)
            names = [repr(text) for text in texts]
            times = max(self.tokens.values())
            parts.append(f"the tokens {', '.join(names)}, with norms up to {times:.0f} times the median")
        if not parts:
            return None
        return f"attention sinks are left out of training and of every figure: {'; '.join(parts)}"


@torch.no_grad()
def find_sinks(model: LanguageModel, sequences: TokenSequences, hookpoints: Sequence[Hookpoint]) -> Sinks:
    """The positions and tokens of the first 16 sequences whose norms are out of all proportion.

    Looked at are the residual streams of the hookpoints' blocks, from which norms and MLPs read. A position
    is a sink if it is one of the first four, all before it are, and in most sequences its norm is more than 5
    times the median of all tokens at some place; a token, if its norm is more than 20 times the median at a
    quarter of its other places and in two sequences. Of the embedded model there is none.
    """
    some = token_sequences(sequences.tokens[:SEQUENCES], sequences.documents[:SEQUENCES])
    ratios = _ratios(model, some, _streams(hookpoints))
    by_position = {point: np.median(ratio_nS, axis=0) for point, ratio_nS in ratios.items()}
    where = max(by_position, key=lambda point: by_position[point][0])
    largest_S = np.max(list(by_position.values()), axis=0)
    within = (largest_S > POSITION)[: min(LATEST, some.length - 1)]
    positions = len(within) if within.all() else int(within.argmin())
    largest_nS = np.max(list(ratios.values()), axis=0)[:, positions:]
    tokens = _tokens(some.tokens[:, positions:], largest_nS)
    return Sinks(positions, float(largest_S[0]), tokens, where if positions else None)


def _streams(hookpoints: Sequence[Hookpoint]) -> list[Hookpoint]:
    """The residual stream that each hookpoint reads: normalised activations are all of like size."""
    sources: dict[Site, Site] = {"ln1": "resid_pre", "ln2": "resid_mid"}
    streams = [Hookpoint(point.block, sources.get(point.site, point.site)) for point in hookpoints]
    return list(dict.fromkeys(streams))


def _ratios(
    model: LanguageModel, some: TokenSequences, points: Sequence[Hookpoint]
) -> dict[Hookpoint, Float[np.ndarray, "n S"]]:
    """The norm of every token over the hookpoint's median."""
    norms = torch.cat(
        [model.capture(batch.tokens_mS, points).float().norm(dim=-1).cpu() for batch in batches(model, some)]
    ).numpy()
    medians_P = np.maximum(np.median(norms, axis=(0, 1)), 1e-12)
    return {point: norms[:, :, p] / medians_P[p] for p, point in enumerate(points)}


def _tokens(tokens_nS: Int[np.ndarray, "n S"], ratio_nS: Float[np.ndarray, "n S"]) -> dict[int, float]:
    """The tokens whose ratio is out of proportion often and in two sequences, with the largest, sorted."""
    found: dict[int, float] = {}
    out_nS = ratio_nS > TOKEN
    for token in np.unique(tokens_nS[out_nS]).tolist():
        here_nS = tokens_nS == token
        if (here_nS & out_nS).any(1).sum() > 1 and (here_nS & out_nS).sum() >= OFTEN * here_nS.sum():
            found[token] = float(ratio_nS[here_nS].max())
    return dict(sorted(found.items(), key=lambda item: -item[1]))
