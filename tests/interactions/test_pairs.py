import pytest
import torch
from interactions.cases import ACTIVATIONS, B, L, contributions, random_case, random_mlp, tied_case
from reference import interaction_loops as loops

import xtalk.interactions.pairs as module
from xtalk.errors import XtalkError
from xtalk.interactions.measures import interaction
from xtalk.interactions.pairs import PairInteractions, sum_over_blocks

every_mlp = pytest.mark.parametrize("gated", [False, True])
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda phi: phi.name)


def measured(*cases) -> PairInteractions:
    pairs = PairInteractions(L)
    for case in cases:
        pairs.add(contributions(case))
    return pairs


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
    torch.testing.assert_close(pairs.sums_LL, sums)
    assert torch.equal(pairs.co_active_LL, together)
    assert torch.equal(pairs.active_L, together.diagonal())
    assert pairs.tokens == 2 * B
    torch.testing.assert_close(pairs.matrix("none"), sums / (2 * B))
    torch.testing.assert_close(pairs.matrix("relative"), sums / total)
    where = together > 0
    torch.testing.assert_close(pairs.matrix("co_occurrence")[where], sums[where] / together[where])
    assert not pairs.matrix("co_occurrence")[~where].any()


def test_the_cases_repeat_pairs_across_tokens():
    """Without repeats a lost write would go unseen."""
    _, together, _ = loops.pair_sums(random_case(ACTIVATIONS[0], gated=False))
    assert int((together.fill_diagonal_(0) > 1).sum()) >= 12


@every_mlp
def test_many_tokens_with_the_same_pairs_add_up(gated):
    case = random_case(ACTIVATIONS[1], gated)
    many = case._replace(latents_BK=case.latents_BK.repeat(50, 1), values_BK=case.values_BK.repeat(50, 1))
    once, often = measured(case), measured(many)
    torch.testing.assert_close(often.sums_LL, 50 * once.sums_LL)
    assert torch.equal(often.co_active_LL, 50 * once.co_active_LL)


@every_mlp
@every_activation
def test_all_pairs_add_up_to_the_mean_interaction(activation, gated):
    case = random_case(activation, gated)
    pairs = measured(case)
    torch.testing.assert_close(pairs.matrix().sum(), interaction(contributions(case)).mean())
    assert not pairs.matrix().diagonal().any()
    assert 0 < float(pairs.matrix("relative").sum()) < 1


@every_mlp
def test_chunks_threads_and_batches_change_nothing(gated, monkeypatch):
    case = random_case(ACTIVATIONS[2], gated)
    case = case._replace(latents_BK=case.latents_BK.repeat(60, 1), values_BK=case.values_BK.repeat(60, 1))
    whole = measured(case)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(measured(case).sums_LL, whole.sums_LL)
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 1100)
    chunked = measured(case)
    torch.testing.assert_close(chunked.sums_LL, whole.sums_LL)
    assert torch.equal(chunked.co_active_LL, whole.co_active_LL)
    cut = [case._replace(latents_BK=case.latents_BK[s], values_BK=case.values_BK[s]) for s in CUTS]
    torch.testing.assert_close(measured(*cut).matrix("relative"), whole.matrix("relative"))


CUTS = (slice(0, 7), slice(7, 150), slice(150, None))


@every_mlp
def test_tensor_formulation_for_other_devices(gated, monkeypatch):
    case = random_case(ACTIVATIONS[3], gated)
    expected = measured(case)

    def by_matmul(*args):
        args[-1].add_(module._pair_blocks_by_matmul(*args[:-1]))

    monkeypatch.setattr(module.kernels, "add_pair_blocks", by_matmul)
    torch.testing.assert_close(measured(case).sums_LL, expected.sums_LL)


def test_blocks_add_up():
    case = random_case(ACTIVATIONS[1], gated=False)
    other = case._replace(mlp=random_mlp(ACTIVATIONS[1], False, torch.Generator().manual_seed(9)))
    blocks = measured(case), measured(other)
    both = sum_over_blocks(blocks)
    torch.testing.assert_close(both.matrix(), blocks[0].matrix() + blocks[1].matrix())
    assert both.tokens == B
    assert torch.equal(both.co_active_LL, blocks[0].co_active_LL)
    total = blocks[0].total + blocks[1].total
    torch.testing.assert_close(both.matrix("relative"), (blocks[0].sums_LL + blocks[1].sums_LL) / total)
    assert float(blocks[0].sums_LL.sum()) < float(both.sums_LL.sum())  # its summands are untouched


def test_blocks_at_different_tokens_do_not_add_up():
    first, second = (measured(random_case(ACTIVATIONS[1], gated=False, seed=seed)) for seed in (0, 1))
    with pytest.raises(XtalkError, match="different tokens"):
        sum_over_blocks([first, second])


def test_codes_of_another_crosscoder_are_refused():
    with pytest.raises(XtalkError, match=f"codes of {L} latents; expected 5"):
        PairInteractions(5).add(contributions(random_case(ACTIVATIONS[1], gated=False)))


def test_no_tokens_have_no_mean():
    with pytest.raises(XtalkError, match="no tokens"):
        PairInteractions(3).matrix()


def test_tokens_without_active_latents_have_a_relative_matrix_of_zeros():
    case = random_case(ACTIVATIONS[1], gated=False)
    case.values_BK.zero_()
    assert not measured(case).matrix("relative").any()
