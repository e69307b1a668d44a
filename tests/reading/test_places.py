"""Dictionaries in the residual stream: against loops, and by removing features from a model."""

from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
import torch
from evaluation.held_out import held_out
from reference.place_loops import linear, scale, token_case
from reference.tiny_models import BLOCKS, tiny_model, tiny_tokens

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import Counted
from xtalk.errors import XtalkError
from xtalk.interactions.measures import dominant_share, few_hot_shares, interaction, sound_bound
from xtalk.interactions.pairs import token_pairs
from xtalk.interactions.true_interaction import dominant_residual, mixed_difference, tightness
from xtalk.models.hookpoints import Hookpoint
from xtalk.reading.batches import Batch
from xtalk.reading.explained import Explained, ExplainedBatch
from xtalk.selftest import interaction_loops as loops

# LayerNorm and RMSNorm, ordinary and gated, parallel, post-norm, no norm in front of the MLP
KINDS = ("gpt_neo", "llama", "gpt_neox", "gemma2", "olmo2", "glm4")
SITES = ("ln2", "resid_mid", "resid_pre")
L, BLOCK = 9, 1


class Read(NamedTuple):
    explained: Explained
    batch: ExplainedBatch
    norm: object
    stream_BD: torch.Tensor

    @property
    def made(self):
        return self.batch.contributions[BLOCK]

    @property
    def place(self):
        return self.explained.places[BLOCK]


def dictionary(model, names) -> Crosscoder:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    D, P = model.d_model, len(names)
    return Crosscoder.from_tensors(
        W_enc=draw(P, D, L), W_dec=draw(L, P, D), b_enc=draw(L), b_dec=draw(P, D),
        hook_names=names, architecture="topk", k=4,
    ).requires_grad_(False)  # fmt: skip


def batch_of(tokens_mS) -> Batch:
    documents_mS = torch.arange(len(tokens_mS))[:, None].expand(tokens_mS.shape).numpy()
    return Batch(tokens_mS, documents_mS, Counted(1).mask(tokens_mS.numpy()))


@cache
def read(kind: str, site: str, error: str) -> Read:
    model = tiny_model(kind)
    name = f"blocks.{BLOCK}.{site}"
    explained = Explained(model, dictionary(model, [name]), error)
    batch = explained.read(batch_of(tiny_tokens(2, 4)))
    has_norm = Hookpoint(BLOCK, "ln2") in model.normed() and site != "ln2"
    norm, stream = model.norm_weights(Hookpoint(BLOCK, "ln2")) if has_norm else (None, None)
    stream = stream or Hookpoint(BLOCK, "ln2" if site == "ln2" else "resid_mid")
    stream_BD = batch.batch.counted(model.capture(batch.batch.tokens_mS, [stream])[:, :, 0])
    return Read(explained, batch, norm, stream_BD)


def cases(found: Read) -> list[loops.Case]:
    """A case for every token."""
    codes, place, cc = found.batch.codes, found.place, found.explained.crosscoder
    double = place.mlp.to(dtype=torch.float64)
    norm = None if found.norm is None else found.norm.to(dtype=torch.float64)
    return [
        token_case(
            norm, double, cc.W_dec[:, 0].double(), cc.b_dec[0].double(), codes.latents[b],
            codes.values[b].double(), found.stream_BD[b].double(), found.explained.error,
        )
        for b in range(len(codes.values))
    ]  # fmt: skip


def moved(found: Read, b: int, change_D: torch.Tensor) -> torch.Tensor:
    """A change of the MLP's output behind the post-norm, at the scale that the model's own output has."""
    norm = found.place.mlp.post_norm
    if norm is None:
        return change_D
    ln2 = found.explained.model.capture(found.batch.batch.tokens_mS, [Hookpoint(BLOCK, "ln2")])[:, :, 0]
    output_D = found.place.mlp(found.batch.batch.counted(ln2)[b])
    return linear(norm.to(dtype=torch.float64), change_D, scale(norm, output_D))


