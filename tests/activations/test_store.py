"""Activation stores: what is written comes back, and anything else is refused."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from activations.fake_model import HOOKPOINTS, FakeModel, numbered_sequences
from safetensors.torch import load_file, save_file

from xtalk.activations import ActivationBatches, ActivationStore, ActivationStream, estimate_bytes, store
from xtalk.errors import XtalkError
from xtalk.files import sha256_of

BATCHING: dict[str, Any] = {"batch_tokens": 7, "seed": 2, "buffer_sequences": 5}


def make_stream(
    model: FakeModel | None = None, n: int = 12, hookpoints: Any = HOOKPOINTS
) -> ActivationStream:
    return ActivationStream(
        model or FakeModel(torch.bfloat16), numbered_sequences(n, 4), hookpoints, **BATCHING
    )


@pytest.fixture(autouse=True)
def five_sequences_per_shard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "_sequences_per_shard", lambda bytes_per_sequence: 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ActivationStore.write(tmp_path / "store", make_stream())
    return tmp_path / "store"


def test_gives_the_stream_back_and_resumes(folder: Path):
    live, stored = make_stream(), ActivationBatches(ActivationStore.open(folder), **BATCHING)
    batches = list(live)
    for expected, got in zip(batches, stored, strict=True):
        for name in ("activations", "tokens", "sequences", "positions"):
            assert torch.equal(getattr(expected, name), getattr(got, name))
    half = ActivationBatches(ActivationStore.open(folder), **BATCHING)
    next(half), next(half)
    resumed = ActivationBatches(ActivationStore.open(folder, verify=False), **BATCHING)
    resumed.load_state_dict(half.state_dict())
    assert torch.equal(next(resumed).activations, batches[2].activations)


def test_sequences_documents_and_files(folder: Path):
    opened, expected = ActivationStore.open(folder), numbered_sequences(12, 4)
    assert (opened.sequences.tokens == expected.tokens).all()
    assert (opened.sequences.documents == expected.documents).all()
    assert opened.sequences.text_hash == expected.text_hash
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        *(f"shard-0000{number}.safetensors" for number in range(3)),
    ]
    assert load_file(folder / "shard-00002.safetensors")["activations"].shape == (2, 4, len(HOOKPOINTS), 6)


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float32, True), (torch.bfloat16, False)])
def test_dtype(dtype: torch.dtype, exact: bool, tmp_path: Path):
    opened = ActivationStore.write(tmp_path, make_stream(FakeModel()), dtype)
    got, expected = next(ActivationBatches(opened, **BATCHING)), next(make_stream(FakeModel()))
    torch.testing.assert_close(got.activations, expected.activations, rtol=0 if exact else 2**-8, atol=0)
    with pytest.raises(XtalkError, match="expected one of bfloat16, float32"):
        ActivationStore.write(tmp_path / "half", make_stream(), torch.float16)


def test_estimate_is_just_above_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    sequences, model = numbered_sequences(400, 64), FakeModel()
    ActivationStore.write(tmp_path, ActivationStream(model, sequences, HOOKPOINTS, batch_tokens=64, seed=0))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size <= estimate_bytes(400, 64, len(HOOKPOINTS), 6) <= 1.01 * size


def test_progress_counts_every_token(tmp_path: Path):
    seen: list[int] = []
    ActivationStore.write(tmp_path, make_stream(), progress=seen.append)
    assert sum(seen) == 48


def test_interrupted_write_goes_on(tmp_path: Path):
    class Interrupted(FakeModel):
        def capture(self, tokens_BS: torch.Tensor, hookpoints: Any):
            if tokens_BS.max() >= 40:  # in the last of the three shards
                raise KeyboardInterrupt
            return super().capture(tokens_BS, hookpoints)

    with pytest.raises(KeyboardInterrupt):
        ActivationStore.write(tmp_path, make_stream(Interrupted(torch.bfloat16)))
    with pytest.raises(XtalkError, match=r"no finished activation store"):
        ActivationStore.open(tmp_path)
    truncate(tmp_path / "shard-00001.safetensors")
    (tmp_path / ".partial-1-shard-00002.safetensors").write_bytes(b"half")  # of a process that was killed
    model, seen = FakeModel(torch.bfloat16), []
    opened = ActivationStore.write(tmp_path, make_stream(model), progress=seen.append)
    assert model.captures == 2  # shards 1 and 2; shard 0 was kept
    assert sum(seen) == 48
    assert torch.equal(
        next(ActivationBatches(opened, **BATCHING)).activations, next(make_stream()).activations
    )
    ActivationStore.open(tmp_path)
    assert not list(tmp_path.glob(".partial*"))


def test_shards_of_other_contents_are_not_kept(tmp_path: Path):
    ActivationStore.write(tmp_path, make_stream(FakeModel(torch.bfloat16, "other")))
    (tmp_path / "manifest.json").unlink()
    model = FakeModel(torch.bfloat16)
    ActivationStore.write(tmp_path, make_stream(model))
    assert model.captures == 3


def test_a_finished_store_is_left_as_it_is(folder: Path):
    model = FakeModel(torch.bfloat16)
    ActivationStore.write(folder, make_stream(model))
    assert model.captures == 0
    with pytest.raises(XtalkError, match="holds other activations"):
        ActivationStore.write(folder, make_stream(n=11))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [(truncate, "bytes, not"), (flip_last_bit, "corrupted"), (Path.unlink, "is missing")],
)
def test_spoiled_shards_are_refused(folder: Path, number: int, spoil: Any, message: str):
    spoil(folder / f"shard-0000{number}.safetensors")
    with pytest.raises(XtalkError, match=rf"shard-0000{number}\.safetensors.*{message}"):
        ActivationStore.open(folder)


def test_without_verify_swapped_shards_and_broken_headers_are_still_refused(folder: Path):
    first, second = (folder / f"shard-0000{number}.safetensors" for number in (0, 1))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    with pytest.raises(XtalkError, match="tokens are not those of its manifest"):
        ActivationStore.open(folder, verify=False)
    first.write_bytes(b"\xff" * len(kept))
    with pytest.raises(XtalkError, match="corrupted"):
        ActivationStore.open(folder, verify=False)


def test_wrong_shapes_and_nan_are_refused_even_with_right_hashes(folder: Path):
    path = folder / "shard-00002.safetensors"
    tensors = load_file(path)

    def rewrite(activations: torch.Tensor) -> None:
        save_file(tensors | {"activations": activations}, path)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["shards"][2] |= {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    rewrite(tensors["activations"][:, :, 1:].contiguous())
    with pytest.raises(XtalkError, match="expected"):
        ActivationStore.open(folder)
    tensors["activations"][0, 0, 1, 0] = torch.nan
    rewrite(tensors["activations"])
    with pytest.raises(XtalkError, match=r"NaN or infinite activations at blocks\.0\.ln1"):
        list(ActivationBatches(ActivationStore.open(folder), **BATCHING))


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"model_hash": "other"}, "another model: fake; expected other"),
        ({"text_hash": "other"}, "another text"),
        ({"hookpoints": HOOKPOINTS[::-1]}, "another hookpoints"),
        ({"hookpoints": HOOKPOINTS[:2]}, "another hookpoints"),
    ],
)
def test_other_model_text_or_hookpoints_are_refused(folder: Path, expected: Any, message: str):
    own = {"model_hash": "fake", "text_hash": numbered_sequences(12, 4).text_hash, "hookpoints": HOOKPOINTS}
    ActivationStore.open(folder, **own)
    with pytest.raises(XtalkError, match=message):
        ActivationStore.open(folder, **(own | expected))


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("schema"),
        lambda manifest: manifest.update(schema="xtalk.activations/2"),
        lambda manifest: manifest.update(extra=1),
        lambda manifest: manifest["contents"].update(dtype="float16"),
        lambda manifest: manifest["contents"].update(sequences=13),
        lambda manifest: manifest["contents"].update(sequences=-12),
        lambda manifest: manifest["shards"][0].update(sha256="0"),
        lambda manifest: manifest["shards"].clear(),
    ],
)
def test_bad_manifests_are_refused(folder: Path, change: Any):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(XtalkError, match=r"manifest\.json") as caught:
        ActivationStore.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_manifest_that_is_no_manifest(folder: Path, content: bytes):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(XtalkError, match="is no manifest"):
        ActivationStore.open(folder)


def test_small_and_full_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 100))
    model = FakeModel()
    with pytest.raises(XtalkError, match=r"activations of 48 tokens take 0\.00 GB"):
        ActivationStore.write(tmp_path / "small", make_stream(model))
    assert model.captures == 0
    monkeypatch.undo()

    def full(*_: Any):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(XtalkError, match=r"^no space left on the disk of .*shard-00000"):
        ActivationStore.write(tmp_path / "full", make_stream())
    assert not list((tmp_path / "full").iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(XtalkError, match="cannot be written"):
        ActivationStore.write(tmp_path / "file" / "store", make_stream())
