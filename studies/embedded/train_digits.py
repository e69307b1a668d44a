"""Train the digits network and crosscoder of `xtalk prove --theorem T1`, with its bound in the loss.

    python -m studies.embedded.train_digits --out FOLDER --seed 0

Network and crosscoder learn together; with --post-hoc an ordinary network first, then its crosscoder.
Writes digits.safetensors (what ships is seed 0's). Two minutes on one free core.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from studies import pages
from xtalk.progress import progress_bars
from xtalk.proofs.t1.digits import save_digits, train_digits


def main(argv: Sequence[str] | None = None) -> None:
    """Train and save them."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--post-hoc", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    with progress_bars() as progress:
        trained = train_digits(
            options.seed, post_hoc=options.post_hoc, steps=options.steps, progress=progress
        )
    save_digits(options.out / "digits.safetensors", *trained)


if __name__ == "__main__":
    main()
