"""The benchmarks, which are in the repository and not in the package."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from xtalk.cli.failing import one_line_errors

CHECKOUT = Path(__file__).parents[3]


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Which.  [default: all]", show_default=False),
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Runs of each variant.  [default: 3 to 7]")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="One pair of each with an aim, run once: some four minutes on two cores."
        ),
    ] = False,
    small: Annotated[bool, typer.Option("--small", help="Tiny sizes, to see that it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")] = False,
) -> None:
    """Time the hot paths against the obvious ways to do the same, in paired runs, on this machine.

    Names: penalty.paper, penalty.b2048, step.paper, step.wide, step.demo, splice.blocks, evaluate.memory,
    pairs, pairs.wide, harvest, scale.2; and step.saelens and step.sparsify, either followed by .wide,
    .float32, .bfloat16, .wide.float32 or .wide.bfloat16, where `make bench-peers` has installed those
    packages. The whole takes half an hour and 12 GB; leave the machine alone meanwhile.

    Example: `xtalk bench penalty.paper --json`
    """
    with one_line_errors():
        import json

        from xtalk.progress import progress_bars

        suite = benchmark_suite()
        with progress_bars() as progress:
            results = suite.run_benchmarks(
                names or (), pairs=pairs, threads=threads, small=small, quick=quick, progress=progress
            )
        typer.echo(json.dumps(results, indent=1) if as_json else suite.table(results))


def benchmark_suite() -> ModuleType:
    """The benchmarks of the checkout that this is run from. Errors: XtalkError if it is not run from one."""
    from xtalk.errors import XtalkError

    if not (CHECKOUT / "benchmarks" / "suite.py").exists():
        raise XtalkError(
            f"no benchmarks beside {Path(__file__).parents[1]}; they are in xtalk's repository, not in its "
            "package: clone it, and run `make bench` there"
        )
    sys.path.insert(0, str(CHECKOUT))
    from benchmarks import suite

    return suite
