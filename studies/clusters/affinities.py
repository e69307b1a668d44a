"""Other affinities from interactions than the one that is clustered, for docs/clusters.md: is any better?

Each is symmetric, not negative, between the same latents. `activation, squared` is a control: it knows
nothing of interactions, and is as sharp as the squared ones.
"""

import numpy as np
from scipy.sparse import csr_array

from xtalk.clustering import Similarity
from xtalk.clustering.similarity import activation_similarity
from xtalk.clustering.study import ClusterStudy
from xtalk.reading.explained import Explained

Dense = np.ndarray

MEANING = {
    "as it is": "I(i, j) + I(j, i) over the geometric mean of all that either has",
    "profiles": "cosine of what two features have with every other, by block and direction",
    "beyond chance": "less what the two features' totals predict if partners were independent",
    "per co-occurrence": "the mean where both are active, over the geometric mean of such totals",
    "shared neurons": "times the cosine of the sizes of what the two features add to every neuron",
    "times activation": "times the cosine of activations",
    "squared": "its square",
    "activation": "cosine of activations (baseline)",
    "activation, squared": "its square (control)",
}


def affinities(study: ClusterStudy) -> dict[str, Similarity]:
    """The affinities of `MEANING`."""
    matrix, ours = study.matrix, study.interaction
    F = ours.latents_F
    activation = activation_similarity(study.measured_codes_BL, F)
    own, active = (similarity.values_FF.toarray() for similarity in (ours, activation))
    listed = np.ix_(F, F)
    parts = [matrix.interactions(part).toarray()[listed] for part in matrix.parts]
    directed = np.sum(parts, axis=0)
    pairs = directed + directed.T
    together = matrix.co_active().toarray()[listed]
    each = pairs / np.maximum(np.maximum(together, together.T), 1)
    totals = pairs.sum(1)
    chance = np.outer(totals, totals) / totals.sum()
    made = {
        "as it is": own,
        "profiles": _cosines(np.hstack([x for part in parts for x in (part, part.T)])),
        "beyond chance": np.maximum(pairs - chance, 0) / _roots(totals),
        "per co-occurrence": each / _roots(each.sum(1)),
        "shared neurons": own * _cosines(np.abs(_added(study))[F]),
        "times activation": own * active,
        "squared": own**2,
        "activation": active,
        "activation, squared": active**2,
    }
    return {name: Similarity(F, _without_diagonal(values)) for name, values in made.items()}


def _added(study: ClusterStudy) -> Dense:
    """What a unit of each latent adds to every neuron, weighted by the neuron's output."""
    explained = Explained(study.model, study.crosscoder)
    by_block = [
        explained.decoder(block) @ place.mlp.W_in * place.mlp.W_out.norm(dim=1)
        for block, place in explained.places.items()
    ]
    return np.hstack([added_LN.detach().numpy() for added_LN in by_block]).astype(np.float64)


def _cosines(rows: Dense) -> Dense:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    return np.maximum(unit @ unit.T, 0)


def _roots(totals: Dense) -> Dense:
    roots = np.sqrt(np.maximum(totals, np.finfo(float).tiny))
    return np.outer(roots, roots)


def _without_diagonal(values: Dense) -> csr_array:
    symmetric = (values + values.T) / 2
    np.fill_diagonal(symmetric, 0)
    return csr_array(symmetric)
