"""Crosscoders on disk: exact round trips, and refusals in one line."""

import json
from pathlib import Path

import pytest
import torch
from crosscoder.small import HOOKS, K, L, activations, small_crosscoder
from safetensors.torch import load_file, save_file

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.provenance import Provenance
from xtalk.crosscoder.saving import CFG, WEIGHTS, check_model, read_provenance
from xtalk.errors import XtalkError

PROVENANCE = Provenance(
    model_name="tiny",
    model_weights_hash="ab" * 32,
    text_hash="cd" * 32,
    scaling_factors=(0.1, 1 / 3, 7.0),
    training_tokens=1000,
    train_batch_size_tokens=10,
    penalties={"sum_minus_max": 300.0},
    seed=3,
)


def saved(folder: Path, **how) -> Path:
    small_crosscoder(**how).save(folder, PROVENANCE)
    return folder


def refused(folder: Path, match: str) -> None:
    with pytest.raises(XtalkError, match=match) as caught:
        Crosscoder.load(folder)
    assert "\n" not in str(caught.value)


def rewrite_cfg(folder: Path, **changes) -> None:
    cfg = json.loads((folder / CFG).read_text()) | changes
    (folder / CFG).write_text(json.dumps({key: value for key, value in cfg.items() if value is not None}))


def rewrite_weights(folder: Path, **changes) -> None:
    """Change tensors and keep the hash right, so that later checks are reached."""
    from hashlib import sha256

    tensors = {k: v for k, v in (load_file(folder / WEIGHTS) | changes).items() if v is not None}
    save_file(tensors, folder / WEIGHTS)
    rewrite_cfg(folder, sae_weights_sha256=sha256((folder / WEIGHTS).read_bytes()).hexdigest())


@pytest.mark.parametrize("architecture", ["relu", "topk", "batchtopk", "jumprelu"])
def test_round_trip_is_exact(tmp_path: Path, architecture: str):
    crosscoder = small_crosscoder(architecture)
    crosscoder.save(tmp_path / "a", PROVENANCE)
    loaded = Crosscoder.load(tmp_path / "a")
    assert loaded.config == crosscoder.config
    for name, parameter in crosscoder.named_parameters():
        again = loaded.get_parameter(name)
        assert torch.equal(again, parameter)
        assert again.requires_grad == parameter.requires_grad
    assert read_provenance(tmp_path / "a") == loaded.provenance == PROVENANCE
    codes, expected = loaded.encode_sparse(activations()), crosscoder.encode_sparse(activations())
    assert torch.equal(codes.latents, expected.latents)
    assert torch.equal(loaded.decode(codes), crosscoder.decode(expected))
    loaded.save(tmp_path / "b")
    for file in (CFG, WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_cfg_has_the_ecosystems_keys(tmp_path: Path):
    cfg = json.loads((saved(tmp_path) / CFG).read_text())
    assert cfg["architecture"] == "crosscoder"
    assert cfg["format_version"] == 1
    assert (cfg["d_in"], cfg["d_sae"], cfg["k"]) == (5, L, K)
    assert cfg["hook_names"] == list(HOOKS)
    assert cfg["training_tokens"] == 1000
    assert cfg["train_batch_size_tokens"] == 10
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / WEIGHTS).items()}
    assert shapes == {
        "W_enc": (3, 5, 16), "W_dec": (16, 3, 5), "b_enc": (16,), "b_dec": (3, 5), "threshold": (16,)
    }  # fmt: skip


def test_hookpoints_of_several_models(tmp_path: Path):
    names = ("base/blocks.0.ln2", "chat/blocks.0.ln2", "org/chat/blocks.1.ln2")
    assert Crosscoder.load(saved(tmp_path, hook_names=names)).config.hook_names == names


def test_another_model_is_refused(tmp_path: Path):
    folder = saved(tmp_path)
    check_model(folder, "tiny", PROVENANCE.model_weights_hash)
    with pytest.raises(XtalkError, match=r"is of the model tiny .*; the model at hand is other"):
        check_model(folder, "other", "ef" * 32)


