"""Dormant neurons of a model, the latents that drive them, and the clusters that go with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL, Counted
from xtalk.data.tokens import TokenSequences, token_sequences
from xtalk.dormant.neurons import (
    AWAKE,
    ON,
    QUIET,
    Dormancy,
    drivers,
    find_dormant,
    neuron_rates,
    with_trigger,
)
from xtalk.models.language_model import LanguageModel
from xtalk.progress import Report, silent
from xtalk.reading.explained import Explained
from xtalk.reading.features import sparse_codes
from xtalk.statistics.association import associations

STRETCH = 64  # tokens of a sequence, so that there are many triggers
RARE = 1e-3  # latents that are active at fewer tokens than this are rare, or dead
SIGNIFICANT = 0.05  # false discovery rate


@dataclass(frozen=True)
class WakingText:
    """Text that may wake neurons: its sequences, and the tokens that may show it."""

    sequences: TokenSequences
    marked_mS: Bool[np.ndarray, "m S"]

    @classmethod
    def all_of(cls, sequences: TokenSequences) -> "WakingText":
        """A text of which every token may show it."""
        return cls(sequences, np.ones(sequences.tokens.shape, dtype=bool))

    @classmethod
    def triggered(cls, sequences: TokenSequences, trigger: Sequence[int], seed: int) -> "WakingText":
        """A text with a trigger put into each sequence. Errors: XtalkError as `with_trigger`."""
        tokens, marked_mS = with_trigger(sequences.tokens, trigger, seed)
        return cls(token_sequences(tokens, sequences.documents), marked_mS)


def stretches(sequences: TokenSequences) -> TokenSequences:
    """The same text in sequences of 64 tokens at most."""
    length = min(STRETCH, sequences.length)
    whole = sequences.length // length * length
    tokens, documents = (x[:, :whole].reshape(-1, length) for x in (sequences.tokens, sequences.documents))
    return token_sequences(np.ascontiguousarray(tokens), np.ascontiguousarray(documents))


def study_dormancy(
    model: LanguageModel,
    crosscoder: Crosscoder,
    labels_L: Int[np.ndarray, "L"],
    reference: TokenSequences,
    waking: WakingText,
    *,
    control: LanguageModel | None = None,
    seed: int = 0,
    counted: Counted = ALL,
    progress: Report = silent,
) -> dict[str, Any]:
    """Which neurons are off on the reference, which of them the other text wakes, and what goes with either.

    labels_L: the cluster of each latent, -1 for none. control: a model to count woken neurons in too.
    counted: the tokens at which neurons and latents are looked at. Clusters are associated with the dormant
    neurons that their latents drive, by permutation within blocks.
    """
    counted_mS = counted.mask(reference.tokens)
    waking = replace(waking, marked_mS=waking.marked_mS & counted.mask(waking.sequences.tokens))
    found = _dormancy(model, reference, counted_mS, waking)
    in_control = None if control is None else _dormancy(control, reference, counted_mS, waking)
    record: dict[str, Any] = {
        "on": ON,
        "quiet": QUIET,
        "awake": AWAKE,
        "tokens": int(counted_mS.sum()),
        "neurons": int(found.dormant_bN.sum()),
        "neurons_by_block": found.dormant_bN.sum(1).tolist(),
        "woken_count": int(found.woken_bN.sum()),
        "woken_in_control": None if in_control is None else int(in_control.woken_bN.sum()),
        **_with_clusters(
            Explained(model, crosscoder), labels_L, found, reference, waking, seed, counted, progress
        ),
    }
    for row in record["woken"]:
        on = None if in_control is None else float(in_control.other.on_bN[row["block"], row["neuron"]])
        row["on_other_in_control"] = on
    return record


def labels_of(clusters: Sequence[Mapping[str, Any]], n_latents: int) -> Int[np.ndarray, "L"]:
    """The cluster of each latent, -1 for none, from the members of each cluster."""
    labels_L = np.full(n_latents, -1)
    for number, cluster in enumerate(clusters):
        labels_L[cluster["members"]] = number
    return labels_L


def _dormancy(
    model: LanguageModel, reference: TokenSequences, counted_mS: Bool[np.ndarray, "m S"], waking: WakingText
) -> Dormancy:
    on_reference = neuron_rates(model, reference.tokens, counted_mS)
    on_other = neuron_rates(model, waking.sequences.tokens, waking.marked_mS, on_reference.scale_b)
    return find_dormant(on_reference, on_other)


def _with_clusters(
    explained: Explained,
    labels_L: Int[np.ndarray, "L"],
    found: Dormancy,
    reference: TokenSequences,
    waking: WakingText,
    seed: int,
    counted: Counted,
    progress: Report,
) -> dict[str, Any]:
    """Which clusters drive dormant neurons, and which hold rare latents."""
    model, crosscoder = explained.model, explained.crosscoder
    reference_BL, other_BL = (
        sparse_codes(model, crosscoder, text, partial(progress, "latents that drive neurons"), counted)
        for text in (reference, waking.sequences)
    )
    reference_BL = reference_BL[counted.mask(reference.tokens).ravel()]
    rate_L = np.bincount(reference_BL.nonzero()[1], minlength=len(labels_L)) / reference_BL.shape[0]
    mean_L = np.asarray(reference_BL.mean(0)).ravel()
    marked_mean_L = np.asarray(other_BL[waking.marked_mS.ravel()].mean(0)).ravel()
    blocks = list(explained.blocks)
    driver_bN, waking_driver_bN = (_drivers(explained, means) for means in (mean_L, marked_mean_L))
    strata_bN = np.repeat(np.array(blocks), driver_bN.shape[1])
    dormant_bN, woken_bN = found.dormant_bN[blocks], found.woken_bN[blocks]
    by_cluster = associations(_cluster_of(labels_L, driver_bN), dormant_bN.ravel(), strata_bN, seed)
    by_woken = associations(_cluster_of(labels_L, waking_driver_bN), woken_bN.ravel(), strata_bN, seed)
    with_rare = associations(labels_L, rate_L < RARE, np.zeros(len(labels_L), dtype=np.int64), seed)
    rows = [
        {
            "block": blocks[b],
            "neuron": k,
            "on_reference": float(found.reference.on_bN[blocks[b], k]),
            "on_other": float(found.other.on_bN[blocks[b], k]),
            "driver": int(waking_driver_bN[b, k]),
            "cluster": int(_cluster_of(labels_L, waking_driver_bN[b : b + 1, k : k + 1])[0]),
        }
        for b, k in np.argwhere(woken_bN).tolist()
    ]
    return {
        "associated_clusters": sum(one.q_value <= SIGNIFICANT for one in by_cluster),
        "woken": rows,
        "clusters": [vars(one) for one in by_cluster],
        "clusters_of_woken": [vars(one) for one in by_woken if one.marked],
        "rare_latents": int((rate_L < RARE).sum()),
        "clusters_of_rare_latents": [vars(one) for one in with_rare if one.marked],
    }


def _drivers(explained: Explained, mean_activation_L: Float[np.ndarray, "L"]) -> Int[np.ndarray, "b N"]:
    """The latent that drives each neuron, by block."""
    return np.stack(
        [
            drivers(mean_activation_L, (explained.decoder(block).detach() @ place.mlp.W_in).cpu().numpy())
            for block, place in explained.places.items()
        ]
    )


def _cluster_of(labels_L: Int[np.ndarray, "L"], latents: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "u"]:
    """The clusters of some latents, -1 for the latent -1."""
    flat = latents.ravel()
    return np.where(flat >= 0, labels_L[flat], -1)
