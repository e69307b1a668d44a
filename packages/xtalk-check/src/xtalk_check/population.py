"""From a sample to the population it was drawn from: its accuracy, and the mean of a loss."""

from collections.abc import Sequence

from flint import arb

from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields
from xtalk_check.work import Work, dot, floor, smallest

MILLION = 1_000_000
SLOPES = 8  # exponents that are tried for the mean: 1/2, 1/4, ..., each at a share of the risk


def claimed_population(
    task: Fields, claim: Fields, right: int, margins: Sequence[arb], work: Work
) -> dict[str, int]:
    """Check what is claimed of the population, as far as the specification asks for it.

    If it gives a `risk` (in millionths): the accuracy. If it gives a `ramp` (in thousandths of a logit) too:
    the mean of the ramp loss, which is 1 where the label is not ahead, 0 where it is ahead by the ramp or
    more, and linear between. Precondition: the inputs were drawn independently after the network was fixed;
    at least `right` of them are answered right, and each one's least margin is at least that of `margins`.
    Postcondition: with probability 1 - risk over such draws no accuracy is accepted that exceeds the
    population's; and, with that probability too, no mean loss that is below the population's. Proofs:
    docs/proofs/theory.md, "Population".
    Cost: 3 (T - right + 1) multiply-adds for the accuracy, 2 T for the loss.
    """
    if task.null("risk"):
        if not task.null("ramp"):
            raise Rejected("the specification asks for a loss of the population, but gives no risk")
        return {}
    risk = task.integer("risk", 1, MILLION - 1)
    accuracy = claim.integer("population_accuracy", 0, MILLION)
    total = len(margins)
    work.spend(3 * (total - right + 1))
    if accuracy and not _tail(arb(accuracy) / MILLION, right, total) <= arb(risk) / MILLION:
        raise Rejected(
            f"a population accuracy of {accuracy} millionths is claimed; {right} of {total} do not prove it"
        )
    if task.null("ramp"):
        return {"population_accuracy": accuracy}
    work.spend(2 * total)
    ramp = arb(task.integer("ramp", 1, 1 << 30)) / 1000
    bound = mean_bound([(1 - m / ramp).max(arb(0)) if m > 0 else arb(1) for m in margins], risk)
    proven = min(MILLION, -floor(-bound * MILLION, 0))
    loss = claim.integer("population_ramp_loss", 0, MILLION)
    if loss < proven:
        raise Rejected(f"a mean ramp loss of {loss} millionths is claimed; {proven} is proven")
    return {"population_accuracy": accuracy, "population_ramp_loss": proven}


def _tail(accuracy: arb, right: int, total: int) -> arb:
    """The probability of `right` or more successes in `total` trials, each with that probability above 0."""
    term = accuracy**total  # of exactly k successes, from k = total down
    whole, odds = term, (1 - accuracy) / accuracy
    for k in range(total, right, -1):
        term *= odds * k / (total - k + 1)
        whole += term
    return whole


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
