"""Crosscoders of the paper's repository, whose model-diffing folder is on PYTHONPATH (commit 1d311a9)."""

import torch
from model_diffing.models.activations.jumprelu import JumpReLUActivation
from model_diffing.models.activations.relu import ReLUActivation
from model_diffing.models.activations.topk import TopkActivation
from model_diffing.models.crosscoder import AcausalCrosscoder
from writing import D, L, draw, expect, inputs, out


def write(name: str, dims: tuple[int, ...], activation, fold: bool = False) -> None:
    crosscoder = AcausalCrosscoder(dims, D, L, activation)
    draw(crosscoder)
    if fold:
        crosscoder.fold_activation_scaling_into_weights_(torch.rand(dims) + 0.5)
    folder = out(f"paper/{name}")
    crosscoder.save(folder)
    x = inputs(*dims, D)
    y, f = crosscoder(x), crosscoder._encode_BH(x)
    expect(folder, "the paper's repository 1d311a9", x=x.flatten(1, -2), y=y.flatten(1, -2), f=f)


torch.manual_seed(0)
write("topk", (3,), TopkActivation(2))
write("topk_folded", (3,), TopkActivation(2), fold=True)
write("relu_models_and_layers", (2, 3), ReLUActivation())
write("jumprelu", (3,), JumpReLUActivation(L, 2.0, -1.0))
