"""What readers of these formats got wrong before: each key, when it says otherwise, changes the outputs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError

FILES = Path(__file__).parent / "files"


def copied(tmp_path: Path, case: str) -> Path:
    return Path(shutil.copytree(FILES / case, tmp_path / Path(case).name))


def rewrite(name: str, **changes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        keys = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps({k: v for k, v in keys.items() if v is not None}))

    return edit


def retensor(name: str, **changes: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / name)
        for key, change in changes.items():
            tensors[key.replace("__", ".")] = change(tensors[key.replace("__", ".")]).contiguous()
        save_file(tensors, folder / name)

    return edit


SAELENS, CONFIG = "sae_weights.safetensors", "config.json"
MODEL = "model.safetensors"
TRAPS = {
    "b_dec subtracted": ("saelens/standard", rewrite("cfg.json", apply_b_dec_to_input=False)),
    "b_dec not subtracted": ("saelens/b_dec_not_subtracted", rewrite("cfg.json", apply_b_dec_to_input=True)),
    "b_dec of a transcoder": ("sparsify/layers.2.mlp", rewrite("cfg.json", transcode=False)),
    "topk is no relu": ("saelens/topk", rewrite("cfg.json", architecture="standard")),
    "topk of the old keys is no relu": (
        "saelens_before_6/topk",
        rewrite("cfg.json", activation_fn_str="relu"),
    ),
    "topk by decoder norm": (
        "saelens/topk_times_norm",
        rewrite("cfg.json", rescale_acts_by_decoder_norm=None),
    ),
    "threshold by latent": (
        "saelens/jumprelu",
        retensor(SAELENS, threshold=lambda t: t.mean().expand(len(t))),
    ),
    "threshold is a logarithm": (
        "llamascopium/sae_jumprelu",
        retensor(SAELENS, activation_function__log_jumprelu_threshold=torch.exp),
    ),
    "threshold after decoder norm": (
        "crosscoder_learning/batchtopk_sae",
        retensor(MODEL, code_normalization_id=lambda t: torch.full_like(t, 4)),
    ),
    "threshold after the sum of decoder norms": (
        "crosscoder_learning/batchtopk_crosscoder",
        retensor(MODEL, code_normalization_id=lambda t: torch.full_like(t, 2)),
    ),
    "decoder norm in the gate": (
        "llamascopium/sae_jumprelu",
        rewrite(CONFIG, sparsity_include_decoder_norm=False),
    ),
    "normalisation is folded": (
        "llamascopium/crosscoder_jumprelu",
        rewrite(CONFIG, norm_activation="inference"),
    ),
    "normalisation is not to be folded twice": (
        "llamascopium/crosscoder_inference",
        rewrite(CONFIG, norm_activation="dataset-wise"),
    ),
    "normalisation by mean and scale": (
        "crosscoder_learning/batchtopk_normalised",
        retensor(MODEL, activation_mean=lambda t: t * float("nan")),
    ),
    "a skip is not to be forgotten": ("sparsify/layers.3.mlp", rewrite("cfg.json", skip_connection=False)),
    "dictionary_learning subtracts b_dec": (
        "dictionary_learning/AutoEncoder",
        rewrite(CONFIG, trainer={"dict_class": "AutoEncoderNew"}),
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_what_a_key_says_is_heeded(tmp_path: Path, name: str):
    case, edit = TRAPS[name]
    folder = copied(tmp_path, case)
    values = load_file(folder / "expected.safetensors")
    edit(folder)
    y = Crosscoder.load(folder)(values["x"])
    assert float((y - values["y"]).detach().abs().max()) > 0.01


def test_an_encoder_that_is_stored_transposed(tmp_path: Path):
    folder = copied(tmp_path, "circuit_tracer/relu")
    retensor("layer_3.safetensors", W_enc=lambda t: t.T)(folder)
    with pytest.raises(XtalkError, match=r"b_enc is \(12,\), expected L = 5 of L;"):
        Crosscoder.load(folder)


def test_older_transposed_decoders_of_circuit_tracer_are_read_alike(tmp_path: Path):
    folder = copied(tmp_path, "circuit_tracer/relu")
    values = load_file(folder / "expected.safetensors")
    retensor("layer_3.safetensors", W_dec=lambda t: t.T)(folder)
    assert torch.allclose(Crosscoder.load(folder)(values["x"]), values["y"], atol=1e-5)


def test_hook_z_is_read_flattened():
    cc = Crosscoder.load(FILES / "saelens/hook_z")
    assert (cc.config.d_in, cc.config.hook_names) == (6, ("blocks.1.attn.hook_z",))


def test_a_scalar_threshold_is_of_all_latents():
    assert Crosscoder.load(FILES / "dictionary_learning/BatchTopKSAE").threshold.tolist() == pytest.approx(
        [0.6] * 12
    )


UNSUPPORTED = {
    "layer_norm": ("saelens/standard", rewrite("cfg.json", normalize_activations="layer_norm"), "layer_norm"),
    "constant norm": (
        "saelens/standard",
        rewrite("cfg.json", normalize_activations="constant_norm_rescale"),
        "scales each token by its own norm",
    ),
    "matching pursuit": (
        "saelens/standard",
        rewrite("cfg.json", architecture="matching_pursuit"),
        "the architecture 'matching_pursuit'",
    ),
    "tanh": (
        "saelens_before_6/standard",
        rewrite("cfg.json", activation_fn_str="tanh-relu"),
        "activation function 'tanh-relu'",
    ),
    "groupmax": ("sparsify/layers.1", rewrite("cfg.json", activation="groupmax"), "'groupmax'"),
    "several targets": ("sparsify/layers.2.mlp", rewrite("cfg.json", n_targets=2), "several targets"),
    "token-wise": (
        "llamascopium/sae_topk",
        rewrite(CONFIG, norm_activation="token-wise"),
        "scales by the tokens themselves",
    ),
    "topk by hookpoint": (
        "llamascopium/crosscoder_relu",
        rewrite(CONFIG, act_fn="topk"),
        "each has k latents of its own",
    ),
    "clt of llamascopium": ("llamascopium/sae_topk", rewrite(CONFIG, sae_type="clt"), "of the type 'clt'"),
    "unset threshold": (
        "crosscoder_learning/batchtopk_sae",
        retensor(MODEL, threshold=lambda t: t * 0 - 1),
        "threshold was never set",
    ),
    "layer topk": (
        "crosslayer_transcoder/topk-clt-toy",
        lambda folder: None,
        "cross-layer transcoder of 2 layers",
    ),
    "batchtopk of the paper": (
        "paper/topk",
        lambda folder: (folder / "model_cfg.yaml").write_text(
            yaml.dump(
                yaml.safe_load(
                    (FILES / "paper/relu_models_and_layers/model_cfg.yaml")
                    .read_text()
                    .replace("!!python/tuple", "")
                )
                | {"hidden_activation_classname": "BatchTopkActivation"}
            )
        ),
        "code depends on its batch",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_has_no_meaning_is_refused_by_name(tmp_path: Path, name: str):
    case, edit, match = UNSUPPORTED[name]
    folder = copied(tmp_path, case)
    edit(folder)
    with pytest.raises(XtalkError, match=match) as caught:
        Crosscoder.load(folder)
    assert "\n" not in str(caught.value)
    assert type(caught.value).__name__ == "UnsupportedDictionary"


def test_a_folder_of_two_formats_is_refused_with_both_names(tmp_path: Path):
    folder = copied(tmp_path, "saelens/standard")
    shutil.copy(FILES / "sparsify/layers.1/sae.safetensors", folder)
    (folder / "params.npz").touch()
    with pytest.raises(XtalkError, match="may be of several formats: SAELens and Gemma Scope 1"):
        Crosscoder.load(folder)
