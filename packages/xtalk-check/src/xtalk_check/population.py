"""From a sample to the population it was drawn from: its accuracy, and the mean of a loss."""

from collections.abc import Sequence
from math import comb

from flint import arb

from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields
from xtalk_check.work import dot, floor, smallest

MILLION = 1_000_000
LARGEST_SAMPLE = 100_000  # beyond it the exact sum takes too long
SLOPES = 8  # exponents that are tried for the mean: 1/2, 1/4, ..., each at a share of the risk


def claimed_population(task: Fields, claim: Fields, right: int, margins: Sequence[arb]) -> dict[str, int]:
    """Check what is claimed of the population, as far as the specification asks for it.

    If it gives a `risk` (in millionths): the accuracy. If it gives a `ramp` (in thousandths of a logit) too:
    the mean of the ramp loss, which is 1 where the label is not ahead, 0 where it is ahead by the ramp or
    more, and linear between. Precondition: the inputs were drawn independently after the network was fixed;
    at least `right` of them are answered right, and each one's least margin is at least that of `margins`.
    Postcondition: with probability 1 - risk over such draws no accuracy is accepted that exceeds the
    population's; and, with that probability too, no mean loss that is below the population's. Proofs:
    docs/proofs/theory.md, "Population". Complexity: `total` products of integers of 20 x total bits.
    """
    if task.null("risk"):
        if not task.null("ramp"):
            raise Rejected("the specification asks for a loss of the population, but gives no risk")
        return {}
    risk = task.integer("risk", 1, MILLION - 1)
    if len(margins) > LARGEST_SAMPLE:
        raise Rejected(f"a sample of {len(margins)}; at most {LARGEST_SAMPLE} are supported")
    accuracy = claim.integer("population_accuracy", 0, MILLION)
    total = len(margins)
    if accuracy and not _tail(accuracy, right, total) * MILLION <= risk * MILLION**total:
        raise Rejected(
            f"a population accuracy of {accuracy} millionths is claimed; {right} of {total} do not prove it"
        )
    if task.null("ramp"):
        return {"population_accuracy": accuracy}
    ramp = arb(task.integer("ramp", 1, 1 << 30)) / 1000
    bound = mean_bound([(1 - m / ramp).max(arb(0)) if m > 0 else arb(1) for m in margins], risk)
    proven = min(MILLION, -floor(-bound * MILLION, 0))
    loss = claim.integer("population_ramp_loss", 0, MILLION)
    if loss < proven:
        raise Rejected(f"a mean ramp loss of {loss} millionths is claimed; {proven} is proven")
    return {"population_accuracy": accuracy, "population_ramp_loss": proven}


def _tail(accuracy: int, right: int, total: int) -> int:
    """MILLION^total times the probability of `right` or more successes in `total` trials."""
    wrong = MILLION - accuracy
    return sum(comb(total, k) * accuracy**k * wrong ** (total - k) for k in range(right, total + 1))


def mean_bound(losses: Sequence[arb], risk: int) -> arb:
    """A ball around an upper bound on the mean of a loss in [0, 1] over a population.

    Precondition: `losses` are not below those of inputs drawn independently. Postcondition: the population's
    mean exceeds the bound with probability at most `risk` millionths.
    Proof: docs/proofs/theory.md, "Bernstein".
    """
    total, squares = sum(losses, arb(0)), dot(losses, losses)
    doubt = (arb(SLOPES * MILLION) / risk).log()
    slopes = [arb(2) ** -i for i in range(1, SLOPES + 1)]
    return smallest(
        (total + ((-(1 - slope).log() - slope) * squares + doubt) / slope) / len(losses) for slope in slopes
    )
