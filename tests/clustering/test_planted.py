"""Planted text follows its rule, its factors are matched, and the planted judge knows them."""

import numpy as np
import scipy.sparse as sp

from xtalk.clustering import Clustering, Trial
from xtalk.clustering.planted import PlantedJudge, match_factors, planted_ami
from xtalk.data.planted import PlantedText, factor_of


def test_every_triple_follows_the_rule_of_one_factor_of_the_topic():
    text = PlantedText(topics=3, factors_per_topic=2, values=4, triples=50)
    topics = set()
    for document in text.documents(6, seed=0):
        words = document.split()
        assert len(words) == 150
        factors = set()
        for a, b, c in zip(words[::3], words[1::3], words[2::3], strict=True):
            assert factor_of(a) == factor_of(b) == factor_of(c)
            (i, j, k) = (int(word.split("v")[1]) for word in (a, b, c))
            assert k == min(i, j)
            factors.add(factor_of(a))
        assert len(factors) == 2
        assert len({factor // 2 for factor in factors}) == 1
        topics.add(min(factors) // 2)
        assert set(words) <= set(text.vocabulary())
    assert len(topics) > 1
    assert factor_of("<|endoftext|>") == -1
    assert text.documents(2, seed=1) == text.documents(2, seed=1) != text.documents(2, seed=2)


def test_latents_belong_to_the_factor_that_holds_half_of_their_activation():
    factor_B = np.array([0, 0, 1, 1, 2, -1])
    codes_BL = np.array(
        [[3, 0, 1, 0], [1, 0, 1, 0], [0, 2, 1, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 5, 0, 0]], dtype=float
    )
    assert match_factors(sp.csr_array(codes_BL), factor_B, 3).tolist() == [0, -1, 0, -1]


def test_ami_counts_only_latents_with_a_factor():
    factors = np.array([0, 0, 1, 1, 2, 2, -1, -1])
    assert planted_ami(Clustering(np.array([5, 5, 3, 3, 0, 0, 0, 5]), True), factors) == 1.0
    assert planted_ami(Clustering(np.array([0, 1, 0, 1, 0, 1, 0, 0]), True), factors) < 0.1


def test_the_planted_judge_follows_the_majority():
    judge = PlantedJudge(np.array([0, 0, 0, 1, 1, 2]))
    assert judge(Trial(0, (0, 1, 3), (2, 4, 5), 0)) == 1.0
    assert judge(Trial(0, (0, 1, 3), (4, 2, 5), 0)) == 0.0
    assert judge(Trial(0, (0, 3), (1, 4, 5), 0)) == 0.5
