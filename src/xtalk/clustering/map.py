"""The map of a crosscoder's clusters as data: where features lie, what they fire on, where pairs meet."""

from typing import Any

import numpy as np
import torch

from xtalk.clustering.layout import lay_out
from xtalk.clustering.pair_details import PairDetail, pair_details
from xtalk.clustering.sparse import entries
from xtalk.clustering.study import ClusterStudy
from xtalk.data import token_texts
from xtalk.reading.explained import Explained
from xtalk.reading.features import Feature, describe_codes
from xtalk.reading.logits import LogitTokens, logit_tokens

PARTNERS = 3  # of each feature that the map draws a line to
PAIRS_IN, PAIRS_ACROSS = 6, 150  # of each cluster, and between clusters, that the map has details of
PROMOTED = 6  # tokens of each feature


def map_record(study: ClusterStudy) -> dict[str, Any]:
    """Features with their places and contexts, lines between partners, and pairs with where they meet."""
    latents_F, measured = study.interaction.latents_F, study.measured_sequences
    positions_F2 = lay_out(study.interaction, study.clustering, study.seed)
    tokenizer = study.model.tokenizer
    assert tokenizer is not None  # the text was read with it
    features = describe_codes(
        study.measured_codes_BL,
        measured,
        tokenizer,
        latents_F.tolist(),
        top_tokens=6,
        contexts=3,
        counted=study.counted,
    )
    counts_L = np.maximum(study.matrix.active_L, 1)
    mean_L = torch.from_numpy(np.asarray(study.measured_codes_BL.sum(0)).ravel() / counts_L)
    logits = logit_tokens(study.model, study.crosscoder, measured, mean_L, latents_F.tolist(), PROMOTED)
    lines, detailed = _pairs(study)
    explained = Explained(study.model, study.crosscoder)
    at_mlps = detailed if "mlp" in study.sites else []  # elsewhere features meet at no neuron
    details = pair_details(
        at_mlps,
        study.measured_codes_BL,
        lambda codes, places: explained.contributions(codes, explained.streams_at(measured, places)).items(),
    )

    def text(place: int) -> str:
        return token_texts(tokenizer, [int(measured.tokens.flat[place])], inside=True)[0]

    return {
        "features": [
            _feature(feature, int(study.clustering.labels_L[feature.latent]), positions_F2[f], logits[f])
            for f, feature in enumerate(features)
        ],
        "lines": lines,
        "pairs": [_pair(detail, text) for detail in details],
    }


def _pairs(study: ClusterStudy) -> tuple[list[tuple[int, int, float]], list[tuple[int, int]]]:
    """The lines of the map with their similarity, and the pairs that it has details of."""
    latents_F, labels_L = study.interaction.latents_F, study.clustering.labels_L
    pairs = entries(study.interaction.values_FF)
    upper = pairs.rows < pairs.columns
    ones, others = latents_F[pairs.rows[upper]], latents_F[pairs.columns[upper]]
    strength, order = pairs.values[upper], np.argsort(-pairs.values[upper], kind="stable")
    drawn: list[tuple[int, int, float]] = []
    detailed: list[tuple[int, int]] = []
    partners, inside, across = np.zeros(study.n_latents), np.zeros(study.clustering.count), 0
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


def _pair(detail: PairDetail, text: Any) -> dict[str, Any]:
    return {
        "latents": list(detail.latents),
        "neurons": [
            {"block": block, "neuron": k, "part": round(part, 4)} for block, k, part in detail.neurons
        ],
        "tokens": [
            {"before": "".join(text(p) for p in range(max(0, place - 6), place)), "token": text(place)}
            for place, _ in detail.places
        ],
    }
