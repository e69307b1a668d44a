"""Crosscoders of science-of-finetuning/crosscoder_learning, whose checkout is on PYTHONPATH (commit "
"b2363ed)."""

import torch
from dictionary_learning.dictionary import BatchTopKCrossCoder, CrossCoder
from writing import D, L, draw, expect, inputs, out

NORMALISED = {"activation_mean": torch.randn(3, D) * 0.3, "activation_std": torch.rand(3, D) + 0.5}


def write(name: str, crosscoder, threshold: float | None = None) -> None:
    draw(crosscoder)
    if threshold is not None:
        spread = torch.linspace(0.8, 1.2, max(crosscoder.threshold.numel(), 2))[
            : crosscoder.threshold.numel()
        ]
        crosscoder.threshold.copy_(threshold * spread.view(crosscoder.threshold.shape))
    folder = out(f"crosscoder_learning/{name}")
    crosscoder.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    x = inputs(3, D)
    read = list(crosscoder.encoder.encoder_layers)
    expect(folder, "crosscoder_learning b2363ed", x=x[:, read], y=crosscoder(x))


torch.manual_seed(0)
write("relu", CrossCoder(D, L, 3))
write("relu_normalised", CrossCoder(D, L, 3, **NORMALISED, target_rms=2.0))
write(
    "relu_reads_two",
    CrossCoder(D, L, 3, encoder_layers=[0, 2], num_decoder_layers=3, init_with_transpose=False),
)
for kind in ("CROSSCODER", "SAE", "NONE", "MIXED", "DECOUPLED"):
    write(f"batchtopk_{kind.lower()}", BatchTopKCrossCoder(D, L, 3, k=3, code_normalization=kind), 4.0)
write("batchtopk_normalised", BatchTopKCrossCoder(D, L, 3, k=3, **NORMALISED), 4.0)
