"""The benchmarks by name, and the command's work: run them and put the results together.

A benchmark module has `VARIANTS`, what is compared, and `measure`, which does one of them in a process of its
own. The names are those of the budgets; step.saelens and step.sparsify compare what each package does unless
asked otherwise, with 4,096 latents (.wide: 16,384); .float32 and .bfloat16 compare both in that.
"""

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from typing import Any

from benchmarks.paired import CHECKOUT, Variants, compare
from benchmarks.step_inputs import SHAPES
from xtalk.errors import XtalkError

PEERS = CHECKOUT / ".venv-bench" / "bin" / "python"
"""Where other packages are installed, by `make bench-peers`."""


@dataclass(frozen=True)
class Benchmark:
    """A module with the work, its size, and how many pairs are run unless asked otherwise.

    quick: whether the quick suite has it, with one pair. tokens: of a run.
    against: another package, which is run in an environment of its own.
    """

    module: str
    pairs: int = 5
    quick: bool = True
    size: dict[str, Any] = field(default_factory=dict[str, Any])
    tokens: int | None = None
    against: str | None = None

    @property
    def runs_here(self) -> bool:
        """Whether the package that it needs is installed."""
        return self.against is None or PEERS.exists()

    @property
    def variants(self) -> Variants:
        """Ours, theirs, and the floor."""
        ours, theirs, floor = self.load().VARIANTS
        return ours, self.against or theirs, floor

    @property
    def tolerance(self) -> float:
        """Within which values agree: bfloat16 has two digits."""
        return 1e-2 if self.size.get("precision") == "bfloat16" else 1e-4

    def load(self) -> Any:
        """The module."""
        return import_module(f"benchmarks.{self.module}")

    def command(self, name: str, variant: str, options: Sequence[str]) -> list[str]:
        """What measures a variant."""
        if variant != self.against:
            return [sys.executable, "-m", "benchmarks.child", name, variant, *options]
        precision = ["--bfloat16"] if self.size["precision"] == "bfloat16" else []
        return [str(PEERS), "-m", "benchmarks.peers", variant, self.size["shape"], *precision, *options]


def _step(shape: str, precision: str = "default", against: str | None = None, **counts: Any) -> Benchmark:
    size = {"shape": shape, "precision": precision} | ({"against": against} if against else {})
    return Benchmark("step", size=size, tokens=SHAPES[shape].B, against=against, **counts)


BENCHMARKS = {
    "penalty.paper": Benchmark("penalty", 7, size={"batch": 256}, tokens=256),
    "penalty.b2048": Benchmark("penalty", 3, size={"batch": 2048}, tokens=2048),
    "step.paper": _step("paper"),
    "step.wide": _step("wide", pairs=3),
    **{
        f"step.{peer}{wide}{precision and '.' + precision}": _step(
            latents, precision or "default", peer, pairs=3, quick=not (wide or precision)
        )
        for peer in ("saelens", "sparsify")
        for wide, latents in (("", "4096"), (".wide", "16384"))
        for precision in ("", "float32", "bfloat16")
    },
    "step.demo": _step("demo", quick=False),
    "splice.blocks": Benchmark("splice", 3, tokens=256),
    "evaluate.memory": Benchmark("evaluation", 1, quick=False, tokens=256),
    "pairs": Benchmark("pairs", tokens=10_000),
    "pairs.wide": Benchmark("pairs", 1, quick=False, size={"wide": True}, tokens=65_536),
    "harvest": Benchmark("harvest", tokens=65_536),
    "scale.2": Benchmark("processes", 3, quick=False, tokens=1024),
}


def run_benchmarks(
    names: Sequence[str],
    *,
    pairs: int | None,
    threads: int,
    small: bool,
    progress: Callable[[str, int, int], object],
    quick: bool = False,
) -> dict[str, object]:
    """Run benchmarks in paired runs; the results in the schema xtalk.bench/2.

    names: all that can run here where none is given; quick: the budgets' names alone, one pair of each,
    run once. small: tiny sizes, to see that it runs. Errors: XtalkError for a name that is not known, or
    whose package is not installed.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise XtalkError(f"no benchmark {name!r}; expected some of {', '.join(BENCHMARKS)}")
        if not BENCHMARKS[name].runs_here:
            raise XtalkError(f"{name} needs other packages, in .venv-bench; make it: make bench-peers")
    options = ["--threads", str(threads), *(["--small"] if small else []), *(["--once"] if quick else [])]
    results: list[dict[str, object]] = []
    for name in names or [name for name, one in BENCHMARKS.items() if one.runs_here]:
        benchmark = BENCHMARKS[name]
        if not names and quick and not benchmark.quick:
            continue
        commands = {v: benchmark.command(name, v, options) for v in benchmark.variants}
        often = pairs or (1 if quick else benchmark.pairs)
        result = compare(
            name,
            benchmark.variants,
            often,
            commands,
            progress,
            tokens=None if small else benchmark.tokens,
            tolerance=benchmark.tolerance,
        )
        results.append(result)
    return {
        "schema": "xtalk.bench/2",
        "machine": machine(),
        "small": small,
        "quick": quick,
        "threads": threads,
        "results": results,
    }


def machine() -> dict[str, object]:
    """What the figures are of."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def table(results: dict[str, Any]) -> str:
    """The results for people: a line each."""
    lines = [
        f"{'benchmark':28} {'against':14} {'faster by':>22} {'of processor time':>22} "
        f"{'seconds':>9} {'tokens/s':>9} {'MiB':>7} {'floor':>6}"
    ]
    for result in results["results"]:
        ratios = [
            f"{median:.2f} [{low:.2f}, {high:.2f}]"
            for median, low, high in (result["ratio"], result["cpu_ratio"])
        ]
        rate = result["tokens_per_second"]
        lines.append(
            f"{result['name']:28} {result['against']:14} {ratios[0]:>22} {ratios[1]:>22} "
            f"{result['seconds']:9.3f} {'' if rate is None else f'{rate:.0f}':>9} "
            f"{result['peak_bytes'] / 2**20:7.0f} {result['floor_fraction']:6.2f}"
        )
    return "\n".join(lines)
