import tracemalloc

import numpy as np
import pytest
import torch

import xtalk.interactions.pairs as module
from xtalk.errors import XtalkError
from xtalk.interactions.measures import interaction
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.interactions.pairs import PairGroups, PairInteractions
from xtalk.selftest import interaction_loops as loops
from xtalk.selftest.cases import ACTIVATIONS, B, L, contributions, random_case, random_mlp, tied_case

every_mlp = pytest.mark.parametrize("gated", [False, True])
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda phi: phi.name)


def accumulated(*cases, documents=None) -> PairInteractions:
    pairs = PairInteractions(L, ("mlp",))
    for number, case in enumerate(cases):
        tokens = len(case.values_BK)
        pairs.add(
            {"mlp": contributions(case)}, np.full(tokens, number) if documents is None else documents[number]
        )
    return pairs


def measured(*cases, documents=None, top=None) -> PairMatrix:
    return accumulated(*cases, documents=documents).result(top)


def dense(matrix) -> torch.Tensor:
    return torch.from_numpy(matrix.toarray())


def repeated(case, times):
    return case._replace(
        latents_BK=case.latents_BK.repeat(times, 1), values_BK=case.values_BK.repeat(times, 1)
    )


def same_tokens_other_mlp(case, seed=9):
    return case._replace(mlp=random_mlp(ACTIVATIONS[1], False, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    ("make", "activation"),
    [*((random_case, activation) for activation in ACTIVATIONS), (tied_case, ACTIVATIONS[1])],
)
@every_mlp
def test_matrix_of_two_batches(make, activation, gated):
    first = make(activation, gated, seed=0)
    second = make(activation, gated, seed=1)._replace(decoder_LD=first.decoder_LD, mlp=first.mlp)
    pairs = measured(first, second)
    sums, together, total = (a + b for a, b in zip(*map(loops.pair_sums, (first, second)), strict=True))
    assert np.array_equal(pairs.active_L, together.diagonal())
    together.fill_diagonal_(0)
    assert torch.equal(dense(pairs.co_active()).int(), together)
    assert pairs.tokens == 2 * B
    assert pairs.documents == 2
    torch.testing.assert_close(dense(pairs.interactions()), sums / (2 * B))
    torch.testing.assert_close(dense(pairs.interactions("mlp", "relative")), sums / total)
    where = together > 0
    per_occurrence = dense(pairs.interactions(normaliser="co_occurrence"))
    torch.testing.assert_close(per_occurrence[where], sums[where] / together[where])
    assert not per_occurrence[~where].any()
    torch.testing.assert_close(dense(pairs.interactions(symmetric=True)), (sums + sums.T) / (4 * B))
    np.testing.assert_allclose(pairs.row_totals(), sums.sum(1) / (2 * B))
    np.testing.assert_allclose(pairs.column_totals(), sums.sum(0) / (2 * B))


def test_the_cases_repeat_pairs_across_tokens():
    """Without repeats a lost write would go unseen."""
    _, together, _ = loops.pair_sums(random_case(ACTIVATIONS[0], gated=False))
    assert int((together.fill_diagonal_(0) > 1).sum()) >= 12


@every_mlp
def test_many_tokens_with_the_same_pairs_add_up(gated):
    case = random_case(ACTIVATIONS[1], gated)
    once, often = measured(case), measured(repeated(case, 50))
    np.testing.assert_allclose(often.sums_EP, 50 * once.sums_EP)
    assert np.array_equal(often.together_E, 50 * once.together_E)


@every_mlp
@every_activation
def test_all_pairs_add_up_to_the_mean_interaction(activation, gated):
    case = random_case(activation, gated)
    pairs = measured(case)
    expected = float(interaction(contributions(case)).mean())
    assert pairs.total() == pytest.approx(expected)
    assert pairs.interactions().sum() == pytest.approx(expected)
    assert not pairs.interactions().diagonal().any()
    assert 0 < pairs.interactions(normaliser="relative").sum() < 1
    assert pairs.kept() == pytest.approx(1)


def case_of_documents():
    """Five documents of 11 to 71 tokens, cut into three batches inside documents, and their numbers."""
    case = repeated(random_case(ACTIVATIONS[2], gated=False), 40)
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(160, generator=generator)
    scale = 0.5 + torch.rand(160, 1, generator=generator)
    case = case._replace(latents_BK=case.latents_BK[order], values_BK=case.values_BK[order] * scale)
    documents = np.repeat([4, 7, 9, 11, 12], [30, 11, 71, 21, 27])
    cuts = (slice(0, 7), slice(7, 50), slice(50, None))
    return case, documents, cuts


def brute_force_errors(sums_of_token, documents):
    numbers = sorted(set(documents.tolist()))
    s = torch.stack([sums_of_token[documents == number].sum(0) for number in numbers])
    n = torch.tensor([float((documents == number).sum()) for number in numbers])[:, None, None]
    mean = s.sum(0) / n.sum()
    E = len(numbers)
    return (E / (E - 1) * (s - mean * n).square().sum(0)).sqrt() / n.sum()


def sums_by_token(case) -> torch.Tensor:
    by_token = []
    for b in case.tokens:
        alone = case._replace(latents_BK=case.latents_BK[b : b + 1], values_BK=case.values_BK[b : b + 1])
        by_token.append(dense(measured(alone).interactions()))
    return torch.stack(by_token)


@pytest.mark.parametrize("waiting", [200, 1 << 23])
def test_standard_errors_over_documents_in_any_batches(waiting, monkeypatch):
    monkeypatch.setattr(module, "_WAITING_PAIRS", waiting)
    case, documents, cuts = case_of_documents()
    parts = {"a": case, "b": same_tokens_other_mlp(case)}
    by_token = {name: sums_by_token(part) for name, part in parts.items()}
    pairs = PairInteractions(L, ("a", "b"))
    for cut in cuts:
        cut_parts = {
            name: c._replace(latents_BK=c.latents_BK[cut], values_BK=c.values_BK[cut])
            for name, c in parts.items()
        }
        pairs.add({name: contributions(c) for name, c in cut_parts.items()}, documents[cut])
    matrix = pairs.result()
    assert matrix.documents == 5
    for part, expected in {**by_token, "sum": by_token["a"] + by_token["b"]}.items():
        torch.testing.assert_close(dense(matrix.interactions(part)), expected.mean(0))
        errors = brute_force_errors(expected, documents)
        torch.testing.assert_close(dense(matrix.standard_errors(part)), errors, rtol=1e-4, atol=1e-5)
    relative = dense(matrix.standard_errors("a", "relative")) / dense(matrix.standard_errors("a"))
    listed = dense(matrix.standard_errors("a")) > 0
    scale = dense(matrix.interactions("a", "relative")) / dense(matrix.interactions("a"))
    torch.testing.assert_close(relative[listed], scale[listed])


def test_one_document_has_no_standard_errors():
    matrix = measured(random_case(ACTIVATIONS[1], gated=False))
    assert np.isnan(matrix.standard_errors().data).all()


def test_a_document_longer_than_may_wait_is_complete_all_the_same(monkeypatch):
    monkeypatch.setattr(module, "_WAITING_PAIRS", 1)
    case = random_case(ACTIVATIONS[1], gated=False)
    matrix = measured(*[case] * 5, documents=np.zeros((5, B), int))
    torch.testing.assert_close(dense(matrix.interactions()), dense(measured(case).interactions()))


@every_mlp
def test_chunks_threads_and_batches_change_nothing(gated, monkeypatch):
    case = repeated(random_case(ACTIVATIONS[2], gated), 60)
    whole = measured(case)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert np.array_equal(measured(case).sums_EP, whole.sums_EP)
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 1100)
    monkeypatch.setattr(module, "_ROW_CELLS", 2 * L)
    chunked = measured(case)
    np.testing.assert_allclose(chunked.sums_EP, whole.sums_EP)
    assert np.array_equal(chunked.together_E, whole.together_E)
    cut = [case._replace(latents_BK=case.latents_BK[s], values_BK=case.values_BK[s]) for s in CUTS]
    many = measured(*cut)
    torch.testing.assert_close(
        dense(many.interactions(normaliser="relative")), dense(whole.interactions(normaliser="relative"))
    )


