"""The theorem on attention with positions: tables, counts of fillings, and no more is proven than is true."""

import random
from itertools import product
from math import exp
from unittest.mock import patch

import pytest
from flint import arb, ctx
from reference.attention_space import (
    count_right_by_attention,
    placed,
    positions_certificate,
    positions_solver,
    positions_spec,
    random_attention,
    run,
)
from reference.product_space import container, encoded, sequences
from xtalk_check import check, rounding
from xtalk_check.positions import Tables, ahead, fillings
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.tasks import Task
from xtalk_check.work import PRECISION, Work


def verdict(tensors, certified: int = 0, **task):
    wanted, weights = positions_spec(**task), container(tensors)
    asked = wanted["task"]
    given = positions_certificate(weights, certified, len(asked["classes"]) ** asked["n"])
    return check(encoded(given), encoded(wanted), weights)


def proven(tensors, **task) -> int:
    found = verdict(tensors, **task)
    assert found.verdict == "accepted", found.reason
    return found.proven["certified"]


def tables_of(tensors, task: dict) -> Tables:
    with ctx.workprec(PRECISION):
        return Tables.load(parse_weights(container(tensors)), Task.read(Fields(dict(task), "task")), Work())


def counted(others, furthest, base, positions, least) -> tuple[int, int]:
    """Fillings that win, and those of them that the lemma counts, one by one."""
    start, free = base + least * furthest, positions - least
    wins = found = 0
    for filling in product(range(len(others) + 1), repeat=positions):
        copies = filling.count(len(others))
        if copies < least:
            continue
        scores = [others[i] for i in filling if i < len(others)]
        wins += base + copies * furthest + sum(scores) > 0
        greedy = [score for score in scores if score * free <= -start]
        if furthest > 0 and start > 0 and len(greedy) <= 1:
            left = start + sum(greedy)
            rest = [score for score in scores if score * free > -start]
            found += left > 0 and (not greedy or all(score * (free - 1) > -left for score in rest))
    return wins, found


def test_fillings_are_those_that_share():
    rng, most = random.Random(0), 0
    for case in range(400):
        others = [rng.choice((-1, -1, 1)) * rng.randrange(1, 12) * 2.0**-case for _ in range(case % 5)]
        furthest, base = (rng.randrange(-2, 12) * 2.0**-case for _ in range(2))
        positions, least = 1 + case % 4, case // 4 % 2
        with ctx.workprec(PRECISION):
            balls = [arb(score) for score in others]
            found = fillings(balls, arb(furthest), arb(base), positions, least, Work())
        wins, shared = counted(others, furthest, base, positions, least)
        assert found == shared <= wins, case
        most += found == wins > 0 and shared > least
    assert most > 50


def test_two_free_positions_are_counted_exactly():
    """Where no other token gains anything, and the furthest one hardly does."""
    rng, most = random.Random(1), 0
    for case in range(200):
        others = [-rng.randrange(12) - 0.5 for _ in range(4)]
        base, least = float(rng.randrange(-3, 12)), case % 2
        found = fillings([arb(s) for s in others], arb(2) ** -9, arb(base), 2 + least, least, Work())
        wins, _ = counted(others, 2.0**-9, base, 2 + least, least)
        assert found == wins or (found < wins and base + least * 2.0**-9 <= 0)
        most += 1 < found < 5 ** (2 + least) - least * 4 ** (2 + least)
    assert most > 50


def test_leads_are_over_the_best_other_logit():
    logits = [arb(3), arb(7), arb(-2), arb(7), arb(1)]
    assert [float(lead) for lead in ahead(logits)] == [-4, 0, -9, 0, -6]
    assert [float(lead) for lead in ahead([arb(1), arb(5)])] == [-4, 4]
    wide = ahead([arb(0, 3), arb(1)])  # 0, or as much as 3
    assert -7 < float(wide[0].lower()) <= -4 and -3 < float(wide[1].lower()) <= -2


def test_tables_are_those_of_the_formula():
    """Scores exactly; leads by linearity, from sequences of one token that see nothing but themselves."""
    n, V = 3, 4
    for seed in range(4):
        tensors = placed(random_attention(seed, V, 3, 2, V), n, seed)
        tables = tables_of(tensors, positions_spec(n=n)["task"])
        for q, t in product(range(V), range(V)):
            scores, _ = run(tensors, (t, t, q), True)
            at = tables.at_others[q]
            low, high = (float(tables.scores[q][t] + end) for end in (at.lower(), at.upper()))
            assert (low, high) == pytest.approx((min(scores[:2]), max(scores[:2])))
            if t == q:
                assert float(tables.scores[q][q] + tables.at_last[q]) == pytest.approx(scores[2])


