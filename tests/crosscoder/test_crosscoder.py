"""The crosscoder: encoding token by token, decoding, folding of the scaling, initialisation."""

import pytest
import torch
from crosscoder.small import HOOKS, D, K, L, P, activations, small_crosscoder
from torch.nn import functional as F

from xtalk.codes import Codes
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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("leading", [(), (1,), (6,), (2, 3), (2, 1, 3), (0,)])
def test_dense_codes_have_the_leading_axes_of_the_activations(architecture: str, leading: tuple[int, ...]):
    crosscoder = small_crosscoder(architecture).requires_grad_(False)
    tokens = torch.Size(leading).numel()
    x_BPD = activations(max(tokens, 1))[:tokens]
    x = x_BPD.view(*leading, P, D)
    if not tokens:
        assert crosscoder.encode(x).shape == (*leading, L)
        assert crosscoder.decode(crosscoder.encode(x)).shape == x.shape
        return
    f, codes = crosscoder.encode(x), crosscoder.encode_sparse(x)
    assert torch.equal(f.reshape(-1, L), codes.dense())
    rebuilt = crosscoder.decode(f)
    assert rebuilt.shape == x.shape
    torch.testing.assert_close(rebuilt.reshape(-1, P, D), crosscoder.decode(codes))
    for b, x_PD in enumerate(x_BPD):
        dense_L = torch.zeros(L)
        for latent, value in reference_codes(crosscoder, x_PD).items():
            dense_L[latent] = value
        torch.testing.assert_close(f.reshape(-1, L)[b], dense_L, rtol=1e-4, atol=1e-5)


def test_a_crosscoder_of_one_hookpoint_has_no_hookpoint_axis():
    crosscoder = small_crosscoder(hook_names=HOOKS[:1]).requires_grad_(False)
    x_BD = activations()[:, 0]
    f_BL = crosscoder.encode(x_BD)
    assert f_BL.shape == (len(x_BD), L)
    assert crosscoder.decode(f_BL).shape == x_BD.shape
    assert crosscoder.encode(x_BD[:1]).shape == (1, L)  # whatever the number of tokens
    assert torch.equal(crosscoder.encode(x_BD[:, None]), f_BL[:, None])  # an axis of 1 is like any other
    assert torch.equal(crosscoder.encode_sparse(x_BD[:, None]).dense(), f_BL)
    assert torch.equal(crosscoder.decode(crosscoder.encode_sparse(x_BD))[:, 0], crosscoder.decode(f_BL))