@pytest.mark.parametrize("name", [CFG, WEIGHTS])
def test_missing_cut_and_corrupted_files_are_refused(tmp_path: Path, name: str):
    folder = saved(tmp_path)
    whole = (folder / name).read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 2):
        (folder / name).write_bytes(whole[:size])
        refused(folder, name)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    (folder / name).write_bytes(bytes(flipped))
    refused(folder, name)
    (folder / name).unlink()
    refused(
        folder, "No such file" if name == WEIGHTS else f"holds {WEIGHTS}; expected a crosscoder in one of"
    )
    refused(tmp_path / "nowhere", "no folder .*nowhere")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"architecture": "standard"},
            r"sae_weights.safetensors is not a crosscoder's: W_dec is torch.float32 \(16, 3, 5\), expected",
        ),
        ({"format_version": 2}, "format_version"),
        ({"k": L + 1}, "more than d_sae"),
        ({"d_sae": None}, "d_sae: Field required"),
        (
            {"nonlinearity": "gated"},
            "unknown nonlinearity 'gated'; expected one of relu, topk, batchtopk, jump",
        ),
        ({"d_sae": 10**12}, "W_dec is|W_enc is|b_enc is"),
        ({"scaling_factors": [1.0]}, "1 scaling_factors for 3 hook_names"),
        ({"hook_names": list(HOOKS[:2]), "scaling_factors": [1.0, 1.0]}, "W_dec is float32"),
        ({"sae_weights_sha256": "00"}, "sha256"),
    ],
)
def test_wrong_cfg_is_refused(tmp_path: Path, changes, match: str):
    folder = saved(tmp_path)
    rewrite_cfg(folder, **changes)
    refused(folder, match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"W_enc": torch.zeros(3, 5, 15)}, r"W_enc is float32 \(3, 5, 15\), expected float32 \(3, 5, 16\)"),
        ({"W_enc": torch.zeros(3, 5, 16, dtype=torch.float16)}, "W_enc is float16"),
        ({"b_dec": None}, "b_dec is missing"),
        ({"extra": torch.zeros(1)}, r"extra is float32 \(1,\), expected missing"),
        ({"threshold": torch.full((L,), float("nan"))}, "threshold has NaN"),
    ],
)
def test_wrong_weights_are_refused(tmp_path: Path, changes, match: str):
    folder = saved(tmp_path)
    rewrite_weights(folder, **changes)
    refused(folder, match)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"crosscoder"', "{}", "\x00\x01"])
def test_foreign_cfg_is_refused(tmp_path: Path, content: str):
    folder = saved(tmp_path)
    (folder / CFG).write_text(content)
    refused(folder, CFG)


def test_another_format_and_a_file_are_refused(tmp_path: Path):
    (tmp_path / CFG).write_text('{"d_in": 4, "d_sae": 8, "architecture": "standard"}')
    known = r"known formats: xtalk, SAELens, .*; give the folder of one"
    refused(
        tmp_path, r"holds cfg.json \(architecture 'standard'\); expected a crosscoder in one of the " + known
    )
    refused(tmp_path / CFG, "it is a file itself")
    (tmp_path / CFG).unlink()
    refused(tmp_path, "holds no files")
    for n in range(8):
        (tmp_path / f"{n}.bin").touch()
    refused(tmp_path, "5.bin, 2 more;")


def test_what_other_versions_wrote_still_loads(tmp_path: Path):
    folder = saved(tmp_path)
    rewrite_cfg(folder, written_by="a later xtalk", seed=None, scaling_factors=None, text_hash=None)
    provenance = Crosscoder.load(folder).provenance
    assert provenance.unknown == ("text_hash", "scaling_factors", "seed")
    assert provenance.model_name == "tiny"


def test_provenance_is_optional(tmp_path: Path, caplog):
    crosscoder = small_crosscoder()
    crosscoder.save(str(tmp_path / "own"))
    cfg = json.loads((tmp_path / "own" / CFG).read_text())
    assert not cfg.keys() & set(Provenance.model_fields)
    loaded = Crosscoder.load(str(tmp_path / "own"))
    assert loaded.provenance == Provenance()
    assert loaded.provenance.unknown == tuple(name for name in Provenance.model_fields if name != "source")
    check_model(tmp_path / "own", "tiny", "ab")
    assert "does not say which model its crosscoder was trained on; it is read in tiny" in caplog.text


def test_a_provenance_of_other_hookpoints_is_refused(tmp_path: Path):
    with pytest.raises(XtalkError, match="2 scaling_factors for 3 hook_names"):
        small_crosscoder().save(tmp_path / "c", Provenance(scaling_factors=(1.0, 2.0)))
    assert not (tmp_path / "c").exists()


def test_weights_are_kept_in_float32_and_load_in_any_dtype(tmp_path: Path):
    crosscoder = small_crosscoder().to(torch.bfloat16)
    crosscoder.save(tmp_path)
    assert load_file(tmp_path / WEIGHTS)["W_dec"].dtype == torch.float32
    loaded = Crosscoder.load(tmp_path, dtype=torch.bfloat16)
    assert loaded.W_dec.dtype == torch.bfloat16
    assert torch.equal(loaded.W_dec, crosscoder.W_dec)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path):
    crosscoder = small_crosscoder()
    with torch.no_grad():
        crosscoder.W_dec[0, 0, 0] = float("inf")
    with pytest.raises(XtalkError, match="W_dec of the crosscoder has NaN or infinity"):
        crosscoder.save(tmp_path / "c", PROVENANCE)
    assert not (tmp_path / "c").exists()


def test_hookpoints_can_be_named(tmp_path: Path):
    folder = saved(tmp_path)
    assert Crosscoder.load(folder, hook_names=["a", "b", "c"]).config.hook_names == ("a", "b", "c")
    for wrong in ("a", ["a", "a", "b"]):
        with pytest.raises(XtalkError, match=r"expected 3 different names, for blocks.0.ln2"):
            Crosscoder.load(folder, hook_names=wrong)