def test_leads_bound_every_margin():
    """For every sequence and wrong answer; and the bound is reached where there is nothing to give away."""
    n, V, closest = 3, 4, 1.0
    for seed in range(6):
        tensors = placed(random_attention(seed, V, 3, 2, V, 0.5), n, seed)
        task = positions_spec(n=n)["task"]
        tables = tables_of(tensors, task)
        for tokens in sequences(task):
            q = tokens[-1]
            (scores, logits), low = run(tensors, tokens, True), [0.0] * V
            for place, (t, score) in enumerate(zip(tokens, scores, strict=True)):
                moved = tables.moved_last if place == n - 1 else tables.moved
                for answer in range(V):
                    low[answer] += exp(score) * float(moved[t][answer] + tables.direct[q][answer])
            for answer in range(V):
                lead = logits[answer] - max(other for c, other in enumerate(logits) if c != answer)
                gap = lead - low[answer] / sum(map(exp, scores))
                assert gap > -1e-9
                closest = min(closest, gap)
    assert closest < 0.05


def one_by_one(tensors, task: dict, drift: float = 0.0, needed: float = 0.0) -> int:
    """The sequences that the theorem counts, from its tables, each by itself."""
    tables, found, n = tables_of(tensors, task), 0, task["n"]
    furthest_of = max if task["name"] == "max" else min
    for *tokens, q in product(range(len(task["classes"])), repeat=n):
        far = furthest_of((*tokens, q), key=task["classes"].__getitem__)
        answer, at = task["classes"][far], tables.at_others[q]

        def score(t, q=q, answer=answer, at=at):
            lead = float(tables.moved[t][answer] + tables.direct[q][answer]) - needed
            end = at.lower() - drift if lead > 0 else at.upper() + drift
            return lead * exp(float(tables.scores[q][t] + end))

        base = float(tables.moved_last[q][answer] + tables.direct[q][answer]) - needed
        end = float(tables.scores[q][q] + tables.at_last[q])
        base *= exp(end - drift if base > 0 else end + drift)
        least = int(q != far)
        start, free = base + least * score(far), n - 1 - least
        scores = [score(t) for t in tokens if t != far]
        greedy = [s for s in scores if s * free <= -start]
        if score(far) > 0 and start > 0 and len(greedy) <= 1:
            left = start + sum(greedy)
            rest = [s for s in scores if s not in greedy]
            found += left > 0 and (not greedy or all(s * (free - 1) > -left for s in rest))
    return found


def test_what_is_proven_is_what_the_theorem_says():
    partly = 0
    for seed in range(60):
        n, V = 2 + seed % 3, 3 + seed % 2
        tensors = positions_solver(V, n, 0.1 + 0.1 * (seed % 4), seed)
        classes = random.Random(seed).sample(range(V + 1), V) if seed % 2 else [*range(V)]
        task = {"name": ("max", "min")[seed % 5 == 4], "n": n, "answers": V + seed % 2, "classes": classes}
        tensors |= placed(random_attention(seed, V, V, V, task["answers"], 0.6), n, seed) if seed % 2 else {}
        found = proven(tensors, **task)
        assert found == one_by_one(tensors, positions_spec(**task)["task"]), seed
        partly += 0 < found < V**n
    assert partly > 30


def test_what_is_proven_in_float32_is_what_the_theorem_says():
    """In an arithmetic so coarse that it shows."""
    fewer = 0
    for seed in range(60):
        tensors = positions_solver(3, 3, 0.3 + 0.1 * (seed % 3), seed)
        task = positions_spec(classes=[0, 1, 2], answers=3)["task"]
        weights, question = parse_weights(container(tensors)), Task.read(Fields(dict(task), "task"))
        with patch.object(rounding, "UNIT", arb(2) ** -12):
            found = proven(tensors, **task | {"arithmetic": "float32"})
            with ctx.workprec(PRECISION):
                drift, needed = Tables.load(weights, question, Work()).rounded(weights, 3, Work())
        assert found == one_by_one(tensors, task, float(drift.upper()), float(needed)), seed
        fewer += 0 < found < proven(tensors, **task)
    assert fewer > 5