def test_dense_codes_pass_gradients_and_numpy_will_do():
    crosscoder = small_crosscoder()
    x_BPD = activations().requires_grad_()
    crosscoder.encode(x_BPD).square().sum().backward()
    assert x_BPD.grad is not None and x_BPD.grad.any() and crosscoder.W_enc.grad.any()
    x = activations()
    assert torch.equal(crosscoder.encode(x.numpy()), crosscoder.encode(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_results_have_the_crosscoders_dtype(dtype: torch.dtype):
    crosscoder = small_crosscoder().requires_grad_(False).to(dtype)
    x = activations()
    f = crosscoder.encode(x)
    assert f.dtype == crosscoder.encode_sparse(x).values.dtype == crosscoder.decode(f).dtype == dtype
    if dtype == torch.float64:
        exact = torch.einsum("bpd,pdl->bl", x.double(), crosscoder.W_enc) + crosscoder.b_enc
        torch.testing.assert_close(f, exact * ((exact > crosscoder.threshold) & (exact > 0)))


@pytest.mark.parametrize("shape", [(P, D + 1), (4, D), (D,), (2, P - 1, D), ()])
def test_activations_of_another_shape_are_refused(shape: tuple[int, ...]):
    for encode in (small_crosscoder().encode, small_crosscoder().encode_sparse):
        with pytest.raises(XtalkError, match=r"expected \(..., 3, 5\), for hookpoints P = 3 and d_in D = 5"):
            encode(torch.zeros(shape)) if shape else encode(torch.zeros(1))
    with pytest.raises(XtalkError, match=r"shape \(4, 6\); expected \(..., 5\), for hookpoints P = 1"):
        small_crosscoder(hook_names=HOOKS[:1]).encode(torch.zeros(4, 6))


def test_codes_of_another_crosscoder_are_refused():
    for codes in (torch.zeros(2, L + 1), Codes(torch.zeros(2, 1).long(), torch.zeros(2, 1), L + 1)):
        with pytest.raises(XtalkError, match="codes of 17 latents; expected the crosscoder's 16"):
            small_crosscoder().decode(codes)


def tensors(crosscoder: Crosscoder) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in crosscoder.named_parameters()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_crosscoder_of_own_tensors(architecture: str):
    crosscoder = small_crosscoder(architecture)
    own = Crosscoder.from_tensors(
        **tensors(crosscoder), hook_names=list(HOOKS), architecture=architecture, k=K
    )
    assert own.config == crosscoder.config
    assert own.threshold.requires_grad == crosscoder.threshold.requires_grad
    assert torch.equal(own.encode(activations()), crosscoder.encode(activations()))
    with torch.no_grad():
        own.W_dec.zero_()
    assert crosscoder.W_dec.any()  # copied


def test_one_hookpoint_and_one_threshold_for_all():
    given = tensors(small_crosscoder("jumprelu", HOOKS[:1]))
    flat = given | {"W_enc": given["W_enc"][0], "W_dec": given["W_dec"][:, 0], "b_dec": given["b_dec"][0]}
    own, short = (
        Crosscoder.from_tensors(**some | {"threshold": 0.3}, hook_names=HOOKS[0], architecture="jumprelu")
        for some in (given, flat)
    )
    assert own.config.k == L
    assert torch.equal(own.threshold, torch.full((L,), 0.3))
    assert torch.equal(short.encode(activations()[:, 0]), own.encode(activations()[:, 0]))
    assert Crosscoder.from_tensors(
        **{name: tensor.double() for name, tensor in flat.items()}, hook_names="a", architecture="jumprelu"
    ).W_dec.dtype == torch.float64  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"architecture": "gated"},
            "unknown nonlinearity 'gated'; expected one of relu, topk, batchtopk, jump",
        ),
        ({"threshold": None}, "a batchtopk crosscoder without a threshold"),
        ({"architecture": "topk", "k": None}, "a topk crosscoder without k"),
        ({"k": 17}, "k is 17, more than d_sae 16"),
        ({"W_dec": torch.zeros(P, D, L)}, r"W_dec is \(3, 5, 16\); expected \(16, 3, 5\): 3 hookpoints"),
        ({"W_enc": torch.zeros(D, L)}, r"W_enc is \(5, 16\); expected \(3, 5, 16\)"),
        ({"W_enc": torch.zeros(L)}, "W_enc has 1 axis"),
        ({"hook_names": HOOKS[:2]}, r"W_enc is \(3, 5, 16\); expected \(2, 5, 16\)"),
        ({"hook_names": ()}, "hook_names"),
        ({"threshold": torch.zeros(3)}, r"threshold is \(3,\); expected \(16,\)"),
        ({"b_enc": torch.full((L,), float("nan"))}, "b_enc has NaN or infinity"),
    ],
)
def test_own_tensors_that_make_no_crosscoder_are_refused(changes, match: str):
    given = {**tensors(small_crosscoder()), "hook_names": HOOKS, "architecture": "batchtopk", "k": K}
    with pytest.raises(XtalkError, match=match):
        Crosscoder.from_tensors(**given | changes)


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
        ({"architecture": "gated"}, "unknown nonlinearity 'gated'; expected one of relu, topk"),
        ({"d_hidden": 3}, "Extra inputs"),
    ],
)
def test_impossible_configurations_are_refused(changes, match: str):
    with pytest.raises(ValueError, match=match):
        CrosscoderConfig(**{"d_in": D, "d_sae": L, "k": K, "hook_names": HOOKS} | changes)


def transcoder(D: int = 4, L: int = 6) -> Crosscoder:
    generator = torch.Generator().manual_seed(5)
    drawn = {
        name: torch.randn(*shape, generator=generator)
        for name, shape in (("W_enc", (2, D, L)), ("W_dec", (L, 3, D)), ("b_enc", (L,)), ("b_dec", (3, D)))
    }
    return Crosscoder.from_tensors(
        **drawn,
        hook_names=("blocks.0.ln2", "blocks.1.ln2"),
        hook_names_out=("a", "b", "c"),
        W_skip=torch.randn(2, D, 3, D, generator=generator),
        gate=torch.rand(3, L, generator=generator),
        architecture="relu",
    )


def test_a_transcoder_writes_other_hookpoints_through_gates_and_a_skip():
    cc = transcoder()
    x = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(6))
    got = cc(x)
    assert got.shape == (5, 3, 4)
    f = (torch.einsum("bpd,pdl->bl", x, cc.W_enc) + cc.b_enc).relu()
    gated = 0
    for b in range(5):
        for q in range(3):
            expected = cc.b_dec[q].clone()
            for i in range(6):
                gated += bool(0 < f[b, i] <= cc.gate[q, i])
                if f[b, i] > cc.gate[q, i]:
                    expected += f[b, i] * cc.W_dec[i, q]
            for p in range(2):
                expected += x[b, p] @ cc.W_skip[p, :, q]
            assert torch.allclose(got[b, q], expected, atol=1e-5)
    assert gated > 1  # the gates decide something
    assert torch.allclose(cc.decode(cc.encode_sparse(x)), cc.decode(cc.encode(x)))


def test_a_transcoder_keeps_everything_on_disk(tmp_path):
    cc = transcoder()
    cc.save(tmp_path)
    loaded = Crosscoder.load(tmp_path)
    assert loaded.config == cc.config
    assert all(torch.equal(loaded.get_parameter(name), tensor) for name, tensor in cc.named_parameters())
    assert loaded.gate is not None and not loaded.gate.requires_grad
