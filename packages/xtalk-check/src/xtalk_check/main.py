"""What a check is, from three files to a verdict."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter

from flint import ctx

from xtalk_check import attention, brute_force, t1, t1_language, t3
from xtalk_check.errors import NotACertificate, OverBudget, Rejected
from xtalk_check.reading import Fields, Json, Weights, parse, parse_weights
from xtalk_check.statement import Statement, statement
from xtalk_check.work import PRECISION, Budget, Work

CERTIFICATE = "xtalk.certificate/1"
SPEC = "xtalk.spec/1"

# task (of the specification), advice and claim (of the certificate), weights, counters -> what is proven.
# Raises Rejected unless the claim follows.
Theorem = Callable[[Fields, Fields, Fields, Weights, Work], dict[str, int]]

THEOREMS: dict[str, Theorem] = {
    "brute_force": brute_force.prove,
    "T1": t1.prove,
    "T1 language": t1_language.prove,
    "T3": t3.prove,
    "T3 attention": attention.prove,
}


@dataclass(frozen=True)
class Verdict:
    """The outcome: whether the claim is proven of these weights, for the task of this specification."""

    verdict: str  # accepted, rejected, not a certificate, over budget
    reason: str = ""
    theorem: str = ""
    claim: Json = None
    proven: dict[str, int] = field(default_factory=dict[str, int])
    statement: Statement | None = None  # the claim in words, and what it depends on
    weights: str = ""  # the SHA-256 of what was loaded
    spec: str = ""  # the SHA-256 of the specification
    pinned: bool = False  # whether the specification names these weights
    length: Work = field(default_factory=Work)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 accepted, 1 rejected, 2 not a certificate, 3 over budget: nothing is decided."""
        return {"accepted": 0, "rejected": 1, "over budget": 3}.get(self.verdict, 2)


def check(certificate: bytes, spec: bytes, weights: bytes, budget: Budget | None = None) -> Verdict:
    """Check a certificate against the verifier's specification and weights; never raises for what they hold.

    What would cost more than the budget is refused before it is done (docs/proofs/budgets.md).
    Postcondition: the verdict is "accepted" only if the claim is true of the network with these weights and
    the task of the specification, by the theorem that the specification names (docs/proofs/theory.md).
    """
    work = Work(budget=budget or Budget())
    start = perf_counter()
    try:
        with ctx.workprec(PRECISION):
            verdict = _check(certificate, spec, weights, work)
    except Rejected as error:
        verdict = Verdict("rejected", str(error))
    except NotACertificate as error:
        verdict = Verdict("not a certificate", str(error))
    except OverBudget as error:
        verdict = Verdict("over budget", str(error))
    except MemoryError:
        verdict = Verdict("over budget", "the memory of this machine ran out")
    return replace(verdict, length=work, seconds=perf_counter() - start)


def _check(certificate: bytes, spec: bytes, weights: bytes, work: Work) -> Verdict:
    for content, what in ((certificate, "certificate"), (spec, "specification"), (weights, "weights")):
        work.fit(-(-len(content) // 4), f"reading the {what}")
    claimed = parse(certificate, "certificate")
    if not isinstance(claimed, dict) or claimed.get("format") != CERTIFICATE:
        raise NotACertificate(f"the certificate's format is not {CERTIFICATE}")
    wanted = parse(spec, "specification")
    if not isinstance(wanted, dict) or wanted.get("format") != SPEC:
        raise NotACertificate(f"the specification's format is not {SPEC}")
    network = parse_weights(weights)
    work.hold(len(weights) // 4, "the weights")

    expected = Fields(wanted, "specification")
    expected.choice("format", SPEC)
    theorem = expected.choice("theorem", *THEOREMS)
    pinned = not expected.null("weights")
    if pinned and expected.digest("weights") != network.sha256:
        raise Rejected("the specification is about other weights")
    task = expected.fields("task")
    expected.done()

    given = Fields(claimed, "certificate", work)
    given.choice("format", CERTIFICATE)
    given.choice("theorem", theorem)
    if given.digest("weights") != network.sha256:
        raise Rejected("the certificate is about other weights")
    claim, advice = given.fields("claim"), given.fields("advice")
    given.done()

    proven = THEOREMS[theorem](task, advice, claim, network, work)
    for fields in (task, advice, claim):
        fields.done()
    network.done()
    return Verdict(
        verdict="accepted",
        theorem=theorem,
        claim=claimed["claim"],
        proven=proven,
        statement=statement(theorem, Fields(wanted["task"], "task"), Fields(claimed["claim"], "claim")),
        weights=network.sha256,
        spec=sha256(spec).hexdigest(),
        pinned=pinned,
    )


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
    """What a file holds, but for what is too much to be read: a byte more than fits tells that."""
    with path.open("rb") as file:
        return file.read(budget.file_bytes + 1)


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
