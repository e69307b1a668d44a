"""Single-layer transcoders of circuit-tracer, saved and run by it."""

from importlib.metadata import version

import torch
import torch.nn.functional as F
from circuit_tracer.transcoder.activation_functions import JumpReLU
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder
from writing import D, L, draw, expect, inputs, out


def write(name: str, activation, skip: bool) -> None:
    transcoder = SingleLayerTranscoder(
        D, L, activation, 3, skip_connection=skip, device=torch.device("cpu"), dtype=torch.float32
    )
    draw(transcoder)
    folder = out(f"circuit_tracer/{name}")
    transcoder.to_safetensors(str(folder / "layer_3.safetensors"))
    (folder / "config.yaml").write_text(
        "model_name: google/gemma-2-2b\nmodel_kind: transcoder_set\n"
        "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    )
    x = inputs(D)
    peer = f"circuit-tracer {version('circuit-tracer')}"
    expect(folder, peer, x=x, y=transcoder(x), f=transcoder.encode(x))


write("relu", F.relu, skip=False)
write("relu_skip", F.relu, skip=True)
write("jumprelu", JumpReLU(torch.zeros(L), 0.1), skip=False)
