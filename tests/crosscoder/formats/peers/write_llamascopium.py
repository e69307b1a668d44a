"""SAEs, transcoders and crosscoders of Llamascopium, saved and run by it."""

from importlib.metadata import version

import torch
from llamascopium.models.crosscoder import Crosscoder, CrosscoderConfig
from llamascopium.models.sae import SAEConfig, SparseAutoEncoder
from writing import D, draw, expect, inputs, out

HOOKS = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.ln2.hook_normalized"]
SHARED = {"d_model": D, "expansion_factor": 2.4, "device": "cpu", "dtype": torch.float32}


def write(name: str, model, hooks: list[str], written: list[str], x: torch.Tensor) -> None:
    draw(model)
    norms = {hook: 2.0 + i for i, hook in enumerate(dict.fromkeys((*hooks, *written)))}
    model.set_dataset_average_activation_norm(norms)
    folder = out(f"llamascopium/{name}")
    model.save_pretrained(str(folder))
    model.cfg.save_hyperparameters(folder)
    batch = {hook: x[:, p] for p, hook in enumerate(hooks)}
    batch |= {hook: x[:, 0] for hook in written if hook not in batch}
    scaled, factors = model.normalize_activations(batch, return_scale_factor=True)
    read, encoder, decoder = model.prepare_input(scaled)
    y = model.decode(model.encode(read, **encoder), **decoder)
    by_hook = y.unbind(-2) if len(written) > 1 else [y]
    rebuilt = [part / factors[hook] for part, hook in zip(by_hook, written, strict=True)]
    whole = torch.stack(rebuilt, dim=1) if len(written) > 1 else rebuilt[0]
    expect(folder, f"llamascopium {version('llamascopium')}", x=x if len(hooks) > 1 else x[:, 0], y=whole)


def sae(act_fn: str, written: str = HOOKS[0], **how) -> SparseAutoEncoder:
    return SparseAutoEncoder(
        SAEConfig(hook_point_in=HOOKS[0], hook_point_out=written, act_fn=act_fn, top_k=3, **SHARED, **how)
    )


def crosscoder(act_fn: str, **how) -> Crosscoder:
    return Crosscoder(CrosscoderConfig(hook_points=HOOKS, act_fn=act_fn, top_k=3, **SHARED, **how))


x = inputs(3, D)
for act_fn in ("relu", "jumprelu"):
    write(f"crosscoder_{act_fn}", crosscoder(act_fn), HOOKS, HOOKS, x)
write("crosscoder_inference", crosscoder("jumprelu", norm_activation="inference"), HOOKS, HOOKS, x)
write("sae_topk", sae("topk"), HOOKS[:1], HOOKS[:1], x)
write("sae_topk_norm_apart", sae("topk", sparsity_include_decoder_norm=False), HOOKS[:1], HOOKS[:1], x)
write("sae_jumprelu", sae("jumprelu"), HOOKS[:1], HOOKS[:1], x)
write("transcoder", sae("relu", HOOKS[2]), HOOKS[:1], HOOKS[2:], x)
