"""The command line: reads three files, and prints the verdict on them."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from xtalk_check.verdict import Verdict, check
from xtalk_check.work import Budget


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the verdict and returns the exit code."""
    parser = argparse.ArgumentParser(prog="xtalk-check", description="Check a certificate.")
    parser.add_argument("certificate", type=Path)
    parser.add_argument("--spec", type=Path, required=True, help="the task, as the verifier means it")
    parser.add_argument("--weights", type=Path, required=True, help="the container of the weights")
    parser.add_argument(
        "--budget", type=int, default=Budget().work, metavar="UNITS", help="of work (default: %(default)s)"
    )
    parser.add_argument(
        "--memory", type=int, default=Budget().memory, metavar="BALLS", help="held (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    options = parser.parse_args(arguments)
    budget = Budget(options.budget, options.memory)
    try:
        paths = (options.certificate, options.spec, options.weights)
        certificate, spec, weights = (_content(path, budget) for path in paths)
    except OSError as error:
        verdict = Verdict("not a certificate", f"{error.filename}: {error.strerror}")
    else:
        verdict = check(certificate, spec, weights, budget)
    if options.json:
        length = {name: getattr(verdict.length, name) for name in ("multiply_adds", "evaluations", "reads")}
        found = {"schema": "xtalk.verdict/2"} | asdict(verdict) | {"length": length, "budget": asdict(budget)}
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(_sentence(verdict) + "\n")
    return verdict.exit_code


def _content(path: Path, budget: Budget) -> bytes:
    """What a file holds, but for what is too much to be read: a byte more than fits tells that.

    Four bytes fit for each ball, the size of a float32.
    """
    with path.open("rb") as file:
        return file.read(4 * budget.memory + 1)


def _sentence(verdict: Verdict) -> str:
    said = verdict.statement
    if said is None:
        return f"{verdict.verdict}: {verdict.reason}"
    first, *further = said.claims
    length, pinned = verdict.length, "" if verdict.pinned else "NOT "
    lines = [
        f"accepted: {verdict.theorem} proves that {first}",
        *(f"and that {claim}" for claim in further),
        f"task: {said.task}",
        f"network: {said.network}",
        f"ties: {said.ties}",
        f"arithmetic: {said.arithmetic}",
        *(f"assumed: {assumption}" for assumption in said.assumptions),
        f"weights: {verdict.weights}, {pinned}pinned by the specification",
        f"specification: {verdict.spec}",
        f"length: {length.multiply_adds:,} multiply-adds, {length.evaluations:,} non-linear evaluations, "
        f"{length.reads:,} reads; {verdict.seconds:.2f} s",
    ]
    return "\n".join(lines)
