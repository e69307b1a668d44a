"""The cluster step of a run: features clustered by interaction, judged, and laid out for the map.

Leaves clusters.json (schema xtalk.clusters/1) and cluster_map.json (xtalk.cluster_map/1), which the report
shows. The judge reads held-out documents that the pair interactions have not seen.
"""

import logging
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from scipy.sparse import csr_array

from xtalk.clustering import Clustering, Corpus, OfflineJudge, Similarity, normalised_interaction
from xtalk.clustering.layout import lay_out
from xtalk.clustering.meetings import Meeting, find_meetings
from xtalk.clustering.planted import planted_ami, planted_factors
from xtalk.clustering.protocol import Distractors, Judged
from xtalk.clustering.similarity import Normaliser, coactivation_similarity
from xtalk.clustering.sparse import entries
from xtalk.clustering.stability import stability_over_documents, stability_over_seeds
from xtalk.clustering.study import INTERACTION, baseline_similarities, cluster_all, judge_all
from xtalk.crosscoder.saving import CFG
from xtalk.data import TokenSequences, token_texts
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix, combine
from xtalk.progress import Report
from xtalk.reading.explained import Explained
from xtalk.reading.features import Feature, describe_codes, sparse_codes
from xtalk.reading.logits import LogitTokens, logit_tokens
from xtalk.reading.pairs import SITES, Site
from xtalk.runs.folder import RunFolder
from xtalk.runs.settings import checked
from xtalk.runs.workbench import Workbench

CLUSTERS, CLUSTER_MAP, SETTINGS = "clusters.json", "cluster_map.json", "clustering.json"
FILES = (CLUSTERS, CLUSTER_MAP, SETTINGS)
JUDGED_TEXT = 2  # as many tokens as were measured, so many times
PARTNERS = 3  # of each feature that the map draws a line to
PAIRS_IN, PAIRS_ACROSS = 6, 150  # of each cluster, and between clusters, that the map has details of
PROMOTED = 6  # tokens of each feature
RESAMPLES = 5

logger = logging.getLogger("xtalk")


class ClusterSettings(BaseModel):
    """What is clustered, and how.

    crosscoder: its name; None: the last of the run. sites: where interactions were measured; of several, each
    site's are divided by all of its terms and then added up, since their units differ. seed: None: the run's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crosscoder: str | None = None
    sites: tuple[Site, ...] = Field(default=("mlp",), min_length=1)
    method: Literal["spectral", "affinity-propagation", "hdbscan", "louvain"] = "spectral"
    normaliser: Normaliser = "total"
    seed: int | None = Field(default=None, ge=0, lt=2**31)

    @field_validator("sites")
    @classmethod
    def _in_order(cls, sites: tuple[Site, ...]) -> tuple[Site, ...]:
        return tuple(site for site in SITES if site in sites)

    @model_validator(mode="after")
    def _counted_alike(self) -> Self:
        if len(self.sites) > 1 and self.normaliser == "co_occurrence":
            raise ValueError("sites count co-occurrences differently; choose another normaliser, or one site")
        return self


def choose_clustering(folder: RunFolder, given: Mapping[str, Any]) -> None:
    """Keep the settings for the step; where they change, what an earlier clustering left is removed.

    Errors: XtalkError for a crosscoder that the run lacks, or sites beside the MLPs that were not measured.
    """
    settings = checked(ClusterSettings, read_settings(folder).model_dump() | dict(given), "clustering")
    names = [spec.name for spec in folder.config.crosscoders]
    if settings.crosscoder is not None and settings.crosscoder not in names:
        raise XtalkError(f"the run has no crosscoder {settings.crosscoder!r}; it has {', '.join(names)}")
    name, sites = settings.crosscoder or names[-1], [site for site in settings.sites if site != "mlp"]
    if missing := [site for site in sites if not folder.file(_matrix_file(name, site)).exists()]:
        asked = " ".join(f"--site {site}" for site in missing)
        raise XtalkError(
            f"{name} has no pair interactions at {', '.join(missing)}; "
            f"first run `xtalk interact --out {folder.path} {asked}`"
        )
    if settings != read_settings(folder):
        folder.write_json(SETTINGS, settings.model_dump())
        folder.file(CLUSTERS).unlink(missing_ok=True)


def _matrix_file(name: str, site: str) -> str:
    return f"interactions/{name}.{site}.safetensors"


def read_settings(folder: RunFolder) -> ClusterSettings:
    """What the folder's clustering was asked to be."""
    if not folder.file(SETTINGS).exists():
        return ClusterSettings()
    return checked(ClusterSettings, folder.read_json(SETTINGS), "clustering")


def cluster_run(workbench: Workbench, progress: Report) -> list[str]:
    """Cluster, judge and lay out the features of a crosscoder; returns the names of the files."""
    study = ClusterStudy(workbench, read_settings(workbench.folder), progress)
    workbench.folder.write_json(CLUSTERS, study.record())
    workbench.folder.write_json(CLUSTER_MAP, study.map_record())
    return [CLUSTERS, CLUSTER_MAP]


