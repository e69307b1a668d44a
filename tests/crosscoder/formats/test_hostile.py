"""Files that are cut short, lie about their sizes, or hold more than tensors: one line each, and no "
"memory."""

import io
import json
import pickle
import resource
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError

FILES = Path(__file__).parent / "files"
CASES = {
    "saelens/gated": ("cfg.json", "sae_weights.safetensors"),
    "saelens_before_6/topk": ("cfg.json", "sae_weights.safetensors"),
    "gemma_scope/gemma-scope-2b-pt-res/layer_3/width_12/average_l0_2": ("params.npz",),
    "gemma_scope_2/resid_post/layer_2_width_12_l0_small": ("config.json", "params.safetensors"),
    "dictionary_learning/BatchTopKSAE": ("config.json", "ae.pt"),
    "crosscoder_learning/batchtopk_decoupled": ("config.json", "model.safetensors"),
    "sparsify/layers.3.mlp": ("cfg.json", "sae.safetensors"),
    "llamascopium/crosscoder_jumprelu": ("config.json", "sae_weights.safetensors"),
    "circuit_tracer/jumprelu": ("config.yaml", "layer_3.safetensors"),
    "paper/topk": ("model_cfg.yaml", "model.pt"),
    "crosslayer_transcoder/jumprelu-clt-toy-L0=1": ("config.yaml", "checkpoint.safetensors"),
}
PAIRS = [(case, name) for case, names in CASES.items() for name in names]
WEIGHTS = [(case, names[-1]) for case, names in CASES.items()]
CONFIGS = [(case, names[0]) for case, names in CASES.items() if len(names) > 1]
HUGE = 1 << 60


def copied(tmp_path: Path, case: str) -> Path:
    return Path(shutil.copytree(FILES / case, tmp_path / Path(case).name))


def refused(folder: Path, match: str | None = None) -> None:
    with pytest.raises(XtalkError, match=match) as caught:
        Crosscoder.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("case", "name"), PAIRS)
def test_files_that_are_cut_short(tmp_path: Path, case: str, name: str):
    folder = copied(tmp_path, case)
    whole = (folder / name).read_bytes()
    optional = name == "config.yaml" and case.startswith("circuit")
    for size in (0, 1, 9, len(whole) // 2, *([] if name.endswith("yaml") else [len(whole) - 3])):
        (folder / name).write_bytes(whole[:size])
        if not optional:
            refused(folder)
    (folder / name).unlink()
    if not optional:
        refused(folder)


@pytest.mark.parametrize(("case", "name"), PAIRS)
def test_files_of_noise(tmp_path: Path, case: str, name: str):
    folder = copied(tmp_path, case)
    if name == "config.yaml" and case.startswith("circuit"):
        return  # read where it is a mapping, and not needed
    noise = np.random.default_rng(0).bytes(4096)
    for content in (noise, b"\x00" * 4096, b"[" * 200_000, b"{" * 200_000, b"null", b"[]", b'"text"'):
        (folder / name).write_bytes(content)
        refused(folder)


@pytest.mark.parametrize(("case", "name"), CONFIGS)
@pytest.mark.parametrize("value", [None, [], {}, "text", -1, 0, 1.5, True, HUGE])
def test_configurations_of_wrong_values(tmp_path: Path, case: str, name: str, value):
    """Every key in turn: what then loads has finite outputs, and everything else is one line."""
    folder = copied(tmp_path, case)
    if not name.endswith(".json"):
        return
    keys = json.loads((folder / name).read_text())
    keys = keys.get("trainer", keys)
    for key in keys:
        changed = keys | {key: value}
        (folder / name).write_text(
            json.dumps({"trainer": changed} if "dict_class" in keys and "lm_name" in keys else changed)
        )
        try:
            cc = Crosscoder.load(folder)
        except XtalkError as error:
            assert "\n" not in str(error)
            continue
        x = torch.zeros(1, len(cc.config.hook_names), cc.config.d_in)
        assert cc(x[:, 0] if x.shape[1] == 1 else x).isfinite().all()


@pytest.mark.parametrize("hook_points", [["blocks.0.hook_resid_post"], ["blocks.0.hook_resid_post"] * 4])
def test_names_of_more_or_fewer_hookpoints_than_the_weights_have(tmp_path: Path, hook_points: list[str]):
    folder = copied(tmp_path, "llamascopium/crosscoder_jumprelu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hook_points": hook_points}))
    refused(folder, f"W_E.*{len(hook_points)}")


