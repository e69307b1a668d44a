"""SAEs and transcoders of SAELens, saved and run by SAELens; and what its loaders make of Gemma Scope's "
"files."""

import json
from importlib.metadata import version

import numpy as np
import sae_lens.loading.pretrained_sae_loaders as loaders
import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_class
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import save_file
from writing import D, L, draw, expect, inputs, out

PEER = f"SAELens {version('sae-lens')}"
HOOK = "blocks.1.hook_resid_pre"


def build(architecture: str, **how):
    metadata = {"model_name": "gpt2", "hook_name": HOOK, "prepend_bos": True} | how.pop("metadata", {})
    sae_class, config_class = get_sae_class(architecture)
    sae = sae_class(config_class(**({"d_in": D, "d_sae": L, "metadata": SAEMetadata(**metadata)} | how)))
    draw(sae)
    return sae


def write(name: str, sae, x=None) -> None:
    folder = out(f"saelens/{name}")
    sae.save_model(folder)
    loaded = SAE.load_from_disk(folder, dtype="float32")  # whatever it is stored in
    x = inputs(D) if x is None else x
    flat = x.flatten(1) if x.ndim > 2 else x
    f, y = loaded.encode(x), loaded(x)
    expect(folder, PEER, x=flat, y=y.reshape(len(x), -1), f=f)


MLP = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
write("standard", build("standard"))
write("b_dec_not_subtracted", build("standard", apply_b_dec_to_input=False))
write("expected_average", build("standard", normalize_activations="expected_average_only_in"))
write("topk", build("topk", k=3))
write("topk_times_norm", build("topk", k=3, rescale_acts_by_decoder_norm=True))
write("jumprelu", build("jumprelu"))
write("gated", build("gated"))
write("gated_not_subtracted", build("gated", apply_b_dec_to_input=False))
write("bfloat16", build("jumprelu", dtype="bfloat16", apply_b_dec_to_input=False))
heads = build(
    "standard", d_in=6, reshape_activations="hook_z", metadata={"hook_name": "blocks.1.attn.hook_z"}
)
write("hook_z", heads, inputs(2, 3))
for architecture in ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"):
    write(architecture, build(architecture, d_out=D, apply_b_dec_to_input=False, metadata=MLP))


def batchtopk() -> None:
    """Trained as BatchTopK, saved by SAELens as jumprelu with one threshold for all."""
    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D, d_sae=L, k=3))
    draw(sae)
    sae.topk_threshold = torch.tensor(0.7, dtype=torch.double)
    folder = out("saelens/batchtopk")
    sae.save_inference_model(folder)
    loaded = SAE.load_from_disk(folder)
    expect(folder, PEER, x=inputs(D), y=loaded(inputs(D)), f=loaded.encode(inputs(D)))


def before_6(name: str, sae, **keys) -> None:
    """The keys of cfg.json before version 6, as SAELens still reads them."""
    folder = out(f"saelens_before_6/{name}")
    sae.save_model(folder)
    cfg = {"d_in": D, "d_sae": L, "dtype": "float32", "device": "cpu", "model_name": "gpt2", **keys}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    loaded = SAE.load_from_disk(folder)
    expect(folder, PEER, x=inputs(D), y=loaded(inputs(D)), f=loaded.encode(inputs(D)))


def by_loader(name: str, loader, repository: str, part: str, **overrides) -> None:
    """What SAELens' loader of another project's files makes of the files at `name`/`part`."""
    root = out(name)
    loaders.hf_hub_download = lambda repo_id, filename, subfolder=None, **_: str(
        root / (subfolder or "") / filename
    )
    loaders.get_safetensors_tensor_shapes = lambda repo_id, filename: {"w_enc": [D, L], "w_dec": [L, D]}
    cfg, state, _ = loader(repository, part, "cpu", cfg_overrides=overrides)
    cfg = loaders.handle_config_defaulting(cfg)
    sae_class, config_class = get_sae_class(cfg["architecture"])
    sae = sae_class(config_class.from_dict(cfg))
    sae.load_state_dict(state)
    expect(root / part, PEER, x=inputs(D), y=sae(inputs(D)), f=sae.encode(inputs(D)))


def parameters(lower: bool) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    W = "w" if lower else "W"
    shapes = {f"{W}_enc": (D, L), f"{W}_dec": (L, D), "b_enc": (L,), "b_dec": (D,), "threshold": (L,)}
    drawn = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
    return drawn | {"threshold": drawn["threshold"].abs()}


def gemma_scope() -> None:
    for site, part in (("res", "layer_3/width_12/average_l0_2"), ("mlp", "layer_0/width_12/average_l0_3")):
        name = f"gemma_scope/gemma-scope-2b-pt-{site}"
        np.savez(out(f"{name}/{part}") / "params.npz", **{k: v.numpy() for k, v in parameters(False).items()})
        repository = f"google/gemma-scope-2b-pt-{site}"
        by_loader(name, loaders.gemma_2_sae_huggingface_loader, repository, part, d_in=D, d_sae=L)
    for kind, affine in (("resid_post", False), ("transcoder", False), ("transcoder", True)):
        part = f"{kind}/layer_2_width_12_l0_small" + ("_affine" if affine else "")
        folder = out(f"gemma_scope_2/{part}")
        drawn = parameters(True)
        if affine:
            drawn["affine_skip_connection"] = torch.randn(D, D, generator=torch.Generator().manual_seed(3))
        save_file(drawn, folder / "params.safetensors")
        keys = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt"}
        keys["hf_hook_point_in"] = "model.layers.2.output"
        if kind == "transcoder":
            keys["hf_hook_point_in"] = "model.layers.2.pre_feedforward_layernorm.output"
            keys["hf_hook_point_out"] = "model.layers.2.post_feedforward_layernorm.output"
            keys["affine_connection"] = affine
        (folder / "config.json").write_text(json.dumps(keys))
        by_loader(
            "gemma_scope_2", loaders.gemma_3_sae_huggingface_loader, "google/gemma-scope-2-270m-pt", part
        )


batchtopk()
before_6(
    "standard", build("standard"), hook_point=HOOK, activation_fn_str="relu", normalize_activations=False
)
before_6(
    "topk",
    build("topk", k=3),
    hook_name=HOOK,
    architecture="standard",
    activation_fn_str="topk",
    activation_fn_kwargs={"k": 3},
    apply_b_dec_to_input=False,
    normalize_activations="none",
)
before_6("jumprelu", build("jumprelu"), hook_name=HOOK, architecture="jumprelu", activation_fn_str="relu")
gemma_scope()
