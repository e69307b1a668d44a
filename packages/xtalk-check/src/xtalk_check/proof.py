"""From three files to a proof, or to the reason why there is none."""

from collections.abc import Callable
from dataclasses import dataclass

from xtalk_check import attention, positions, t1, t1_language, t3
from xtalk_check.errors import NotACertificate, Rejected
from xtalk_check.reading import Fields, Json, Weights, parse, parse_weights
from xtalk_check.work import Work

CERTIFICATE, SPEC = "xtalk.certificate/1", "xtalk.spec/1"

# task (of the specification), advice and claim (of the certificate), weights, counters -> what is proven.
# Raises Rejected unless the claim follows.
Theorem = Callable[[Fields, Fields, Fields, Weights, Work], dict[str, int]]

THEOREMS: dict[str, Theorem] = {
    "brute_force": t3.brute_force,
    "T1": t1.prove,
    "T1 language": t1_language.prove,
    "T3": t3.prove,
    "T3 attention": attention.prove,
    "T3 positions": positions.prove,
}


@dataclass(frozen=True)
class Proof:
    """What is proven, by which theorem, about which weights and task."""

    theorem: str
    proven: dict[str, int]
    weights: str  # the SHA-256 of what was loaded
    pinned: bool  # whether the specification names these weights
    claim: Json  # as the certificate has it
    task: Json  # as the specification has it


def prove(certificate: bytes, spec: bytes, weights: bytes, work: Work) -> Proof:
    """Prove the claim of a certificate, or raise Refused, whatever the three files hold.

    What would cost more than the budget is refused before it is done (docs/proofs/audit.md).
    Postcondition: the claim is true of the network with these weights and the task of the specification, by
    the theorem that the specification names (docs/proofs/theory.md).
    """
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
    return Proof(theorem, proven, network.sha256, pinned, claimed["claim"], wanted["task"])