def with_header(path: Path, change) -> None:
    """A safetensors file with another header, and the same data."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    again = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(again)) + again + content[8 + length :])


@pytest.mark.parametrize(("case", "name"), [pair for pair in WEIGHTS if pair[1].endswith(".safetensors")])
def test_safetensors_that_claim_more_than_they_hold(tmp_path: Path, case: str, name: str):
    folder = copied(tmp_path, case)
    first = next(iter(load_file(folder / name)))

    def shape(header):
        header[first]["shape"] = [HUGE, 4]

    def offsets(header):
        header[first]["data_offsets"] = [0, HUGE]

    for change in (shape, offsets):
        shutil.copy(FILES / case / name, folder / name)
        with_header(folder / name, change)
        refused(folder, name)
    (folder / name).write_bytes(struct.pack("<Q", HUGE) + b"{}")
    refused(folder, name)


@pytest.mark.parametrize(("case", "name"), WEIGHTS)
def test_weights_that_are_not_finite(tmp_path: Path, case: str, name: str):
    folder = copied(tmp_path, case)
    path = folder / name
    bad = float("nan")
    if name.endswith(".npz"):
        arrays = dict(np.load(path))
        arrays["W_dec"][0, 0] = bad
        np.savez(path, **arrays)
    elif name.endswith(".pt"):
        tensors = torch.load(path, weights_only=True)
        next(t for n, t in tensors.items() if "enc" in n)[0] = bad
        torch.save(tensors, path)
    else:
        tensors = load_file(path)
        next(t for n, t in tensors.items() if t.ndim > 1 and "activation" not in n).view(-1)[0] = bad
        save_file(tensors, path)
    refused(folder, "NaN or infinity")


def npz(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(shape: tuple[int, ...], descr: str = "<f4", data: bytes = b"") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue() + data


def test_npz_that_lie(tmp_path: Path):
    path = tmp_path / "params.npz"
    for content, match in (
        (npy((HUGE, 4)), "claims"),
        (npy((1 << 40,)), "claims"),
        (npy((2, 2), data=b"\0" * 15), "claims"),
        (npy((-2, -2), data=b"\0" * 16), "params.npz"),
        (npy((2, 2), "|O", b"\0" * 32), "expected numbers"),
        (b"not an array", "params.npz"),
    ):
        npz(path, **{"W_enc.npy": content})
        refused(tmp_path, match)
    npz(path, **{"../../W_enc.npy": npy((1, 1), data=b"\0" * 4)})
    refused(tmp_path, "w_enc is missing")  # names are keys: nothing is unpacked


class Runs:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize("case", ["dictionary_learning/BatchTopKSAE", "paper/topk"])
def test_pickles_are_not_run(tmp_path: Path, case: str, capsys):
    folder, name = copied(tmp_path, case), CASES[case][-1]
    tensors = torch.load(folder / name, weights_only=True)
    torch.save(tensors | {"more": Runs()}, folder / name)
    refused(folder, "more than tensors, which xtalk does not unpickle")
    (folder / name).write_bytes(pickle.dumps(Runs()))
    refused(folder, name)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("case", ["dictionary_learning/BatchTopKSAE", "paper/topk"])
def test_torch_files_that_claim_more_than_they_hold(tmp_path: Path, case: str):
    """A tensor may repeat one number 2^40 times; to copy it would fill the memory."""
    folder, name = copied(tmp_path, case), CASES[case][-1]
    tensors = torch.load(folder / name, weights_only=True)
    large = next(n for n, t in tensors.items() if t.ndim > 1)
    tensors[large] = torch.zeros(1).expand(1 << 40, 1)
    torch.save(tensors, folder / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(folder, "more than the file holds")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    torch.save(torch.zeros(3), folder / name)
    refused(folder, "expected tensors by name")


def test_yaml_does_not_make_objects(tmp_path: Path):
    folder = copied(tmp_path, "paper/topk")
    (folder / "model_cfg.yaml").write_text(
        "d_model: !!python/object/apply:os.system ['echo ran']\nhidden_dim: 12\n"
    )
    refused(folder, "holds")
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (folder / "model_cfg.yaml").write_text(f"{bomb}d_model: *i\nhidden_dim: 12\n")
    refused(folder, "holds")
