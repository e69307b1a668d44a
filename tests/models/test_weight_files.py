"""Weights in torch's own files, in shards, in half precision; and files that are not what they claim."""

import json
import pickle

import pytest
import torch
from models.folders import refusal
from reference.tiny_models import save_tiny, tiny_tokens
from safetensors.torch import load_file, save_file

from xtalk.models.language_model import load_model


def in_torch_files(folder, shards=1):
    """Keep the folder's weights as pytorch_model.bin, or in shards of it with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    names = [f"pytorch_model-{n + 1:05}-of-{shards:05}.bin" for n in range(shards)]
    weight_map = {name: names[number % shards] for number, name in enumerate(sorted(tensors))}
    for file in names:
        torch.save({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_files_of_torch_are_the_same_model(kind, shards, tmp_path):
    save_tiny(tmp_path, kind)
    model = load_model(tmp_path)
    in_torch_files(tmp_path, shards)
    again = load_model(tmp_path)
    assert again.weights_hash == model.weights_hash
    assert torch.equal(again.logits(tiny_tokens()), model.logits(tiny_tokens()))


def test_old_files_of_torch_without_an_archive(folder):
    model = load_model(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert load_model(folder).weights_hash == model.weights_hash


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_exactly(folder, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model = load_model(folder)
    assert model.hf.dtype == torch.float32
    for name, parameter in model.hf.named_parameters():
        assert torch.equal(parameter, tensors[name].float())
    in_torch_files(folder)
    assert load_model(folder).weights_hash == model.weights_hash
    assert load_model(folder, dtype=dtype).hf.dtype == dtype


def test_quantised_files_of_torch(folder):
    in_torch_files(folder)
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    name = "transformer.h.1.mlp.c_fc.weight"
    torch.save(tensors | {name: tensors[name].to(torch.int8)}, folder / "pytorch_model.bin")
    assert "stored as torch.int8" in refusal(folder)


class Runs:
    def __reduce__(self):
        return (print, ("this ran",))


def test_torch_files_that_hold_more_than_tensors(folder, capsys):
    in_torch_files(folder)
    file = folder / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    torch.save(tensors | {"more": Runs()}, file)
    assert "holds more than tensors, which xtalk does not unpickle" in refusal(folder)
    file.write_bytes(pickle.dumps(Runs(), protocol=2))
    assert "holds more than tensors, which xtalk does not unpickle" in refusal(folder)
    torch.save(tensors | {"more": 3}, file)
    assert "more, which is no tensor" in refusal(folder)
    torch.save([1, 2], file)
    assert "holds no tensors by name" in refusal(folder)
    torch.save(tensors | {"wide": torch.zeros(1).expand(1 << 40)}, file)
    assert "more than it holds" in refusal(folder)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_torch_files_that_are_cut_short(folder, keep):
    in_torch_files(folder)
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:keep])
    assert "pytorch_model.bin' cannot be read" in refusal(folder)


def test_a_shard_of_torch_that_is_missing(folder):
    in_torch_files(folder, shards=3)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    assert "pytorch_model-00002-of-00003.bin' cannot be read" in refusal(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/tmp/x.safetensors", "sub/x.safetensors", ".."])
def test_an_index_that_names_a_file_outside_its_folder(folder, name):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "which is no file of its folder" in refusal(folder)


def test_other_files_of_torch_are_named(folder):
    (folder / "model.safetensors").rename(folder / "consolidated.00.pth")
    assert "no weights but consolidated.00.pth" in refusal(folder)
