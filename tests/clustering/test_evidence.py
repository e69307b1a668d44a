"""The offline judge: it tells latents that fire on the same tokens, and never sees a place twice."""

import numpy as np
import pytest
import scipy.sparse as sp

from xtalk.clustering import Clustering, Corpus, OfflineJudge, Trial, judge_clusters, make_trials
from xtalk.clustering.evidence import strongest_places
from xtalk.errors import XtalkError

VOCABULARY, GROUPS, EACH = 60, 10, 5


def corpus(documents: int = 16, shared_places: bool = False, seed: int = 0) -> Corpus:
    """Latents in groups: those of a group fire on the same tokens, or (shared_places) at the same places."""
    rng = np.random.default_rng(seed)
    tokens_B = rng.integers(0, VOCABULARY, documents * 100)
    codes_BL = np.zeros((len(tokens_B), GROUPS * EACH))
    for group in range(GROUPS):
        places = np.flatnonzero(tokens_B % GROUPS == group)
        if shared_places:
            places = rng.choice(len(tokens_B), len(places), replace=False)
        for latent in range(EACH * group, EACH * (group + 1)):
            fires = places if shared_places else places[rng.random(len(places)) < 0.5]
            codes_BL[fires, latent] = rng.random(len(fires)) + 0.1
    return Corpus(sp.csr_array(codes_BL), tokens_B, np.repeat(np.arange(documents), 100), VOCABULARY)


def accuracy(made: Corpus) -> float:
    judge = OfflineJudge(made)
    truth = Clustering(np.repeat(np.arange(GROUPS), EACH), True)
    trials = make_trials(truth, judge.eligible, seed=0, per_cluster=20)
    return judge_clusters(trials, judge).accuracy(0)[0]


def test_latents_of_the_same_tokens_are_told_from_others():
    assert accuracy(corpus()) > 0.95


def test_firing_at_the_same_places_alone_earns_nothing():
    """The shown members and the candidates are seen on different documents."""
    assert accuracy(corpus(shared_places=True)) < 0.4


def test_the_score_of_equals_is_shared():
    blank = Corpus(sp.csr_array((1600, 4)), np.zeros(1600, int), np.repeat(np.arange(16), 100), VOCABULARY)
    trial = Trial(0, (0,), (0, 1, 2, 3), 1)
    assert OfflineJudge(blank)(trial) == 0.25
    assert len(OfflineJudge(blank).eligible) == 0


def test_strongest_places_against_a_sort():
    made = corpus()
    latents, places = strongest_places(made.codes_BL, 6)
    dense = made.codes_BL.toarray()
    for latent in range(dense.shape[1]):
        expected = np.argsort(-dense[:, latent], kind="stable")[:6]
        assert places[latents == latent].tolist() == expected.tolist()


def test_contexts_end_with_their_document():
    codes = np.zeros((1600, 2))
    codes[99::100, 0] = 1.0  # the last place of every document
    tokens = np.tile(np.arange(100) % VOCABULARY, 16)
    tokens[::100] = VOCABULARY - 1  # the first token of every document, next to it in the text
    made = Corpus(sp.csr_array(codes), tokens, np.repeat(np.arange(16), 100), VOCABULARY)
    from xtalk.clustering.evidence import _bags

    _, around = _bags(made)
    assert around[[0]].toarray()[0, VOCABULARY - 1] == 0
    assert around.sum() == 16 * 4


def test_too_few_documents_are_refused():
    with pytest.raises(XtalkError, match="7 documents for the judge; expected 8 or more"):
        OfflineJudge(corpus(documents=7))
