"""One crosscoder's features clustered by interaction, judged on text that the interactions have not seen."""

import logging
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

from xtalk.clustering.comparison import (
    INTERACTION,
    baseline_similarities,
    cluster_all,
    judge_all,
    trials_of_all,
)
from xtalk.clustering.evidence import Corpus, OfflineJudge
from xtalk.clustering.methods import Clustering
from xtalk.clustering.planted import planted_ami, planted_factors
from xtalk.clustering.protocol import Distractors, Judged, Trial
from xtalk.clustering.similarity import (
    Normaliser,
    Similarity,
    coactivation_similarity,
    normalised_interaction,
)
from xtalk.clustering.stability import stability_over_documents, stability_over_seeds
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL, Counted, TokenSequences
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix, combine
from xtalk.models.language_model import LanguageModel
from xtalk.progress import Report, silent
from xtalk.reading.features import sparse_codes

JUDGED_TEXT = 2  # sequences that the judge reads, for each that was measured
RESAMPLES = 5

logger = logging.getLogger("xtalk")


class ClusterStudy:
    """The clusters of one crosscoder, their baselines, and what the offline judge makes of them.

    matrices: the pair interactions by site; those of several sites are each divided by all of their terms and
    then added up, since their units differ. text: held-out sequences, of which the interactions were measured
    on the first `measured`; the judge reads those after them, of either the
    tokens that count. Each part is made when first used.
    """

    def __init__(
        self,
        model: LanguageModel,
        crosscoder: Crosscoder,
        matrices: Mapping[str, PairMatrix],
        text: TokenSequences,
        measured: int,
        *,
        method: str = "spectral",
        normaliser: Normaliser = "total",
        seed: int = 0,
        counted: Counted = ALL,
        progress: Report = silent,
    ) -> None:
        self.counted = counted
        self.model, self.crosscoder = model, crosscoder
        self.sites = tuple(matrices)
        self.matrix = combine(matrices) if len(matrices) > 1 else matrices[self.sites[0]]
        self._text, self._measured = text, measured
        self.method, self.seed, self.progress = method, seed, progress
        self.normaliser: Normaliser = normaliser
        self.n_latents = crosscoder.config.d_sae

    @cached_property
    def measured_sequences(self) -> TokenSequences:
        """The text that the pair interactions were measured on."""
        return self._rows(slice(0, self._measured))

    @cached_property
    def judged_sequences(self) -> TokenSequences:
        """The judge's text, after the measured one. Errors: XtalkError if there is none."""
        rows = slice(self._measured, (1 + JUDGED_TEXT) * self._measured)
        if not len(self._text.tokens[rows]):
            raise XtalkError(
                "no held-out text is left for the judge; give more text, or evaluate on less of it"
            )
        return self._rows(rows)

    @cached_property
    def measured_codes_BL(self) -> csr_array:
        """The codes of the text that the pair interactions were measured on."""
        return self._codes("measured", self.measured_sequences)

    @cached_property
    def judged_codes_BL(self) -> csr_array:
        """The codes of the judge's text."""
        return self._codes("judged", self.judged_sequences)

    @cached_property
    def corpus(self) -> Corpus:
        """The judge's text, without documents that were also measured."""
        sequences = self.judged_sequences
        documents_B = sequences.documents.ravel()
        measured = np.unique(self.measured_sequences.documents)
        whole = Corpus(self.judged_codes_BL, sequences.tokens.ravel(), documents_B, self.model.vocabulary)
        counted_B = self.counted.mask(sequences.tokens).ravel()
        return whole.where(~np.isin(documents_B, measured) & counted_B)

    @cached_property
    def interaction(self) -> Similarity:
        """The similarity that is clustered."""
        return normalised_interaction(self.matrix, self.normaliser)

    @cached_property
    def similarities(self) -> dict[str, Similarity]:
        """Interaction and its baselines."""
        decoder_LX = self.crosscoder.W_dec.detach().flatten(1).cpu().numpy()
        baselines = baseline_similarities(self.interaction, self.measured_codes_BL, decoder_LX)
        return {INTERACTION: self.interaction, **baselines}

    @cached_property
    def clusterings(self) -> dict[str, Clustering]:
        """The clusters by interaction, and those of the baselines."""
        return cluster_all(self.similarities, self.method, self.n_latents, self.seed)

    @property
    def clustering(self) -> Clustering:
        """The clusters by interaction."""
        return self.clusterings[INTERACTION]

    @cached_property
    def judged(self) -> dict[Distractors, dict[str, Judged]]:
        """The offline judge's results, by kind of distractors and clustering."""
        judge = OfflineJudge(self.corpus)
        return judge_all(self.clusterings, judge, judge.eligible, *self.matched_by, self.seed)

    def trials(self, eligible: Int[np.ndarray, "n"]) -> dict[Distractors, dict[str, list[Trial]]]:
        """The offline judge's trials of eligible latents, by kind of distractors and clustering."""
        return trials_of_all(self.clusterings, eligible, *self.matched_by, self.seed)

    @property
    def matched_by(self) -> tuple[np.ndarray, Similarity]:
        """What distractors are matched by: firing rates, and co-activation."""
        rates_L = self.corpus.active_L / len(self.corpus.tokens_B)
        return rates_L, coactivation_similarity(self.measured_codes_BL, np.arange(self.n_latents))

    @cached_property
    def planted_factor_L(self) -> Int[np.ndarray, "L"] | None:
        """The factor of each latent if the text is planted, -1 for none."""
        tokenizer = self.model.tokenizer
        assert tokenizer is not None  # the text was read with it
        words = [str(tokenizer.convert_ids_to_tokens(v)) for v in range(self.model.vocabulary)]
        return planted_factors(self.corpus, words)

    def planted_ami(self) -> dict[str, float]:
        """How well each clustering finds the factors of planted text; {} on any other text."""
        factor_L = self.planted_factor_L
        if factor_L is None:
            return {}
        return {name: planted_ami(clustering, factor_L) for name, clustering in self.clusterings.items()}

    def stability(self) -> dict[str, Any]:
        """How alike clusterings are: over seeds of the method, and over redrawn documents."""
        seeds = range(self.seed, self.seed + RESAMPLES)
        stability: dict[str, Any] = {
            "seeds": stability_over_seeds(self.interaction, self.method, self.n_latents, seeds)
        }
        if self.matrix.documents > 1:
            stability["documents"] = stability_over_documents(
                self.matrix, self.normaliser, self.method, self.clustering, self.seed, RESAMPLES
            )
        return stability

    def record(self) -> dict[str, Any]:
        """The clusters as data. Where the judge cannot judge, accuracy is empty and `unjudged` says why."""
        clustering = self.clustering
        accuracy: dict[str, Any] = {}
        ami: dict[str, float] = {}
        by_cluster: dict[int, float] = {}
        unjudged: str | None = None
        try:
            ami = self.planted_ami()
            ours = self.judged["any"][INTERACTION]
            by_cluster = dict(zip(ours.clusters_C.tolist(), ours.accuracy_C.tolist(), strict=True))
            ours.accuracy(self.seed)  # says it where there are too few clusters for an interval
            accuracy = {
                distractors: {
                    name: one.accuracy(self.seed) for name, one in by_name.items() if len(one.clusters_C) > 1
                }
                for distractors, by_name in self.judged.items()
            }
        except XtalkError as error:
            unjudged = str(error)
            logger.warning("cluster: not judged: %s", unjudged)
        return {
            "converged": clustering.converged,
            "count": clustering.count,
            "judged": len(by_cluster),
            "latents": len(self.interaction.latents_F),
            "left_out": self.n_latents - len(self.interaction.latents_F),
            "judge": "offline",
            "unjudged": unjudged,
            "accuracy": accuracy,
            "planted_ami": ami,
            "stability": self.stability(),
            "clusters": [
                {"members": clustering.members(c).tolist(), "accuracy": by_cluster.get(c)}
                for c in range(clustering.count)
            ],
        }

    def _codes(self, what: str, sequences: TokenSequences) -> csr_array:
        report = partial(self.progress, f"{what} text")
        return sparse_codes(self.model, self.crosscoder, sequences, report, self.counted)

    def _rows(self, rows: slice) -> TokenSequences:
        return token_sequences(self._text.tokens[rows], self._text.documents[rows])