class ClusterStudy:
    """One crosscoder of a run, clustered; each part is made when first used."""

    def __init__(self, workbench: Workbench, settings: ClusterSettings, progress: Report) -> None:
        self.workbench = workbench
        self.settings = settings
        self.name = settings.crosscoder or workbench.config.crosscoders[-1].name
        self.seed: int = workbench.config.seed if settings.seed is None else settings.seed
        self.progress = progress
        self.crosscoder = workbench.crosscoder(self.name)
        self.n_latents = self.crosscoder.config.d_sae

    @cached_property
    def matrix(self) -> PairMatrix:
        """The pair interactions at the sites, combined if there are several.

        Errors: XtalkError if they are of other weights.
        """
        folder = self.workbench.folder
        source = folder.read_json(f"crosscoders/{self.name}/{CFG}")["sae_weights_sha256"]
        matrices = {
            site: PairMatrix.load(folder.file(_matrix_file(self.name, site)), source)
            for site in self.settings.sites
        }
        return combine(matrices) if len(matrices) > 1 else matrices[self.settings.sites[0]]

    @cached_property
    def measured_codes_BL(self) -> csr_array:
        """The codes of the text that the pair interactions were measured on."""
        return self._codes("measured", self.workbench.held_out_sequences)

    @cached_property
    def judged_codes_BL(self) -> csr_array:
        """The codes of the judge's text."""
        return self._codes("judged", self.judged_sequences)

    @cached_property
    def judged_sequences(self) -> TokenSequences:
        """The held-out text after the measured one. Errors: XtalkError if there is none."""
        measured, whole = self.workbench.held_out_sequences, self.workbench.all_held_out_sequences
        first = len(measured)
        rows = slice(first, first + JUDGED_TEXT * first)
        if not len(whole.tokens[rows]):
            raise XtalkError(
                "no held-out text is left for the judge; give more text, or evaluate on less of it"
            )
        return token_sequences(whole.tokens[rows], whole.documents[rows])

    @cached_property
    def corpus(self) -> Corpus:
        """The judge's text, without documents that were also measured."""
        sequences = self.judged_sequences
        documents_B = sequences.documents.ravel()
        measured = np.unique(self.workbench.held_out_sequences.documents)
        whole = Corpus(
            self.judged_codes_BL, sequences.tokens.ravel(), documents_B, self.workbench.model.vocabulary
        )
        return whole.where(~np.isin(documents_B, measured))

    @cached_property
    def interaction(self) -> Similarity:
        """The similarity that is clustered."""
        return normalised_interaction(self.matrix, self.settings.normaliser)

    @cached_property
    def clusterings(self) -> dict[str, Clustering]:
        """The clusters by interaction, and those of the baselines."""
        decoder_LX = self.crosscoder.W_dec.detach().flatten(1).cpu().numpy()
        baselines = baseline_similarities(self.interaction, self.measured_codes_BL, decoder_LX)
        similarities = {INTERACTION: self.interaction, **baselines}
        return cluster_all(similarities, self.settings.method, self.n_latents, self.seed)

    @property
    def clustering(self) -> Clustering:
        """The clusters by interaction."""
        return self.clusterings[INTERACTION]

    @cached_property
    def judged(self) -> dict[Distractors, dict[str, Judged]]:
        """What the offline judge makes of all clusterings."""
        judge = OfflineJudge(self.corpus)
        rates_L = self.corpus.active_L / len(self.corpus.tokens_B)
        coactivation = coactivation_similarity(self.measured_codes_BL, np.arange(self.n_latents))
        seed = self.seed
        return judge_all(self.clusterings, judge, judge.eligible, rates_L, coactivation, seed)

    def record(self) -> dict[str, Any]:
        """clusters.json. Where the judge cannot judge, its accuracy is empty and `unjudged` says why."""
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
            "schema": "xtalk.clusters/1",
            "crosscoder": self.name,
            **self.settings.model_dump(exclude={"crosscoder"}),
            "seed": self.seed,
            "converged": clustering.converged,
            "count": clustering.count,
            "judged": len(by_cluster),
            "latents": len(self.interaction.latents_F),
            "left_out": self.n_latents - len(self.interaction.latents_F),
            "judge": "offline",
            "unjudged": unjudged,
            "accuracy": accuracy,
            "planted_ami": ami,
            "stability": self._stability(),
            "clusters": [
                {"members": clustering.members(c).tolist(), "accuracy": by_cluster.get(c)}
                for c in range(clustering.count)
            ],
        }

    @cached_property
    def planted_factor_L(self) -> Int[np.ndarray, "L"] | None:
        """The factor of each latent if the text is planted, -1 for none."""
        tokenizer = self.workbench.model.tokenizer
        assert tokenizer is not None  # the workbench has no text without one
        words = [str(tokenizer.convert_ids_to_tokens(v)) for v in range(self.workbench.model.vocabulary)]
        return planted_factors(self.corpus, words)

    def planted_ami(self) -> dict[str, float]:
        """How well each clustering finds the factors of planted text; {} on any other text."""
        factor_L = self.planted_factor_L
        if factor_L is None:
            return {}
        return {name: planted_ami(clustering, factor_L) for name, clustering in self.clusterings.items()}

    def _stability(self) -> dict[str, Any]:
        method, seed = self.settings.method, self.seed
        seeds = range(seed, seed + RESAMPLES)
        stability: dict[str, Any] = {
            "seeds": stability_over_seeds(self.interaction, method, self.n_latents, seeds)
        }
        if self.matrix.documents > 1:
            stability["documents"] = stability_over_documents(
                self.matrix, self.settings.normaliser, method, self.clustering, seed, RESAMPLES
            )
        return stability

    def map_record(self) -> dict[str, Any]:
        """cluster_map.json: where features lie, what they fire on, and where pairs of them meet."""
        latents_F = self.interaction.latents_F
        positions_F2 = lay_out(self.interaction, self.clustering, self.seed)
        measured = self.workbench.held_out_sequences
        tokenizer = self.workbench.model.tokenizer
        assert tokenizer is not None  # the workbench has no text without one
        features = describe_codes(
            self.measured_codes_BL,
            measured,
            tokenizer,
            latents_F.tolist(),
            top_tokens=6,
            contexts=3,
            counted=self.workbench.counted,
        )
        counts_L = np.maximum(self.matrix.active_L, 1)
        mean_L = torch.from_numpy(np.asarray(self.measured_codes_BL.sum(0)).ravel() / counts_L)
        logits = logit_tokens(
            self.workbench.model, self.crosscoder, measured, mean_L, latents_F.tolist(), PROMOTED
        )
        lines, detailed = self._pairs()
        at_mlps = detailed if "mlp" in self.settings.sites else []  # elsewhere features meet at no neuron
        explained = Explained(self.workbench.model, self.crosscoder)
        meetings = find_meetings(at_mlps, self.measured_codes_BL, explained.contributions)

        def text(place: int) -> str:
            return token_texts(tokenizer, [int(measured.tokens.flat[place])])[0]

        return {
            "schema": "xtalk.cluster_map/1",
            "crosscoder": self.name,
            "features": [
                _feature(feature, int(self.clustering.labels_L[feature.latent]), positions_F2[f], logits[f])
                for f, feature in enumerate(features)
            ],
            "lines": lines,
            "pairs": [_pair(meeting, text) for meeting in meetings],
        }

    def _pairs(self) -> tuple[list[tuple[int, int, float]], list[tuple[int, int]]]:
        """The lines of the map with their similarity, and the pairs that it has details of."""
        latents_F, labels_L = self.interaction.latents_F, self.clustering.labels_L
        pairs = entries(self.interaction.values_FF)
        upper = pairs.rows < pairs.columns
        ones, others = latents_F[pairs.rows[upper]], latents_F[pairs.columns[upper]]
        strength, order = pairs.values[upper], np.argsort(-pairs.values[upper], kind="stable")
        drawn: list[tuple[int, int, float]] = []
        detailed: list[tuple[int, int]] = []
        partners, inside, across = np.zeros(self.n_latents), np.zeros(self.clustering.count), 0
        for place in order.tolist():
            one, other = int(ones[place]), int(others[place])
            same = labels_L[one] == labels_L[other] and labels_L[one] >= 0
            room = inside[labels_L[one]] < PAIRS_IN if same else across < PAIRS_ACROSS
            if min(partners[one], partners[other]) < PARTNERS:
                drawn.append((one, other, float(strength[place])))
                partners[[one, other]] += 1
                if room:
                    detailed.append((one, other))
                    inside[labels_L[one]] += same
                    across += not same
        return drawn, detailed

    def _codes(self, what: str, sequences: TokenSequences) -> csr_array:
        report = partial(self.progress, f"cluster {self.name}, {what} text")
        return sparse_codes(self.workbench.model, self.crosscoder, sequences, report, self.workbench.counted)


def _feature(feature: Feature, cluster: int, position: np.ndarray, logits: LogitTokens) -> dict[str, Any]:
    return {
        "latent": feature.latent,
        "cluster": cluster,
        "x": round(float(position[0]), 2),
        "y": round(float(position[1]), 2),
        "rate": feature.firing_rate,
        "tokens": [text for text, _ in feature.top_tokens],
        "promoted": [text for text, _ in logits.raised],
        "contexts": [
            {
                "tokens": list(context.tokens),
                "activations": [float(f"{a:.3g}") for a in context.activations],
                "peak": context.peak,
            }
            for context in feature.contexts
        ],
    }


def _pair(meeting: Meeting, text: Any) -> dict[str, Any]:
    return {
        "latents": list(meeting.latents),
        "neurons": [
            {"block": block, "neuron": k, "part": round(part, 4)} for block, k, part in meeting.neurons
        ],
        "tokens": [
            {"before": "".join(text(p) for p in range(max(0, place - 6), place)), "token": text(place)}
            for place, _ in meeting.places
        ],
    }
