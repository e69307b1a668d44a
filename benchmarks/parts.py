"""What the time of a training step goes to, and how it grows: `python -m benchmarks.parts`."""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.step import xtalk_steps
from benchmarks.step_inputs import SHAPES, Shape, one_hookpoint
from benchmarks.timing import peak_bytes
from xtalk import product_loops
from xtalk.crosscoder import selection_loops
from xtalk.crosscoder.pre_activations import ActiveRows
from xtalk.training.adam import Adam
from xtalk.training.config import TrainingConfig

PARTS: dict[str, list[tuple[Any, str]]] = {
    "encoder's product": [(ActiveRows, "all")],
    "choosing latents": [(selection_loops, "group_maxima"), (selection_loops, "reaching")],
    "active products": [(product_loops, "dots")],
    "decoding": [(product_loops, "codes_times_rows")],
    "gradients of rows": [(product_loops, "codes_transposed_times")],
    "Adam": [(Adam, "step"), (Adam, "gradient_norm")],
}
"""The functions, none within another, in which a step spends its time; what is left is "the rest"."""


def timed(function: Callable[..., Any], spent: dict[str, float], part: str) -> Callable[..., Any]:
    """The function, whose processor time is added to a part."""

    def run(*args: Any, **named: Any) -> Any:
        start = time.process_time()
        made = function(*args, **named)
        spent[part] += time.process_time() - start
        return made

    return run


def measure(shape: Shape, bfloat16: bool) -> dict[str, Any]:
    """Seconds of a step (wall and processor), memory, and the processor time of its parts."""
    spent: dict[str, float] = defaultdict(float)
    for part, functions in PARTS.items():
        for home, name in functions:
            setattr(home, name, timed(getattr(home, name), spent, part))
    before = peak_bytes()
    step, _ = xtalk_steps(shape, "batchtopk", bfloat16)
    for i in range(2):
        step(i)
    spent.clear()
    start, cpu = time.perf_counter(), time.process_time()
    for i in range(shape.steps):
        step(i)
    seconds, cpu = (time.perf_counter() - start) / shape.steps, (time.process_time() - cpu) / shape.steps
    parts = {part: spent[part] / shape.steps for part in PARTS}
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "tokens_per_second": shape.B / seconds,
        "peak_bytes": peak_bytes() - before,
        "parts": parts | {"the rest": cpu - sum(parts.values())},
    }


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--latents", type=int, default=16384, help="of one hookpoint, without --shape")
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = SHAPES.get(options.shape) or one_hookpoint(options.latents, options.k, options.steps)
    bfloat16 = TrainingConfig(steps=1, batch_tokens=1).uses_bfloat16(torch.device("cpu"))
    print(json.dumps(measure(shape, bfloat16)))


if __name__ == "__main__":
    main()
