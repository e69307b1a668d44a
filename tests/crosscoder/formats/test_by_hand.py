"""Formats whose peers do not install here: files by their published keys, against a forward written out."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from xtalk.crosscoder.crosscoder import Crosscoder

D, L, P, B = 5, 12, 3, 24


def drawn(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {
        name.replace("__", "."): torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }


def close(cc: Crosscoder, x: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.abs().max() > 0.1
    assert torch.allclose(cc(x), expected, atol=1e-4)


def test_llama_scope(tmp_path: Path):
    t = drawn(encoder__weight=(L, D), encoder__bias=(L,), decoder__weight=(D, L), decoder__bias=(D,))
    (tmp_path / "checkpoints").mkdir()
    save_file(t, tmp_path / "checkpoints/final.safetensors")
    norms = {"in": 3.0, "out": 2.5}
    keys = {
        "d_model": D, "d_sae": L, "act_fn": "jumprelu", "jump_relu_threshold": 0.8,
        "hook_point_in": "blocks.4.hook_resid_post", "hook_point_out": "blocks.4.hook_resid_post",
        "norm_activation": "dataset-wise", "dataset_average_activation_norm": norms,
        "sparsity_include_decoder_norm": True,
    }  # fmt: skip
    (tmp_path / "hyperparams.json").write_text(json.dumps(keys))
    x = torch.randn(B, D, generator=torch.Generator().manual_seed(5))
    scaled = x * D**0.5 / norms["in"]
    hidden = scaled @ t["encoder.weight"].T + t["encoder.bias"]
    f = torch.where(hidden * t["decoder.weight"].norm(dim=0) > 0.8, hidden, 0.0)
    y = (f @ t["decoder.weight"].T + t["decoder.bias"]) * norms["out"] / D**0.5
    cc = Crosscoder.load(tmp_path)
    close(cc, x, y)
    assert cc.config.hook_names == ("blocks.4.resid_post",)


def test_kissane(tmp_path: Path):
    t = drawn(W_enc=(2, D, L), W_dec=(L, 2, D), b_enc=(L,), b_dec=(2, D))
    torch.save({name: tensor.half() for name, tensor in t.items()}, tmp_path / "cc_weights.pt")
    keys = {"d_in": D, "dict_size": L, "hook_point": "blocks.14.hook_resid_pre", "model_name": "gemma-2-2b"}
    (tmp_path / "cfg.json").write_text(json.dumps(keys))
    t = {name: tensor.half().float() for name, tensor in t.items()}
    x = torch.randn(B, 2, D, generator=torch.Generator().manual_seed(5))
    f = (torch.einsum("bpd,pdl->bl", x, t["W_enc"]) + t["b_enc"]).relu()
    cc = Crosscoder.load(tmp_path)
    close(cc, x, torch.einsum("bl,lpd->bpd", f, t["W_dec"]) + t["b_dec"])
    assert cc.config.hook_names == ("model_0/blocks.14.resid_pre", "model_1/blocks.14.resid_pre")


def test_gemma_scope_2_crosscoder(tmp_path: Path):
    folder = tmp_path / "layer_7_13_17_width_12_l0_medium"
    folder.mkdir()
    shared = drawn(b_enc=(L,), threshold=(L,))
    layers = []
    for layer in range(P):
        own = drawn(w_enc=(D, L), w_dec=(L, D), b_dec=(D,))
        layers.append({name: tensor * (1 + layer) / 3 for name, tensor in own.items()})
        save_file(layers[-1] | shared, folder / f"params_layer_{layer}.safetensors")
    x = torch.randn(B, P, D, generator=torch.Generator().manual_seed(5))
    hidden = sum(x[:, p] @ layer["w_enc"] for p, layer in enumerate(layers)) + shared["b_enc"]
    f = hidden.relu() * (hidden > shared["threshold"])
    cc = Crosscoder.load(folder)
    close(cc, x, torch.stack([f @ layer["w_dec"] + layer["b_dec"] for layer in layers], dim=1))
    assert cc.config.hook_names == tuple(f"blocks.{n}.resid_post" for n in (7, 13, 17))


def test_clt_training_of_one_layer(tmp_path: Path):
    """Its transcoders scale what they read and write, and skip from what is scaled."""
    folder = tmp_path / "layers.2.mlp"
    folder.mkdir()
    t = drawn(encoder__weight=(L, D), encoder__bias=(L,), W_dec=(L, D), b_dec=(D,), W_skip=(D, D))
    t |= {"in_norm": torch.tensor([3.0]), "out_norm": torch.tensor([2.0]), "post_enc": torch.zeros(L)}
    save_file(t, folder / "sae.safetensors")
    keys = {"d_in": D, "k": 3, "transcode": True, "skip_connection": True, "normalize_io": True}
    (folder / "cfg.json").write_text(json.dumps(keys))
    x = torch.randn(B, D, generator=torch.Generator().manual_seed(5))
    scaled = x * D**0.5 / 3.0
    pre = (scaled @ t["encoder.weight"].T + t["encoder.bias"]).relu()
    top = pre.topk(3, dim=1)
    f = torch.zeros_like(pre).scatter(1, top.indices, top.values)
    y = (f @ t["W_dec"] + t["b_dec"] + scaled @ t["W_skip"].T) * 2.0 / D**0.5
    cc = Crosscoder.load(folder)
    close(cc, x, y)
    assert (cc.config.hook_names, cc.config.hook_names_out) == (("blocks.2.ln2",), ("layers.2.mlp.output",))


def test_gemma_scope_is_told_by_the_names_of_its_own_folders(tmp_path: Path):
    """A folder of somebody's above is none of the release's."""
    t = drawn(W_enc=(D, L), W_dec=(L, D), b_enc=(L,), b_dec=(D,), threshold=(L,))
    root = tmp_path / "embedding-mlp"
    cases = {
        "gemma-scope-9b-it-res/layer_9/width_12/average_l0_2": (("blocks.9.resid_post",), None, 1),
        "gemma-scope-2b-pt-att/layer_0/width_12/average_l0_2": (("blocks.0.attn.hook_z",), None, 1),
        "gemma-scope-2b-pt-transcoders/layer_4/width_12/average_l0_2": (
            ("blocks.4.ln2",),
            ("blocks.4.hook_mlp_out",),
            1,
        ),
        "gemma-scope-2b-pt-res/embedding/width_12/average_l0_2": (("hook_embed",), None, D**0.5),
        "params/of/nobody": (("hookpoint_0",), None, 1),
    }
    for name, (read, written, scale) in cases.items():
        (root / name).mkdir(parents=True)
        np.savez(root / name / "params.npz", **{key: tensor.numpy() for key, tensor in t.items()})
        cc = Crosscoder.load(root / name)
        assert (cc.config.hook_names, cc.config.hook_names_out) == (read, written)
        assert torch.allclose(cc.W_enc[0] * scale, t["W_enc"])
        assert torch.allclose(cc.W_dec[:, 0] / scale, t["W_dec"])
