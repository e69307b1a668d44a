"""The benchmarks by name, and the command's work: run them and put the results together.

A benchmark module has `VARIANTS`, what is compared, and `measure`, which does one of them in a process of its
own. The names are those of the budgets: penalty.paper, penalty.b2048, step.paper, step.wide, pairs, harvest;
pairs.wide is there for its memory, step.peer for a comparison with another package.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import distributions
from typing import Any

from benchmarks.paired import Variants, compare
from xtalk.errors import XtalkError


@dataclass(frozen=True)
class Benchmark:
    """A module with the work, its size, and how many pairs are run unless told otherwise.

    needs: a package that xtalk does without; where it is missing, only who names the benchmark is told.
    """

    module: str
    pairs: int = 5
    size: dict[str, Any] = field(default_factory=dict[str, Any])
    needs: str | None = None

    @property
    def runs_here(self) -> bool:
        """Whether the package that it needs is installed."""
        return self.needs is None or any(distributions(name=self.needs))

    def load(self) -> Any:
        """The module."""
        return import_module(f"benchmarks.{self.module}")


BENCHMARKS = {
    "penalty.paper": Benchmark("penalty", 7, {"batch": 256}),
    "penalty.b2048": Benchmark("penalty", 3, {"batch": 2048}),
    "step.paper": Benchmark("step", 5, {"latents": 1536}),
    "step.wide": Benchmark("step", 3, {"latents": 16384}),
    "step.peer": Benchmark("step_peer", 5, {"latents": 1536}, needs="eai-sparsify"),
    "pairs": Benchmark("pairs", 5),
    "pairs.wide": Benchmark("pairs", 1, {"wide": True}),
    "harvest": Benchmark("harvest", 5),
}


def run_benchmarks(
    names: Sequence[str],
    *,
    pairs: int | None,
    threads: int,
    small: bool,
    progress: Callable[[str, int, int], object],
) -> dict[str, object]:
    """Run benchmarks in paired runs; the results in the schema xtalk.bench/1.

    names: all that can run here where none is given. small: tiny sizes, to see that it runs. Errors:
    XtalkError for a name that is not known, or whose package is not installed.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise XtalkError(f"no benchmark {name!r}; expected some of {', '.join(BENCHMARKS)}")
        if not BENCHMARKS[name].runs_here:
            needed = BENCHMARKS[name].needs
            raise XtalkError(f"{name} needs the package {needed}; install it: pip install {needed}")
    arguments = ["--threads", str(threads), *(["--small"] if small else [])]
    results: list[dict[str, object]] = []
    for name in names or [name for name, benchmark in BENCHMARKS.items() if benchmark.runs_here]:
        benchmark = BENCHMARKS[name]
        variants: Variants = benchmark.load().VARIANTS
        results.append(compare(name, variants, pairs or benchmark.pairs, arguments, progress))
    return {"schema": "xtalk.bench/1", "small": small, "threads": threads, "results": results}


def table(results: dict[str, Any]) -> str:
    """The results for people: a line each."""
    lines = [f"{'benchmark':14} {'against':14} {'faster by':>22} {'seconds':>9} {'MiB':>7} {'floor':>6}"]
    for result in results["results"]:
        median, low, high = result["ratio"]
        ratio = f"{median:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(
            f"{result['name']:14} {result['against']:14} {ratio:>22} {result['seconds']:9.3f} "
            f"{result['peak_bytes'] / 2**20:7.0f} {result['floor_fraction']:6.2f}"
        )
    return "\n".join(lines)
