"""Measures what is in docs/performance.md and writes its tables: `make performance`.

All benchmarks that can run here, whole commands, how a step grows with latents and with active latents, and
what its time goes to; on a machine that does nothing else, within an hour. Each figure is kept at once, in
docs/data/performance.json, and a run that was stopped goes on from there; --tables writes the page from what
is there.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks.commands import COMMANDS
from benchmarks.paired import CHECKOUT
from benchmarks.suite import BENCHMARKS, machine, run_benchmarks
from studies.pages import table, write_table
from xtalk.errors import XtalkError
from xtalk.progress import progress_bars

PAGE = CHECKOUT / "docs" / "performance.md"
DATA = CHECKOUT / "docs" / "data" / "performance.json"
LATENTS, ACTIVE = (1024, 2048, 4096, 8192, 16384, 32768, 65536), (8, 16, 32, 64, 128, 256)
PROFILED = ("4096", "16384", "paper", "demo")
AIMS = {
    "penalty.paper": 5.0,
    "penalty.b2048": 20.0,
    "step.paper": 3.0,
    "step.wide": 10.0,
    "step.saelens": 2.0,
    "step.saelens.wide": 2.0,
    "step.sparsify": 2.0,
    "step.sparsify.wide": 2.0,
    "splice.blocks": 0.67,
    "pairs": 50.0,
    "harvest": 0.9,
}
"""What each ratio should be at least."""


def parts(arguments: list[str], threads: int) -> dict[str, Any]:
    """`benchmarks.parts` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.parts", *arguments, "--threads", str(threads)]
    found = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def kept(threads: int) -> dict[str, Any]:
    """What was measured before, to go on from. Errors: XtalkError where it is of another machine."""
    now = machine() | {"load": None}
    if not DATA.exists():
        return {"machine": machine(), "threads": threads, "results": []}
    found = json.loads(DATA.read_text())
    if (found["machine"] | {"load": None}, found["threads"]) != (now, threads):
        raise XtalkError(f"{DATA} is of another machine or number of threads; remove it to measure anew")
    return found


def measure(names: list[str], threads: int, pairs: int | None, quick: bool) -> None:
    """Measure what the page shows and was not measured yet; each figure is kept at once."""
    found, few = kept(threads), ["--steps", "2" if quick else "4"]
    asked = {f"shape {name}": ["--shape", name] for name in PROFILED}
    asked |= {f"latents {n}": ["--latents", str(n), *few] for n in LATENTS}
    asked |= {f"active {k}": ["--k", str(k), *few] for k in ACTIVE}
    have = {result["name"] for result in found["results"]}
    todo = names or [name for name, benchmark in BENCHMARKS.items() if benchmark.runs_here] + list(COMMANDS)
    with progress_bars() as progress:
        for name in todo:
            if name in COMMANDS:
                commands = found.setdefault("commands", {})
                commands[name] = commands.get(name) or COMMANDS[name].measure()
                DATA.write_text(json.dumps(found, indent=1) + "\n")
            elif name not in have:
                found["results"] += run_benchmarks(
                    [name], pairs=pairs, threads=threads, small=False, progress=progress, quick=quick
                )["results"]
                DATA.write_text(json.dumps(found, indent=1) + "\n")
        for done, (what, arguments) in enumerate(asked.items()):
            progress("growth and parts", done, len(asked))
            found[what] = found.get(what) or parts(arguments, threads)
            DATA.write_text(json.dumps(found, indent=1) + "\n")
        progress("growth and parts", len(asked), len(asked))