def test_no_more_is_proven_with_positions_than_is_true():
    proofs = most = 0
    for seed in range(240):
        n, V = 2 + seed % 2, 3 + seed % 3
        tensors = positions_solver(V, n, 0.05 + 0.15 * (seed % 5), seed)
        classes = random.Random(seed).sample(range(V), V) if seed % 4 == 3 else [*range(V)]
        task = {"name": ("max", "min")[seed % 5 == 4], "n": n, "answers": V, "classes": classes}
        true, total = count_right_by_attention(tensors, positions_spec(**task)["task"])
        found = proven(tensors, **task)
        assert found <= true, seed
        assert proven(tensors, **task, arithmetic="float32") <= found
        proofs += found > 0
        most += found > 0.9 * total
    assert proofs > 100 and most > 20


def test_a_solver_is_certified_and_no_more_can_be_claimed():
    solver = positions_solver(4, 3)
    assert count_right_by_attention(solver, positions_spec()["task"]) == (64, 64)
    assert verdict(solver, 64).verdict == verdict(solver, 64, arithmetic="float32").verdict == "accepted"
    assert "are proven" in verdict(solver, 65).reason
    shape, values = solver["position"]
    stubborn = solver | {"position": (shape, [*values[:-4], 0.0, 9.0, 0.0, 0.0])}  # the last one says 1
    right, _ = count_right_by_attention(stubborn, positions_spec()["task"])
    assert proven(stubborn) <= right < 64


def test_ties_lose_with_positions():
    flat = {name: (shape, [0.0] * len(v)) for name, (shape, v) in positions_solver(4, 3).items()}
    assert proven(flat) == 0


def test_tasks_that_the_theorem_is_not_about():
    for task, reason in (
        ({"name": "majority"}, "not a task of the theorem on positions"),
        ({"n": 1}, "not a task of the theorem on positions"),
        ({"classes": [0, 1, 2, 2]}, "with an answer of their own"),
        ({"classes": [0], "answers": 1}, "two answers"),
    ):
        asked = positions_spec(**task)["task"]
        tensors = placed(random_attention(0, len(asked["classes"]), 4, 3, asked["answers"]), asked["n"])
        assert reason in verdict(tensors, **task).reason


def test_scores_that_float32_loses_are_refused():
    solver = positions_solver(4, 3)
    shape, values = solver["w_key"]
    steep = solver | {"w_key": (shape, [value * 2.0**30 for value in values])}
    assert "too far off" in verdict(steep, arithmetic="float32").reason
    assert verdict(steep).verdict == "accepted"


def test_length_of_fillings_is_counted():
    """Four others, of which three are modest, and one of the greedy two could win."""
    for greedy, further in ((-8, 0), (-4, 2)):
        work = Work()
        fillings([arb(s) for s in (0, -1, -1, greedy)], arb(1), arb(5), 2, 0, work)
        assert work.multiply_adds == (4 + 4) // 2 + 1 + (3 + further if further else 0) // 2 + bool(further)
    idle = Work()
    assert fillings([arb(1)], arb(0), arb(1), 2, 0, idle) == idle.multiply_adds == 0


def test_length_with_positions_is_counted():
    """By hand: V = C = D = H = 4, n = 3; two additions or comparisons are a multiply-add."""
    tensors, work = positions_solver(4, 3), Work()
    weights, n = parse_weights(container(tensors)), 3
    tables = Tables.load(weights, Task("max", n, (0, 1, 2, 3), 4), work)
    loaded = 7 * 64 + 3 * 48 + 4 * (8 + 3 + 4 * (5 * 3 + 8)) // 2
    assert work.multiply_adds == loaded and work.evaluations == 0
    work = Work()
    tables.rounded(weights, n, work)
    assert work.multiply_adds == 2 * 5 * 16 + 3 * 4 + (4 + 3) * 4 // 2 and work.evaluations == 1
    flat = {name: (shape, [0.0] * len(v)) for name, (shape, v) in tensors.items()}
    length = verdict(flat).length  # no filling is gone through
    pairs = sum(far + 2 + (far + 5) // 2 for place in range(4) for far in range(place, 4))
    assert length.multiply_adds == loaded + 4 * 3 + pairs and length.evaluations == 4 * 5
