"""Train the digits network and crosscoder of `xtalk prove`, with theorem T1's bound in the loss.

    python -m studies.embedded.train_digits --out FOLDER --seed 0              network and crosscoder together
    python -m studies.embedded.train_digits --out FOLDER --seed 0 --post-hoc   an ordinary network, then its crosscoder

Writes digits.safetensors (what ships is seed 0's). Two minutes on one free core.
"""

import argparse
from pathlib import Path

import torch
from rich.progress import Progress

from xtalk.proofs.t1.digits import digits, save_digits, shifted_and_noisy
from xtalk.proofs.t1.network import FiniteNetwork, FiniteSizes
from xtalk.proofs.t1.training import FiniteTraining, align_neurons, axes_crosscoder, train_finite

SIZES = FiniteSizes(inputs=64, classes=10, d_model=24, neurons=192)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--post-hoc", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(options.seed)
    network = FiniteNetwork(SIZES, generator)
    crosscoder = axes_crosscoder(SIZES.d_model, SIZES.d_model, generator)
    data = digits(options.seed)
    phases = [("network and crosscoder", 0.7, False)]
    if options.post_hoc:
        phases = [("network alone", 0.0, False), ("crosscoder alone", 0.7, True)]
    else:
        align_neurons(network, crosscoder, generator)
    with Progress() as progress:
        for name, bound, frozen in phases:
            training = FiniteTraining(steps=options.steps, bound=bound, seed=options.seed)
            bar = progress.add_task(name, total=options.steps)
            train_finite(
                network,
                crosscoder,
                data.train_RI,
                data.train_labels_R,
                training,
                shifted_and_noisy,
                frozen=frozen,
                progress=lambda done, total, bar=bar: progress.update(bar, completed=done),
            )
    options.out.mkdir(parents=True, exist_ok=True)
    save_digits(options.out / "digits.safetensors", network, crosscoder)


if __name__ == "__main__":
    main()
