"""What a check is, from three files to a verdict."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
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

    What would cost more than the budget is refused before it is done (docs/proofs/audit.md).
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
