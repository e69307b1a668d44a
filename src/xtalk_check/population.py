"""From a count on a sample to the population it was drawn from: Clopper and Pearson 1934."""

from math import comb

from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields

MILLION = 1_000_000
LARGEST_SAMPLE = 100_000  # beyond it the exact sum takes too long


def claimed_accuracy(task: Fields, claim: Fields, right: int, total: int) -> dict[str, int]:
    """Check the accuracy that is claimed of the population, in millionths, if the specification asks for one.

    Precondition: the `total` inputs were drawn independently after the network was fixed, and at least
    `right` of them are answered right. Postcondition: with probability 1 - `risk` (millionths, the
    verifier's) over such draws, no claim is accepted that exceeds the network's accuracy in the population.
    Proof: docs/proofs.md, "Population". Complexity: `total` products of integers of 20 x total bits.
    """
    if task.null("risk"):
        return {}
    risk = task.integer("risk", 1, MILLION - 1)
    accuracy = claim.integer("population_accuracy", 0, MILLION)
    if total > LARGEST_SAMPLE:
        raise Rejected(f"a sample of {total}; at most {LARGEST_SAMPLE} are supported")
    if accuracy and not _tail(accuracy, right, total) * MILLION <= risk * MILLION**total:
        raise Rejected(
            f"a population accuracy of {accuracy} millionths is claimed; {right} of {total} do not prove it"
        )
    return {"population_accuracy": accuracy}


def _tail(accuracy: int, right: int, total: int) -> int:
    """MILLION^total times the probability of `right` or more successes in `total` trials."""
    wrong = MILLION - accuracy
    return sum(comb(total, k) * accuracy**k * wrong ** (total - k) for k in range(right, total + 1))
