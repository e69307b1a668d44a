"""Pair interactions of a crosscoder in a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from xtalk.api.inputs import Dictionary, Model, Texts, crosscoder_in, model_of, sequences_of
from xtalk.data import Counted
from xtalk.errors import XtalkError
from xtalk.interactions.attention import KEYS
from xtalk.interactions.pair_matrix import SUM, Normaliser, PairMatrix
from xtalk.progress import Report, silent
from xtalk.reading.pairs import SITES, Site, measure_pairs


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pair interactions by site, each a sparse `PairMatrix`.

    coverage: the part of the attention that the keys taken for qk and ov hold; None where not measured.
    """

    matrices: Mapping[Site, PairMatrix]
    coverage: float | None

    @property
    def matrix(self) -> PairMatrix:
        """The matrix of the first site that was asked for: of the MLPs, by default."""
        return next(iter(self.matrices.values()))

    def top(
        self,
        count: int = 20,
        *,
        block: int | str = SUM,
        site: Site | None = None,
        normaliser: Normaliser = "none",
    ) -> list[dict[str, Any]]:
        """The strongest pairs, strongest first, as rows for `pandas.DataFrame`.

        i is the dominant latent, j the one beside it. interaction: a mean over tokens, in units of the MLP's
        output (`normaliser`: none), over the times that both are active (co_occurrence), or as a part of all
        contributions (relative); standard_error: of it, documents drawn, NaN for a single document;
        co_occurrences: tokens at which both are active. block: a number, or the sum over blocks (at the norms
        a name such as "blocks.0.ln1"). Errors: XtalkError for a block, site or normaliser that is not there.

        >>> xtalk.pair_interactions(model, cc, texts).top(1)[0].keys()
        dict_keys(['i', 'j', 'block', 'interaction', 'standard_error', 'co_occurrences'])
        """
        if site is not None and site not in self.matrices:
            raise XtalkError(f"site {site!r} was not measured; measured are {', '.join(self.matrices)}")
        matrix = self.matrix if site is None else self.matrices[site]
        part = f"blocks.{block}" if isinstance(block, int) else block
        pairs = matrix.interactions(part, normaliser).tocoo()
        errors_E = matrix.standard_errors(part, normaliser).data
        together_E = matrix.co_active().data
        i_E, j_E = pairs.coords
        values_E: np.ndarray = pairs.data
        strongest = np.argsort(-values_E, kind="stable")[:count]
        return [
            {
                "i": int(i_E[e]),
                "j": int(j_E[e]),
                "block": block,
                "interaction": float(values_E[e]),
                "standard_error": float(errors_E[e]),
                "co_occurrences": int(together_E[e]),
            }
            for e in strongest
            if values_E[e] > 0
        ]


def pair_interactions(
    model: Model,
    crosscoder: Dictionary,
    texts: Texts,
    *,
    sites: Sequence[Site] = ("mlp",),
    top: int | None = None,
    keys: int = KEYS,
    tokens: int = 32_768,
    sequence_length: int | None = None,
    skip_positions: int = 1,
    progress: Report = silent,
) -> Pairs:
    """How much each two latents of a crosscoder interact in a model, on texts.

    At an MLP, I(i, j) is the mean over tokens of sum_k ||W_out[k]|| |p_kj| over the neurons k that latent i
    dominates (p_kj: what j contributes to k's pre-activation), by block and summed; in units of the MLP's
    output. sites: mlp, qk and ov (attention), norm. top: keep each latent's strongest partners alone, by
    default all. keys: per query, of qk and ov. tokens: of the texts, at most; sequence_length: 256 by
    default. skip_positions: first tokens of every sequence that do not count, as in `train`. The crosscoder
    is in the model's own units. Errors: XtalkError for a site that the crosscoder has no hookpoints for,
    hookpoints that the model lacks, and another width.

    Source: arXiv 2606.09940, section 3; docs/method.md for attention and norms.

    >>> pairs = xtalk.pair_interactions(model, cc, texts)
    >>> rows = pairs.top(3)
    >>> len(rows), rows[0]["interaction"] >= rows[2]["interaction"] > 0
    (3, True)
    >>> pairs.matrix.interactions("blocks.1").shape  # sparse, (L, L)
    (64, 64)
    """
    if unknown := [site for site in sites if site not in SITES]:
        raise XtalkError(f"unknown site {unknown[0]!r}; expected some of {', '.join(SITES)}")
    if not sites:
        raise XtalkError(f"no site to measure; expected some of {', '.join(SITES)}")
    language_model = model_of(model)
    made = crosscoder_in(language_model, crosscoder)
    sequences = sequences_of(language_model, texts, tokens=tokens, length=sequence_length)
    found = measure_pairs(
        language_model,
        made,
        sequences,
        sites,
        counted=Counted(skip_positions),
        top=top,
        keys=keys,
        progress=partial(progress, "pairs"),
    )
    return Pairs(found.matrices, found.coverage)