def readable(kind: str, site: str) -> bool:
    return not (kind == "gpt_neox" and site == "resid_mid")  # where the MLP reads the block's input


every = pytest.mark.parametrize(
    ("kind", "site", "error"),
    [(k, s, e) for k in KINDS for s in SITES for e in ("drop", "keep") if readable(k, s)],
)


@every
def test_contributions_and_bases_are_those_of_loops(kind, site, error):
    found = read(kind, site, error)
    for b, case in enumerate(cases(found)):
        for index, path in enumerate(found.made.paths):
            base_N = path.base_BN[b if len(path.base_BN) > 1 else 0]
            for k in range(0, len(base_N), 7):
                assert float(base_N[k]) == pytest.approx(
                    float(loops.base(case, index, k)), rel=1e-4, abs=1e-4
                )
                for i in case.slots:
                    slots = torch.full((len(found.stream_BD), len(base_N)), i)
                    expected = float(loops.contribution(case, index, 0, k, i))
                    assert float(path.at(slots)[b, k]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@every
def test_measures_are_those_of_loops(kind, site, error):
    """Share, T, few-hot, pairs, mixed difference and residual, post-norms at the token's own scale."""
    found, b = read(kind, site, error), 3
    case = cases(found)[b]
    shares = [float(loops.share(case, 0, k, 1)) for k in case.neurons]
    torch.testing.assert_close(dominant_share(found.made)[b].double(), torch.tensor(shares).double(), **CLOSE)
    few = [float(loops.share(case, 0, k, 2)) for k in case.neurons]
    torch.testing.assert_close(few_hot_shares(found.made)[2][b].double(), torch.tensor(few).double(), **CLOSE)
    norms = torch.stack([moved(found, b, W_D).norm() for W_D in case.mlp.W_out])
    pairs, K = torch.zeros(4, 4).double(), case.slots
    for k in case.neurons:
        dominant, *others = loops.ranking(case, 0, k)
        for j in others:
            charge = loops.interaction_charge(case, 0, k, j) / case.mlp.W_out[k].norm() * norms[k]
            pairs[dominant, j] += float(charge)
    torch.testing.assert_close(token_pairs(found.made)[b], pairs, rtol=1e-3, atol=1e-3)
    assert float(interaction(found.made)[b]) == pytest.approx(float(pairs.sum()), rel=1e-3)
    for i, j in combinations(K, 2):
        expected_D = moved(found, b, loops.mixed_difference(case, 0, i, j))
        one = (torch.tensor([slot]) for slot in (b, i, j))
        torch.testing.assert_close(
            mixed_difference(found.made, *one)[0].double(), expected_D, rtol=1e-3, atol=1e-3
        )
    full, kept = (loops.output(case, 0, keep) for keep in (loops.keep_all(case), loops.keep(case, 1)))
    residual_D = moved(found, b, full - kept)
    torch.testing.assert_close(dominant_residual(found.made)[b].double(), residual_D, rtol=1e-3, atol=1e-3)
    bound_B = sound_bound(found.made)
    assert float(tightness(found.made)[b]) == pytest.approx(float(bound_B[b] / residual_D.norm()), rel=1e-3)
    assert bool((tightness(found.made) >= 1 - 1e-5).all())


CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize(("kind", "site"), [(k, s) for k in KINDS for s in SITES if readable(k, s)])
def test_with_the_error_kept_all_contributions_are_the_model(kind, site):
    found = read(kind, site, "keep")
    model = found.explained.model
    points = [Hookpoint(BLOCK, "resid_mid"), Hookpoint(BLOCK, "resid_post")]
    mid, post = (
        found.batch.batch.counted(x) for x in model.capture(found.batch.batch.tokens_mS, points).unbind(2)
    )
    rebuilt_BD = found.made.output(found.made.totals)
    torch.testing.assert_close(mid + model.added(BLOCK, rebuilt_BD), post, rtol=1e-3, atol=1e-3)
    dropped = read(kind, site, "drop").made
    assert (dropped.output(dropped.totals) - rebuilt_BD).abs().max() > 0.1


@pytest.mark.parametrize(("kind", "site"), [(k, s) for k in KINDS for s in SITES if readable(k, s)])
def test_a_removed_feature_takes_its_contribution_from_the_models_own_modules(kind, site):
    """The norm's output without the feature is brought from its scale to the token's."""
    found, b = read(kind, site, "keep"), 2
    model, codes, norm = found.explained.model, found.batch.codes, found.norm
    block = model._blocks[BLOCK]
    for slot in range(4):
        part_D = codes.values[b, slot] * found.explained.crosscoder.W_dec[codes.latents[b, slot], 0]
        without_D = found.stream_BD[b] - part_D
        if norm is not None:
            path = model._family.norm2
            normed_D = block.get_submodule(path)(without_D[None])[0]
            ratio = norm.scale(without_D[None]) / norm.scale(found.stream_BD[b : b + 1])
            without_D = (normed_D - norm.bias) * ratio + norm.bias
        expected_D = found.place.mlp(without_D)
        kept = tuple(
            path.total()[b : b + 1] - path.at(torch.full((len(codes.values), path.M_LN.shape[1]), slot))[b]
            for path in found.made.paths
        )
        activations_1N = found.made.activations(kept, torch.tensor([b]))
        rebuilt_D = (activations_1N @ found.place.mlp.W_out + found.place.mlp.b_out)[0]
        torch.testing.assert_close(rebuilt_D, expected_D, rtol=1e-3, atol=1e-3)
        changed_D = expected_D - found.place.mlp_output(found.stream_BD[b])
        assert bool(changed_D.abs().max() > 1e-3) == bool(codes.values[b, slot] > 0)


def test_the_place_is_the_hookpoint_next_before_the_mlp():
    model = tiny_model("gpt_neo")

    def places(*names):
        return {b: str(p.point) for b, p in Explained(model, dictionary(model, names)).places.items()}

    assert places("blocks.0.resid_post") == {1: "blocks.0.resid_post"}
    assert places("blocks.1.resid_pre", "blocks.1.resid_mid") == {1: "blocks.1.resid_mid"}
    assert places("blocks.0.ln2", "blocks.1.resid_mid") == {0: "blocks.0.ln2"}  # where it has MLPs' inputs
    assert places("blocks.0.resid_pre", "blocks.1.resid_pre") == {
        0: "blocks.0.resid_pre",
        1: "blocks.1.resid_pre",
    }
    parallel = tiny_model("gpt_neox")
    assert Explained(parallel, dictionary(parallel, ["blocks.1.resid_pre"])).blocks == (1,)
    for refused, name in ((model, f"blocks.{BLOCKS - 1}.resid_post"), (parallel, "blocks.1.resid_mid")):
        with pytest.raises(XtalkError, match="no hookpoint in front of an MLP"):
            _ = Explained(refused, dictionary(refused, [name])).blocks


def test_resid_post_of_the_block_before_is_resid_pre():
    made = []
    for name in ("blocks.0.resid_post", "blocks.1.resid_pre"):
        model = tiny_model("llama")
        made.append(
            Explained(model, dictionary(model, [name])).read(batch_of(tiny_tokens())).contributions[1]
        )
    torch.testing.assert_close(interaction(made[0]), interaction(made[1]))


def test_streams_of_some_places_of_a_text_are_those_read():

    model, text = tiny_model("llama"), held_out(5, 6)
    explained = Explained(model, dictionary(model, ["blocks.1.resid_pre"]))
    places = np.array([1, 7, 8, 29])
    found = explained.streams_at(text, places)
    assert list(found) == [Hookpoint(1, "resid_mid")]
    whole_BD = model.capture(torch.from_numpy(text.tokens).long(), list(found))[:, :, 0].flatten(0, 1)
    torch.testing.assert_close(found[Hookpoint(1, "resid_mid")], whole_BD[places])
    assert Explained(model, dictionary(model, ["blocks.1.ln2"])).streams_at(text, places) == {}