CUTS = (slice(0, 7), slice(7, 150), slice(150, None))


@every_mlp
def test_tensor_formulation_for_other_devices(gated, monkeypatch):
    case = random_case(ACTIVATIONS[3], gated)
    expected = measured(case)

    def by_matmul(*args):
        args[-1].add_(module._pair_blocks_by_matmul(*args[:-1]))

    monkeypatch.setattr(module.kernels, "add_pair_blocks", by_matmul)
    np.testing.assert_allclose(measured(case).sums_EP, expected.sums_EP)


def test_parts_add_up():
    case = random_case(ACTIVATIONS[1], gated=False)
    other = same_tokens_other_mlp(case)
    pairs = PairInteractions(L, ("blocks.0", "blocks.1"))
    documents = np.array([0, 0, 1, 1])
    pairs.add({"blocks.1": contributions(other), "blocks.0": contributions(case)}, documents)
    both = pairs.result()
    blocks = {"blocks.0": measured(case), "blocks.1": measured(other)}
    for part, alone in blocks.items():
        torch.testing.assert_close(dense(both.interactions(part)), dense(alone.interactions()))
    summed = sum(dense(alone.interactions()) for alone in blocks.values())
    torch.testing.assert_close(dense(both.interactions()), summed)
    total = sum(float(alone.totals_P[0]) for alone in blocks.values())
    torch.testing.assert_close(dense(both.interactions("sum", "relative")), summed * B / total)


