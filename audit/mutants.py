"""Change one line of the checker at a time, and see the test that is named beside it fail.

    python -m audit.mutants [--workers 2]

Applies each mutant to a copy of the checker, imports the copy, and runs the named test against it; the same
tests must pass on the copy as it is. Exit code 1 if a mutant survives.
"""

import argparse
import contextlib
import importlib
import importlib.util
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from hypothesis import Phase, settings

from audit.mutants_finite import CHARTS, DATA, FINITE, T1
from audit.mutants_language import T1_LANGUAGE
from audit.mutants_positions import POSITIONS
from audit.mutants_sequences import (
    ATTENTION,
    BRUTE_FORCE,
    CLAIMS,
    CODEBOOK,
    COUNTING,
    LIMITS,
    NETWORK,
    PARTITION,
    ROUNDING,
    T3,
    TASKS,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "packages" / "xtalk-check" / "src" / "xtalk_check"
NULL = "what_may_be_null_may_not_be_missing"
UNITS = "budgets_count_every_unit"
HELD = "budgets_count_what_is_held"
TAILS = "far_out_ranges_are_those_of_the_tails"
PIECE = "pieces_hold_their_ends_and_little_more"
SECONDS = 30  # of processor time for one test; a mutant that runs for longer counts as caught


ACTIVATIONS = [
    ("EVERYWHERE = arb(0, 1 << 100)", "EVERYWHERE = arb(0, 1)", TAILS),
    ("2 * over[2] * CELL", "over[2] * CELL", PIECE),
    ("6 * over[3] * CELL", "2 * over[3] * CELL", PIECE),
    ("2 * at[2] + 6", "at[2] + 6", PIECE),
    ("prec=4", "prec=3", PIECE),
    ("return 2 * REACH * PIECES + 1", "return 2 * REACH * PIECES", TAILS),
    ("arb(1) if x > 0 else", "arb(1) if x > -1 else", "relu_bends_only_at_its_kink"),
    (
        "arb(0) if x > 0 or x < 0 else None",
        "arb(0) if x > -1 or x < 0 else None",
        "relu_bends_only_at_its_kink",
    ),
    (
        "arb(0) if x > 0 or x < 0 else None",
        "arb(0) if x > 0 or x < 1 else None",
        "relu_bends_only_at_its_kink",
    ),
    ("return x.max(arb(0))", "return x", "values_and_slopes"),
    ("arb(0) if x < 0 else arb(0).union(arb(1))", "arb(0)", "relu_at_its_kink"),
    ("arb(0) if x > 0 or x < 0 else None", "arb(0)", "relu_at_its_kink"),
    (".erf() + 1) * arb(0.5)", ".erf() + 1) * arb(0.25)", "values_and_slopes"),
    ("arb(44715) / 1000000", "arb(44714) / 1000000", "values_and_slopes"),
    ("(arb(2) / arb.pi()).sqrt()", "arb(2) / arb.pi()", "values_and_slopes"),
    ("ctx.workprec(PRECISION):\n    ROOT", "ctx.workprec(20):\n    ROOT", "values_and_slopes"),
    ("((u * -2).exp() + 1)", "((u * 2).exp() + 1)", "values_and_slopes"),
    ("tail + 1]", "tail]", "tails"),
    (
        "[tail, *(curvature for _, curvature in pieces), tail]",
        "[tail] * (len(pieces) + 2)",
        "global_constants",
    ),
    (
        "arb(0, arb(1) / (2 * PIECES))",
        "arb(0, arb(1) / (4 * PIECES))",
        "ranges_over_one_piece_reach_its_ends",
    ),
    ("(centre, centre + CELL)", "(centre, centre)", PIECE),
    (
        "arb(2 * piece + 1) / (2 * PIECES)",
        "arb(2 * piece + 2) / (2 * PIECES)",
        "ranges_over_one_piece_reach_its_ends",
    ),
    (
        "return int(piece) + REACH * PIECES + 1",
        "return int(piece) + REACH * PIECES",
        "ranges_hold_every_derivative_and_are_tight",
    ),
    (
        "_row(x.lower()), _row(x.upper()) + 1",
        "_row(x.mid()), _row(x.mid()) + 1",
        "ranges_hold_every_derivative_and_are_tight",
    ),
    ("_row(x.upper()) + 1", "_row(x.upper())", "ranges_over_one_piece_reach_its_ends"),
    (" and x.rad() <= CELL.rad():", ":", "slopes_of_wide_and_far_balls"),
    ("if abs(x) < REACH and x.rad()", "if x.rad()", "slopes_of_wide_and_far_balls"),
    (
        "(end * PIECES).floor()",
        "((end + REACH) * PIECES - REACH * PIECES).floor()",
        "ranges_beside_the_edge_of_a_piece",
    ),
    ("if piece is None:", "if piece is None and end > 0:", "what_is_not_finite_is_refused"),
]
WORK = [
    (" + EVALUATION * self.evaluations + self.reads", " + self.evaluations + self.reads", UNITS),
    ("self.reads + self.steps", "self.reads", UNITS),
    (
        "self.budget.allow(spent + units, what)",
        "self.budget.allow(spent, what)",
        "plans_count_beside_what_is_spent",
    ),
    ("self.budget.fit(self.held + balls, what)", "self.budget.fit(balls, what)", HELD),
    ("[logits[right] - logit for", "[logit - logits[right] for", "leads_and_sums_of_rows"),
    ("[a + b for a, b in", "[a for a, b in", "leads_and_sums_of_rows"),
    ("return [hull(entries) for", "return [entries[0] for", "hulls_hold_all_balls"),
    ("        self.held += balls\n", "", HELD),
    ("self.fit(left.nrows() * right.ncols()", "self.fit(left.nrows()", HELD),
    ("(ball.lower() * (1 << bits))", "(ball.mid() * (1 << bits))", "floors_are_below_the_ball"),
    ("(ball.lower() * (1 << bits))", "(ball.upper() * (1 << bits))", "floors_are_below_the_ball"),
    (".lower().floor()", ".lower().ceil()", "floors_are_below_the_ball"),
    ("if integer is None:", "if integer is None and ball < 0:", "floors_are_below_the_ball"),
    ("return reduce(arb.union, balls)", "return next(iter(balls))", "hulls_hold_all_balls"),
    ("return reduce(arb.min, balls)", "return next(iter(balls))", "hulls_hold_all_balls"),
    ("left.nrows() * left.ncols() * right.ncols()", "right.ncols()", "length_is_counted_where_work_is_done"),
    (
        "self.spend(evaluations=len(points))",
        "self.spend(evaluations=1)",
        "length_is_counted_where_work_is_done",
    ),
]
READING = [
    ('self._left.get(name, "") is None', "self._left.get(name) is None", NULL),
    ("if len(found) != len(shape) or any(a", "if any(a", "shapes_and_names_are_those_asked_for"),
    ("if count > MOST_TENSORS:", "if count > 2 * MOST_TENSORS:", "containers_that_are_refused"),
    ("if len(members) < len(pairs):", "if not pairs:", "json_that_is_refused"),
    ("parse_float=refuse,", "", "json_that_is_refused"),
    ("parse_constant=refuse,", "", "json_that_is_refused"),
    ("LONGEST_INTEGER = 60", "LONGEST_INTEGER = 61", "json_that_is_refused"),
    (
        "if type(value) is not int or",
        "if not isinstance(value, int) or",
        "fields_of_the_wrong_kind_are_refused",
    ),
    ("or not low <= value <= high:", "or not low <= value:", "fields_of_the_wrong_kind_are_refused"),
    ("return self._left.pop(name)", "return self._left[name]", "fields_are_read_once_and_counted"),
    ("self._work.spend(reads=len(values))", "self._work.spend(reads=1)", "fields_are_read_once_and_counted"),
    ("or name <= last:", "or name < last:", "containers_that_are_refused"),
    ("if len(taken) < size:", "if not taken:", "containers_that_are_refused"),
    ("stream.read(min(size, len(content)))", "stream.read(size)", "containers_that_are_refused"),
    ("map(math.isfinite, values)", "map(math.isfinite, values[1:])", "containers_that_are_refused"),
    (
        "if left:\n        raise Rejected(f",
        "if left > 1:\n        raise Rejected(f",
        "containers_that_are_refused",
    ),
    ("NAME.fullmatch(name)", "NAME.match(name)", "containers_that_are_refused"),
    (
        "if isinstance(value, list | dict) else json.dumps",
        "if value is None else json.dumps",
        "what_is_nested_too_deeply_to_be_quoted",
    ),
    ("if 0 in shape:", "if 0 in shape[1:]:", "containers_that_are_refused"),
    ("any(a not in (None, b) for", "any(a == 0 for", "shapes_and_names_are_those_asked_for"),
]
PROOF = [
    ("    expected.done()\n", "", "identity_is_checked"),
    ('given.digest("weights") != network.sha256', 'given.digest("weights") == ""', "identity_is_checked"),
    (
        'expected.digest("weights") != network.sha256',
        'expected.digest("weights") == ""',
        "identity_is_checked",
    ),
    ("for fields in (task, advice, claim):", "for fields in (task, claim):", "identity_is_checked"),
    ("    network.done()\n", "", "identity_is_checked"),
    ('given.choice("theorem", theorem)', 'given.choice("theorem", *THEOREMS)', "identity_is_checked"),
    ("    given.done()\n", "", "identity_is_checked"),
]
# (what stands once in the file, what stands there instead, the test that must notice), by file
MUTANTS = {
    "activations.py": ACTIVATIONS,
    "attention.py": ATTENTION,
    "charts.py": CHARTS,
    "claims.py": CLAIMS,
    "counting.py": COUNTING,
    "data.py": DATA,
    "finite.py": FINITE,
    "positions.py": POSITIONS,
    "proof.py": PROOF,
    "limits.py": LIMITS,
    "network.py": NETWORK,
    "reading.py": READING,
    "t1.py": T1,
    "t1_language.py": T1_LANGUAGE,
    "t3.py": T3 + CODEBOOK + BRUTE_FORCE,
    "tasks.py": TASKS + PARTITION,
    "rounding.py": ROUNDING,
    "work.py": WORK,
}


Mutant = tuple[str, str, str, str]
"""A file, what stands once in it, what stands there instead, and the test that must notice."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check all mutants, or those of some files; prints complaints, and returns whether there are any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--files", nargs="+", choices=list(MUTANTS), default=list(MUTANTS))
    options = parser.parse_args(argv)
    mutants = [(file, *mutant) for file in options.files for mutant in MUTANTS[file]]
    started, tests = time.monotonic(), sorted({test for *_, test in mutants})
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(options.workers, get_context("spawn"), prepare, (folder,)) as pool,
    ):
        found = [*pool.map(unchanged, tests), *pool.map(survives, mutants)]
    complaints = [complaint for complaint in found if complaint]
    print(*complaints, sep="\n", end="\n" * bool(complaints))
    print(f"{len(mutants)} mutants, {len(complaints)} complaints, {time.monotonic() - started:.0f} s")
    return int(bool(complaints))


def prepare(folder: str) -> None:
    """Give this process a copy of the checker of its own, and make that the one that is imported."""
    settings.register_profile(
        "mutants", derandomize=True, deadline=None, database=None, max_examples=40, phases=[Phase.generate]
    )
    settings.load_profile("mutants")
    signal.signal(signal.SIGPROF, too_long)
    sys.dont_write_bytecode = True
    own = Path(folder) / str(os.getpid())
    shutil.copytree(PACKAGE, own / PACKAGE.name)
    sys.path[:0] = [str(own), str(ROOT / "tests")]


def unchanged(test: str) -> str:
    """A complaint if a test is missing, or fails on the checker as it is."""
    if (found := len(files_of_tests().get(test, ()))) != 1:
        return f"{test} is the name of {found} tests; expected one"
    return "" if passes(test) else f"{test} fails without a mutant"


def survives(mutant: Mutant) -> str:
    """A complaint if a mutant cannot be made, or its test does not notice it."""
    file, old, new, test = mutant
    text = (PACKAGE / file).read_text()
    if text.count(old) != 1:
        return f"{file}: {old!r} stands {text.count(old)} times"
    copy = Path(sys.path[0]) / PACKAGE.name / file
    copy.write_text(text.replace(old, new))
    noticed = not passes(test)
    copy.write_text(text)
    return "" if noticed else f"{file}: {old!r} -> {new!r} survives {test}"


@cache
def files_of_tests() -> dict[str, list[Path]]:
    """Where the checker's tests are, by name, without `test_`."""
    files = defaultdict[str, list[Path]](list)
    for file in sorted((ROOT / "tests" / "xtalk_check").glob("test_*.py")):
        for name in re.findall(r"^def test_(\w+)\(\)", file.read_text(), re.MULTILINE):
            files[name].append(file)
    return dict(files)


def passes(test: str) -> bool:
    """Whether a test passes on the copy as it stands, imported anew."""
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE.name]:
        del sys.modules[name]
    importlib.invalidate_caches()
    [file] = files_of_tests()[test]
    spec = importlib.util.spec_from_file_location(f"mutants_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            spec.loader.exec_module(module)
            getattr(module, f"test_{test}")()
    except KeyboardInterrupt:
        raise
    except BaseException:  # pytest's failures are no Exceptions
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return True


def too_long(*_: object) -> None:
    """What SIGPROF does."""
    raise TimeoutError


if __name__ == "__main__":
    sys.exit(main())
