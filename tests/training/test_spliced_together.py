"""Penalties that rebuild several MLPs at once, against hooks on transformers' own modules."""

import pytest
import torch
from reference import together
from reference.tiny_models import BLOCKS, D_MODEL, tiny_model
from training.test_spliced import NO_DEAD, SEQUENCES, problem, some_tokens, trained

from xtalk.errors import XtalkError
from xtalk.interactions.contributions import MlpContributions
from xtalk.interactions.penalties import FEW_HOT
from xtalk.training.spliced import SPLICES, SplicedTogether, Term, places_of, true_run

TOGETHER = [name for name, splice in SPLICES.items() if splice.together]
A, B = ("a", 1), ("b", 2)


@pytest.mark.parametrize("kind", ["gpt_neo", "llama", "gemma2"])
@pytest.mark.parametrize("blocks", [(0, 1, 2), (1, 2), (0, 2)])
def test_divergence_and_gradient_equal_those_of_a_hooked_model(kind: str, blocks: tuple[int, ...]):
    """Ordinary and gated MLPs, norms behind them, blocks between; tokens here and there."""
    model, places = tiny_model(kind), places_of(some_tokens(), SEQUENCES)
    outputs = torch.randn(2, len(blocks), 11, D_MODEL, generator=torch.Generator().manual_seed(3))
    outputs.requires_grad_()
    by_term: dict[Term, dict[int, torch.Tensor]] = {
        term: dict(zip(blocks, own, strict=True)) for term, own in zip((A, B), outputs, strict=True)
    }
    group = SplicedTogether("all", model, {}, ablated=0.25)
    found = group.divergences(true_run(model, blocks, places), by_term)
    at = list(zip(places.rows_B.tolist(), places.positions_B.tolist(), strict=True))
    for n, term in enumerate((A, B)):
        slow = together.divergence(model.hf, places.tokens_mS, at, by_term[term]) * D_MODEL / 0.25
        torch.testing.assert_close(found[term].double(), slow, rtol=1e-4, atol=0)
        fast, expected = (
            torch.autograd.grad(kl, outputs, retain_graph=True)[0] for kl in (found[term], slow)
        )
        torch.testing.assert_close(fast, expected, rtol=1e-3, atol=1e-5)
        assert bool(fast[n].abs().amax(dim=(1, 2)).gt(1e-4).all()) and not fast[1 - n].any()


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt_neo")


@pytest.mark.parametrize("name", TOGETHER)
def test_its_value_is_that_of_codes_of_the_clean_run(model, name: str):
    objective, crosscoder, x_BPD, batch = problem(model, {name: 2.0})
    places = places_of(batch, SEQUENCES)
    loss, codes, parts = objective(crosscoder, x_BPD, NO_DEAD, 0.5, places)
    blocks = range(0 if name.endswith("_with_0") else 1, BLOCKS)
    numbers = {"keep_one": (1,), "full_sum": (None,), "keep_few": FEW_HOT}[name[:8]]
    [group] = objective.together
    at, expected = list(zip(places.rows_B.tolist(), places.positions_B.tolist(), strict=True)), 0.0
    for m in numbers:
        outputs: dict[int, torch.Tensor] = {}
        for block in blocks:
            p, s = objective.mlps[block].hook_index, objective.mlps[block].scale
            d_LD, b_D, mlp = crosscoder.W_dec[:, p] / s, crosscoder.b_dec[p] / s, model.mlp_weights(block)
            plain = MlpContributions(d_LD, b_D, codes, mlp)
            outputs[block] = plain.output(plain.keep(m))
        kl = together.divergence(model.hf, places.tokens_mS, at, outputs)
        expected += kl * D_MODEL / group.ablated / len(numbers)
    torch.testing.assert_close(parts[name].double(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(loss, parts["recon"] + 0.5 * 2.0 * parts[name])
    loss.backward()
    moved_P = (crosscoder.W_dec.grad - recon_gradient(model)).abs().amax(dim=(0, 2))
    names = zip(crosscoder.config.hook_names, moved_P, strict=True)
    assert {n for n, moved in names if moved > 1e-4} == {f"blocks.{block}.ln2" for block in blocks}


def recon_gradient(model) -> torch.Tensor:
    _, crosscoder, x_BPD, _ = problem(model, {"keep_one": 1.0})
    objective = problem(model, {"keep_one": 1e-20})[0]
    objective(crosscoder, x_BPD, NO_DEAD, 1.0)[0].backward()
    assert crosscoder.W_dec.grad is not None
    return crosscoder.W_dec.grad


def test_all_at_their_means_cost_d_and_ablation_is_of_all_at_once(model):
    objective, *_ = problem(model, {"keep_one_together": 1.0, "keep_one_together_with_0": 1.0})
    sample = torch.from_numpy(SEQUENCES.tokens[:6]).long()
    at = [(row, position) for row in range(6) for position in range(sample.shape[1])]
    for group, blocks in zip(objective.together, [(1, 2), (0, 1, 2)], strict=True):
        assert tuple(group.places) == blocks
        own = together.clean_outputs(model.hf, sample)
        means = {b: own[b].flatten(0, 1).mean(0).expand(len(at), -1) for b in blocks}
        assert group.ablated == pytest.approx(
            together.divergence(model.hf, sample, at, means).item(), rel=1e-3
        )


def test_with_penalties_of_single_mlps_each_has_the_value_that_it_has_alone(model):
    names = ["keep_one", "full_sum_kl", "keep_one_together", "keep_few_together_with_0"]
    objective, crosscoder, x_BPD, batch = problem(model, dict.fromkeys(names, 1.0))
    places = places_of(batch, SEQUENCES)
    parts = objective(crosscoder, x_BPD, NO_DEAD, 1.0, places)[2]
    for name in names:
        alone, crosscoder, x_BPD, _ = problem(model, {name: 1.0})
        torch.testing.assert_close(
            parts[name], alone(crosscoder, x_BPD, NO_DEAD, 1.0, places)[2][name], rtol=1e-5, atol=1e-5
        )


def test_it_trains_and_resumes_bit_for_bit(model, tmp_path):
    names = "keep_one_together", "keep_few_together_with_0"
    whole = trained(model, 100.0, penalties=names)
    assert not torch.equal(whole.W_dec, trained(model, 1e-9, penalties=names).W_dec)
    with pytest.raises(KeyboardInterrupt):
        trained(model, 100.0, tmp_path, stop=24, penalties=names)
    assert torch.equal(whole.W_dec, trained(model, 100.0, tmp_path, penalties=names).W_dec)


def test_several_mlps_are_asked_for(model):
    message = r"keep_one_together, .* at once, all but block 0's; .* inputs of 1; add ln2 of more blocks"
    with pytest.raises(XtalkError, match=message):
        problem(model, {"keep_one_together": 1.0}, ["blocks.0.ln2", "blocks.1.ln2"])
