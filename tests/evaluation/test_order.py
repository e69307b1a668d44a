"""No figure depends on the order of the documents, but for what is drawn: intervals and random schemes.

Documents fill whole sequences here, for a model reads what stands before a token in its sequence.
"""

import numpy as np
import pytest
import torch
from evaluation.held_out import held_out, random_crosscoder
from evaluation.test_evaluate import flat
from reference.tiny_models import BLOCKS, tiny_model

from xtalk.data import Counted, TokenSequences, token_sequences
from xtalk.evaluation import evaluate_crosscoder, mean_mlp_outputs, measure_baselines
from xtalk.interactions import pairs
from xtalk.interactions.pair_matrix import SUM
from xtalk.models.language_model import LanguageModel
from xtalk.reading.pairs import SITES, measure_pairs

SEQUENCES = (2, 1, 3, 1, 1, 2, 1, 1, 1)  # of each document
ORDER = np.random.default_rng(4).permutation(len(SEQUENCES))
MICRO_BATCH = 5  # of 13 sequences: the last batch is smaller
COUNTED = Counted(1)
DRAWN = {"low", "high", "drop_random", "keep_random"}
CLOSE = {"rel": 1e-4, "abs": 1e-6}
"""Sums are in float64, where those of float32 values are exact in any order. What may differ is a float32
product, whose rows a library may add up otherwise at another place of the batch: 1e-7 of a loss of 4 nat,
which Phi_mean divides by an ablation of 0.015."""


def text(order) -> TokenSequences:
    """The documents in an order, numbered as they come."""
    tokens_nS = held_out(sum(SEQUENCES), 8).tokens
    documents = np.split(tokens_nS, np.cumsum(SEQUENCES)[:-1])
    ordered = [documents[at] for at in order]
    numbers = np.repeat(np.arange(len(ordered), dtype=np.int32), list(map(len, ordered)))
    return token_sequences(np.concatenate(ordered), numbers[:, None].repeat(tokens_nS.shape[1], 1))


IN_ORDER, REORDERED = text(range(len(SEQUENCES))), text(ORDER)


@pytest.fixture
def make_model(monkeypatch):
    monkeypatch.setattr(LanguageModel, "sequences_at_once", lambda model, length: MICRO_BATCH)
    return tiny_model


def evaluated(model: LanguageModel, sequences: TokenSequences) -> dict[str, float]:
    crosscoder = random_crosscoder(model)
    means = mean_mlp_outputs(model, sequences, 10**6, range(BLOCKS), COUNTED)
    baselines = measure_baselines(model, sequences, means, counted=COUNTED)
    factor_P = torch.linspace(0.5, 1.5, len(crosscoder.config.hook_names))
    how = {"resamples": 20, "seed": 0, "keep_error": True}
    return flat(evaluate_crosscoder(model, crosscoder, factor_P, sequences, baselines, **how))


def test_evaluations_do_not_depend_on_the_order_of_documents(make_model):
    expected, found = (evaluated(make_model("gpt_neo"), some) for some in (IN_ORDER, REORDERED))
    compared = [
        path
        for path, value in expected.items()
        if not isinstance(value, str) and not DRAWN & set(path.split("/"))
    ]
    for part in ("reconstruction/fvu", "interaction/0/T/value", "fidelity/0/phi/keep_1/value", "error_kept"):
        assert any(path.startswith(f"/{part}") for path in compared)
    for path in compared:
        assert found[path] == pytest.approx(expected[path], **CLOSE), path
    drawn = "/fidelity/0/phi/full/low"
    assert found[drawn] != pytest.approx(expected[drawn], **CLOSE)


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_pairs_do_not_depend_on_the_order_of_documents(kind, make_model, monkeypatch):
    monkeypatch.setattr(pairs, "_WAITING_PAIRS", 300)  # documents are added up as they end
    model = make_model(kind)
    crosscoder = random_crosscoder(model)
    one, other = (
        measure_pairs(model, crosscoder, some, SITES, counted=COUNTED) for some in (IN_ORDER, REORDERED)
    )
    assert other.coverage == pytest.approx(one.coverage, rel=1e-6)
    for site, matrix in one.matrices.items():
        again = other.matrices[site]
        assert (again.tokens, again.documents) == (matrix.tokens, matrix.documents)
        np.testing.assert_array_equal(again.co_active().toarray(), matrix.co_active().toarray())
        for part in (*matrix.parts, SUM):
            assert again.total(part) == pytest.approx(matrix.total(part), rel=1e-6)
            for read in (matrix.interactions, matrix.standard_errors):
                expected = read(part).toarray()
                found = getattr(again, read.__name__)(part).toarray()
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())
