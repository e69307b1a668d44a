"""What a check is, from three files to a verdict."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

from flint import ctx

from xtalk_check import attention, brute_force, t1, t1_language, t2, t3
from xtalk_check.errors import NotACertificate, Rejected
from xtalk_check.reading import Fields, Json, Weights, parse, parse_weights
from xtalk_check.work import PRECISION, Work

CERTIFICATE = "xtalk.certificate/1"
SPEC = "xtalk.spec/1"

# task (of the specification), advice and claim (of the certificate), weights, counters -> what is proven.
# Raises Rejected unless the claim follows.
Theorem = Callable[[Fields, Fields, Fields, Weights, Work], dict[str, int]]

THEOREMS: dict[str, Theorem] = {
    "brute_force": brute_force.prove,
    "T1": t1.prove,
    "T1 language": t1_language.prove,
    "T2": t2.prove,
    "T3": t3.prove,
    "T3 attention": attention.prove,
}


@dataclass(frozen=True)
class Verdict:
    """The outcome: whether the claim is proven of these weights, for the task of this specification."""

    verdict: str  # accepted, rejected, not a certificate
    reason: str = ""
    theorem: str = ""
    claim: Json = None
    proven: dict[str, int] = field(default_factory=dict[str, int])
    weights: str = ""  # the SHA-256 of what was loaded
    length: Work = field(default_factory=Work)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 accepted, 1 rejected, 2 not a certificate."""
        return {"accepted": 0, "rejected": 1}.get(self.verdict, 2)


def check(certificate: bytes, spec: bytes, weights: bytes) -> Verdict:
    """Check a certificate against the verifier's specification and weights; never raises for what they hold.

    Postcondition: the verdict is "accepted" only if the claim is true of the network with these weights and
    the task of the specification, by the theorem that the specification names (docs/proofs/theory.md).
    """
    work = Work()
    start = perf_counter()
    try:
        with ctx.workprec(PRECISION):
            return _check(certificate, spec, weights, work, start)
    except Rejected as error:
        return Verdict("rejected", str(error), length=work, seconds=perf_counter() - start)
    except NotACertificate as error:
        return Verdict("not a certificate", str(error), length=work, seconds=perf_counter() - start)


def _check(certificate: bytes, spec: bytes, weights: bytes, work: Work, start: float) -> Verdict:
    claimed = parse(certificate, "certificate")
    if not isinstance(claimed, dict) or claimed.get("format") != CERTIFICATE:
        raise NotACertificate(f"the certificate's format is not {CERTIFICATE}")
    wanted = parse(spec, "specification")
    if not isinstance(wanted, dict) or wanted.get("format") != SPEC:
        raise NotACertificate(f"the specification's format is not {SPEC}")
    network = parse_weights(weights)

    expected = Fields(wanted, "specification")
    expected.choice("format", SPEC)
    theorem = expected.choice("theorem", *THEOREMS)
    if not expected.null("weights") and expected.digest("weights") != network.sha256:
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
        weights=network.sha256,
        length=work,
        seconds=perf_counter() - start,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; prints the verdict and returns the exit code."""
    parser = argparse.ArgumentParser(prog="xtalk-check", description="Check a certificate.")
    parser.add_argument("certificate", type=Path)
    parser.add_argument("--spec", type=Path, required=True, help="the task, as the verifier means it")
    parser.add_argument("--weights", type=Path, required=True, help="the container of the weights")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    options = parser.parse_args(arguments)
    try:
        files = [path.read_bytes() for path in (options.certificate, options.spec, options.weights)]
    except OSError as error:
        verdict = Verdict("not a certificate", f"{error.filename}: {error.strerror}")
    else:
        verdict = check(*files)
    if options.json:
        sys.stdout.write(json.dumps({"schema": "xtalk.verdict/1"} | asdict(verdict)) + "\n")
    else:
        sys.stdout.write(_sentence(verdict) + "\n")
    return verdict.exit_code


def _sentence(verdict: Verdict) -> str:
    if verdict.verdict != "accepted":
        return f"{verdict.verdict}: {verdict.reason}"
    length = verdict.length
    return (
        f"accepted: {verdict.theorem} proves {verdict.proven} of weights {verdict.weights[:12]}...\n"
        f"length: {length.multiply_adds:,} multiply-adds, {length.evaluations:,} non-linear evaluations, "
        f"{length.reads:,} reads; {verdict.seconds:.2f} s"
    )
