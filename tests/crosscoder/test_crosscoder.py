"""The crosscoder: encoding token by token, decoding, folding of the scaling, initialisation."""

import pytest
import torch
from crosscoder.small import HOOKS, D, K, L, P, activations, small_crosscoder
from torch.nn import functional as F

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder, fold_scaling
from xtalk.errors import XtalkError

ARCHITECTURES = ("relu", "topk", "batchtopk", "jumprelu")


def reference_codes(crosscoder: Crosscoder, x_PD: torch.Tensor) -> dict[int, float]:
    """One token's active latents and values, by loops."""
    pre = [
        sum(float(x_PD[p] @ crosscoder.W_enc[p, :, i]) for p in range(P)) + float(crosscoder.b_enc[i])
        for i in range(L)
    ]
    if crosscoder.config.architecture == "topk":
        kept = sorted(range(L), key=lambda i: -pre[i])[:K]
    else:
        kept = [i for i in range(L) if pre[i] > crosscoder.threshold[i]]
    return {i: pre[i] for i in kept if pre[i] > 0}


def of_token(codes, b: int) -> dict[int, float]:
    pairs = zip(codes.latents[b].tolist(), codes.values[b].tolist(), strict=True)
    return {latent: value for latent, value in pairs if value}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encode_and_decode_match_a_loop(architecture: str):
    crosscoder = small_crosscoder(architecture).requires_grad_(False)
    x_BPD = activations()
    codes = crosscoder.encode_sparse(x_BPD)
    decoded_BPD = crosscoder.decode(codes)
    for b, x_PD in enumerate(x_BPD):
        expected = reference_codes(crosscoder, x_PD)
        assert of_token(codes, b) == pytest.approx(expected, rel=1e-4, abs=1e-5)
        rebuilt_PD = crosscoder.b_dec + sum(value * crosscoder.W_dec[i] for i, value in expected.items())
        torch.testing.assert_close(decoded_BPD[b], rebuilt_PD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tokens_code_does_not_depend_on_its_batch(architecture: str):
    """The published code inferred with BatchTopK: later tokens changed earlier codes."""
    crosscoder = small_crosscoder(architecture).requires_grad_(False)
    x_BPD = activations()
    in_batch = crosscoder.encode_sparse(x_BPD)
    changed_BPD = x_BPD.clone()
    changed_BPD[20:] *= 100
    beside_others = crosscoder.encode_sparse(changed_BPD)
    for b in range(20):
        alone = of_token(crosscoder.encode_sparse(x_BPD[b : b + 1]), 0)
        assert alone  # there is something to compare
        for codes in (in_batch, beside_others):
            assert of_token(codes, b) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folding_gives_the_same_codes_and_the_unscaled_reconstruction(architecture: str):
    crosscoder = small_crosscoder(architecture).requires_grad_(False)
    factor_P = torch.tensor([0.02, 3.0, 500.0])
    raw_BPD = activations() / factor_P[:, None]
    folded = fold_scaling(crosscoder, factor_P)
    expected, codes = crosscoder.encode_sparse(raw_BPD * factor_P[:, None]), folded.encode_sparse(raw_BPD)
    assert torch.equal(codes.latents, expected.latents)
    torch.testing.assert_close(codes.values, expected.values, rtol=1e-5, atol=1e-5)
    rebuilt_BPD = crosscoder.decode(expected) / factor_P[:, None]
    torch.testing.assert_close(folded.decode(codes), rebuilt_BPD, rtol=1e-5, atol=1e-5)
    assert folded.config == crosscoder.config


def test_initial_crosscoder_is_a_centred_tied_pair_of_unit_directions():
    config = CrosscoderConfig(d_in=D, d_sae=L, k=K, hook_names=HOOKS)
    crosscoder = Crosscoder(config).requires_grad_(False)
    mean_PD = activations(1)[0]
    direction_LPD = 3 * torch.randn(crosscoder.W_dec.shape, generator=torch.Generator().manual_seed(0))
    crosscoder.initialise(mean_PD, direction_LPD)
    torch.testing.assert_close(
        F.cosine_similarity(crosscoder.W_dec.flatten(1), direction_LPD.flatten(1)), torch.ones(L)
    )
    torch.testing.assert_close(crosscoder.W_dec.flatten(1).norm(dim=1), torch.ones(L))
    assert torch.equal(crosscoder.W_enc, crosscoder.W_dec.permute(1, 2, 0))
    assert crosscoder.pre_activations(mean_PD[None]).abs().max() < 1e-5


def test_hookpoints_by_name():
    assert small_crosscoder().hook_index("blocks.1.ln2") == 1
    with pytest.raises(XtalkError, match=r"no hookpoint blocks.2.ln2; it has blocks.0.ln2"):
        small_crosscoder().hook_index("blocks.2.ln2")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"k": L + 1}, "k is 17, more than d_sae 16"),
        ({"k": 0}, "greater than or equal to 1"),
        ({"hook_names": ()}, "at least 1"),
        ({"hook_names": ("a", "b", "a")}, "repeats a hookpoint"),
        ({"architecture": "gated"}, "architecture"),
        ({"d_hidden": 3}, "Extra inputs"),
    ],
)
def test_impossible_configurations_are_refused(changes, match: str):
    with pytest.raises(ValueError, match=match):
        CrosscoderConfig(**{"d_in": D, "d_sae": L, "k": K, "hook_names": HOOKS} | changes)
