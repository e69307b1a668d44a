"""The verdict on three files: "accepted" where `prove` proves the claim, else what it says of them."""

from dataclasses import dataclass, field, replace
from hashlib import sha256
from time import perf_counter

from flint import ctx

from xtalk_check.errors import Refused
from xtalk_check.limits import Budget
from xtalk_check.proof import prove
from xtalk_check.reading import Fields, Json
from xtalk_check.statement import Statement, statement
from xtalk_check.work import PRECISION, Work


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

    Postcondition: the verdict is "accepted" only if `prove` returned: its postcondition holds.
    """
    work, start = Work(budget=budget or Budget()), perf_counter()
    try:
        with ctx.workprec(PRECISION):
            proof = prove(certificate, spec, weights, work)
    except Refused as error:
        verdict = Verdict(error.verdict, str(error))
    except MemoryError:
        verdict = Verdict("over budget", "the memory of this machine ran out")
    else:
        verdict = Verdict(
            verdict="accepted",
            theorem=proof.theorem,
            claim=proof.claim,
            proven=proof.proven,
            statement=statement(proof.theorem, Fields(proof.task, "task"), Fields(proof.claim, "claim")),
            weights=proof.weights,
            spec=sha256(spec).hexdigest(),
            pinned=proof.pinned,
        )
    return replace(verdict, length=work, seconds=perf_counter() - start)
