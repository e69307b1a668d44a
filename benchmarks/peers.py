"""A training step of other packages, by their own code: `python -m benchmarks.peers NAME SHAPE`.

In an environment of their own, .venv-bench, which `make bench-peers` makes. Weights and activations are those
of `benchmarks.step`; `value` is the reconstruction loss at the first of them.
"""

import argparse
import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from benchmarks import timing
from benchmarks.step_inputs import BATCHES, Shape, activations, directions, shape_of
from benchmarks.timing import peak_bytes, work

LR = 1e-3


def saelens(shape: Shape, bfloat16: bool) -> tuple[Callable[[int], object], Callable[[], float]]:
    """SAELens's trainer, BatchTopK: a step on batch number i; the loss of the first."""
    config, trainers = import_module("sae_lens.config"), import_module("sae_lens.training.sae_trainer")
    saes = import_module("sae_lens.saes.batchtopk_sae")
    sizes = {"d_in": shape.D, "d_sae": shape.L, "k": float(shape.K), "apply_b_dec_to_input": False}
    sae = saes.BatchTopKTrainingSAE(saes.BatchTopKTrainingSAEConfig(**sizes))
    direction_LD = directions(shape)[:, 0]
    with torch.no_grad():
        sae.W_enc.copy_(direction_LD.T)
        sae.W_dec.copy_(direction_LD)
    samples = {"total_training_samples": 10**9, "train_batch_size_samples": shape.B}
    trainer = trainers.SAETrainer(
        config.SAETrainerConfig(**samples, lr=LR, lr_end=LR, autocast=bfloat16), sae, iter(()), None
    )
    x_nBD, first = activations(shape)[:, :, 0], []

    def step(i: int) -> None:
        output = trainer.step(x_nBD[i % BATCHES])
        trainer.n_training_steps += 1
        if not first:
            first.append(output.losses["mse_loss"].item())

    return step, lambda: first[0]


def sparsify(shape: Shape, bfloat16: bool) -> tuple[Callable[[int], object], Callable[[], float]]:
    """What sparsify's trainer does in a step with Adam, TopK; its own autocast is for CUDA alone."""
    coders, configs = import_module("sparsify.sparse_coder"), import_module("sparsify.config")
    coder = coders.SparseCoder(shape.D, configs.SparseCoderConfig(num_latents=shape.L, k=shape.K))
    with torch.no_grad():
        coder.encoder.weight.copy_(directions(shape)[:, 0])
        coder.W_dec.copy_(coder.encoder.weight)
    optimiser = torch.optim.Adam(coder.parameters(), lr=LR)
    x_nBD, first, fired = activations(shape)[:, :, 0], [], torch.zeros(shape.L, dtype=torch.bool)

    def step(i: int) -> None:
        x_BD = x_nBD[i % BATCHES]
        coder.set_decoder_norm_to_unit_norm()
        variance = (x_BD - x_BD.mean(0)).pow(2).sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out = coder(x_BD, total_variance=variance)
        fired[out.latent_indices.flatten()] = True
        if not first:
            first.append((out.fvu * variance).item() / len(x_BD))
        out.fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()

    return step, lambda: first[0]


PEERS: dict[str, Any] = {"saelens": saelens, "sparsify": sparsify}


def measure(name: str, shape: Shape, bfloat16: bool) -> dict[str, float]:
    """Seconds of a step, over as many as the shape says."""
    before = peak_bytes()
    step, first = PEERS[name](shape, bfloat16)
    return work(
        lambda: [step(i) for i in range(3)],  # loops are loaded, memory is taken
        lambda: [step(i) for i in range(shape.steps)],
        lambda _: first(),
        scale=1 / shape.steps,
        before=before,
    )


def main() -> None:
    """Print what was measured as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("shape")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    timing.once = options.once
    torch.set_num_threads(options.threads)
    shape = shape_of(options.shape, small=options.small)
    print(json.dumps(measure(options.name, shape, options.bfloat16)))


if __name__ == "__main__":
    main()
