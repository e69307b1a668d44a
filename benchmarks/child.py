"""One variant of one benchmark, in this process: `python -m benchmarks.child NAME VARIANT`."""

import argparse
import json

import torch

from benchmarks import timing
from benchmarks.suite import BENCHMARKS


def main() -> None:
    """Print what was measured as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("variant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    timing.once = options.once
    torch.set_num_threads(options.threads)
    benchmark = BENCHMARKS[options.name]
    print(json.dumps(benchmark.load().measure(options.variant, small=options.small, **benchmark.size)))


if __name__ == "__main__":
    main()