@pytest.mark.parametrize("cells", [1, 1 << 22])
def test_top_pairs_keep_exact_totals(cells, monkeypatch):
    monkeypatch.setattr(module, "_ROW_CELLS", cells)  # rows in one set each, or in as few as may be
    case = repeated(random_case(ACTIVATIONS[1], gated=False), 3)
    every, top = measured(case), measured(case, top=2)
    matrix, listed = every.interactions().toarray(), top.interactions().toarray()
    rows, columns = (np.sort(matrix, axis=axis) for axis in (1, 0))
    expected = (matrix > 0) & ((matrix >= rows[:, [-2]]) | (matrix >= columns[[-2]]))
    assert np.array_equal(listed > 0, expected)
    assert 0 < expected.sum() < (matrix > 0).sum()
    np.testing.assert_array_equal(listed[expected], matrix[expected])
    np.testing.assert_allclose(top.row_totals(), matrix.sum(1))
    np.testing.assert_allclose(top.column_totals(), matrix.sum(0))
    assert top.kept() == pytest.approx(listed.sum() / matrix.sum())
    assert top.interactions(normaliser="relative").sum() == pytest.approx(
        listed.sum() / matrix.sum() * every.interactions(normaliser="relative").sum()
    )


def test_codes_of_another_crosscoder_are_refused():
    with pytest.raises(XtalkError, match="expected 0 to 4"):
        PairInteractions(5, ("mlp",)).add(
            {"mlp": contributions(random_case(ACTIVATIONS[1], False))}, np.zeros(B, int)
        )


def test_other_parts_are_refused():
    with pytest.raises(XtalkError, match="expected the parts"):
        PairInteractions(L, ("a", "b")).add(
            {"a": contributions(random_case(ACTIVATIONS[1], False))}, np.zeros(B, int)
        )


def test_no_tokens_have_no_mean():
    with pytest.raises(XtalkError, match="no tokens"):
        PairInteractions(3, ("mlp",)).result()


def test_a_result_is_taken_once():
    case = random_case(ACTIVATIONS[1], gated=False)
    pairs = accumulated(case)
    pairs.result()
    with pytest.raises(XtalkError, match="was taken"):
        pairs.result()
    with pytest.raises(XtalkError, match="was taken"):
        pairs.add({"mlp": contributions(case)}, np.zeros(B, int))


@pytest.mark.parametrize("top", [None, 2])
def test_memory_holds_pairs_and_matrix_once(top):
    """What was added up is freed, and what the matrix lists is not held twice on the way."""
    n_latents, K, tokens = 600, 20, 4000
    generator = torch.Generator().manual_seed(0)
    latents = torch.rand(tokens, n_latents, generator=generator).argsort(1)[:, :K]
    active = torch.ones(tokens, K, dtype=torch.bool)
    values = torch.rand(1, tokens, K, K, generator=generator).double()
    tracemalloc.start()
    pairs = PairInteractions(n_latents, ("mlp",))
    groups = PairGroups(latents, active, latents, active, values, torch.arange(tokens))
    pairs.add_groups(groups, latents, active, np.arange(tokens) // 50)
    pairs._flush(everything=True)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    matrix = pairs.result(top)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = sum(a.nbytes for a in (matrix.column_E, matrix.together_E, matrix.sums_EP, matrix.errors_EQ))
    assert len(matrix.column_E) > 250_000 if top is None else 1000 < len(matrix.column_E) < 2400
    assert peak < before + size + 4e6  # one set of rows at work
    assert after < size + 1e6 < before


def test_unknown_parts_are_named():
    matrix = measured(random_case(ACTIVATIONS[1], gated=False))
    with pytest.raises(XtalkError, match="no part 'other'"):
        matrix.interactions("other")


def test_tokens_without_active_latents_have_an_empty_matrix():
    case = random_case(ACTIVATIONS[1], gated=False)
    case.values_BK.zero_()
    matrix = measured(case)
    assert matrix.interactions(normaliser="relative").nnz == 0
    assert matrix.kept() == 1