def compared(results: list[dict[str, Any]]) -> str:
    """The table of ratios."""
    rows: list[list[str]] = []
    for result in results:
        (middle, low, high), aim = result["ratio"], AIMS.get(result["name"])
        rate = result["tokens_per_second"]
        rows.append(
            [
                result["name"],
                result["against"],
                "" if aim is None else f"{aim:g}",
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                f"{result['cpu_ratio'][0]:.2f}",
                f"{result['seconds']:.3f}",
                "" if rate is None else f"{rate:,.0f}",
                f"{result['peak_bytes'] / 2**20:,.0f}",
                f"{result['peak_ratio']:.2f}" if result["peak_ratio"] > 0.01 else "",
                f"{result['floor_fraction']:.2f}",
            ]
        )
    head = (
        "name",
        "against",
        "aim",
        "faster by",
        "processor time",
        "s",
        "tokens/s",
        "MiB",
        "memory",
        "floor",
    )
    return table(head, rows)


def whole_commands(found: dict[str, Any]) -> str:
    """The table of whole commands."""
    runs = [(name, found["commands"][name]) for name in COMMANDS if name in found.get("commands", {})]
    return table(
        ("name", "aim, s", "s", "s of processor time", "MiB"),
        [
            [
                name,
                f"{COMMANDS[name].aim:g}",
                f"{run['seconds']:.2f}" if run["seconds"] < 10 else f"{run['seconds']:.0f}",
                f"{run['cpu_seconds']:.2f}" if run["seconds"] < 10 else f"{run['cpu_seconds']:.0f}",
                f"{run['peak_bytes'] / 2**20:,.0f}",
            ]
            for name, run in runs
        ],
    )


def headline(found: dict[str, Any]) -> str:
    """Seconds of a whole training, before and today."""
    if not (of := found.get("headline")):
        return "Not measured yet."
    seconds = ", ".join(
        f"{name} {' and '.join(f'{value:,.0f}' for value in values)} s"
        for name, values in of["seconds"].items()
    )
    middle, low, high = of["ratio"]
    return f"{seconds}: {middle:.2f} [{low:.2f}, {high:.2f}] times as fast (aim: 3)."


def growth(found: dict[str, Any], what: str, numbers: tuple[int, ...]) -> str:
    """How a step grows."""
    runs = [(n, found[f"{what} {n}"]) for n in numbers if f"{what} {n}" in found]
    return table(
        (what, "ms", "ms of processor time", "tokens/s", "MiB"),
        [
            [
                f"{number:,}",
                f"{1e3 * run['seconds']:.0f}",
                f"{1e3 * run['cpu_seconds']:.0f}",
                f"{run['tokens_per_second']:,.0f}",
                f"{run['peak_bytes'] / 2**20:,.0f}",
            ]
            for number, run in runs
        ],
    )


def profile(found: dict[str, Any]) -> str:
    """What part of a step's processor time each of its parts takes."""
    rows = [(name, found[f"shape {name}"]) for name in PROFILED if f"shape {name}" in found]
    names = list(rows[0][1]["parts"]) if rows else []
    return table(
        ("step", "ms of processor time", *names),
        [
            [
                name,
                f"{1e3 * run['cpu_seconds']:.0f}",
                *(f"{100 * run['parts'][part] / run['cpu_seconds']:.0f} %" for part in names),
            ]
            for name, run in rows
        ],
    )


def measured_on(found: dict[str, Any]) -> str:
    """What the figures are of, in a sentence."""
    of = found["machine"]
    return (
        f"{of['processor']}, {of['cores']} cores, {of['system']}, Python {of['python']}, "
        f"torch {of['torch']}; threads: {found['threads']}; load when it began: {of['load']:.1f}."
    )


def write(found: dict[str, Any]) -> None:
    """Put everything into the page."""
    write_table(PAGE, "machine", measured_on(found))
    write_table(PAGE, "compared", compared(found["results"]))
    write_table(PAGE, "commands", whole_commands(found))
    write_table(PAGE, "headline", headline(found))
    write_table(PAGE, "latents", growth(found, "latents", LATENTS))
    write_table(PAGE, "active", growth(found, "active", ACTIVE))
    write_table(PAGE, "parts", profile(found))


def main() -> None:
    """Measure, keep what was measured, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of benchmarks and commands; default: all that run here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if not options.tables:
        measure(options.names, options.threads, options.pairs, options.quick)
    write(json.loads(DATA.read_text()))


if __name__ == "__main__":
    main()
