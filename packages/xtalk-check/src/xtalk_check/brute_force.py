"""The exhaustive proof: every input, one by one. The longest and the tightest."""

from itertools import islice

from flint import arb, arb_mat

from xtalk_check.margins import Winning, settle
from xtalk_check.network import Network
from xtalk_check.reading import Fields, Weights
from xtalk_check.rounding import slack
from xtalk_check.tasks import Task
from xtalk_check.work import EVALUATION, Work, rows

BATCH = 512  # sequences, if the balls of their neurons are at most CHUNK
CHUNK = 1 << 20


def prove(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Count the sequences on which the network's answer is right.

    Postcondition: at least `certified` of the `total` sequences that have an answer are answered right.
    Complexity: for each sequence (up to order, where that does not matter) N (n + C) multiply-adds and N
    evaluations. Proof: docs/proofs/theory.md, "Brute force".
    """
    question = Task.read(task)
    network = Network.load(task, weights, len(question.classes), question.answers, work)
    winning = Winning.read(task, slack(task, network, weights, question.n, work))
    out = arb_mat(network.out)
    hidden, least = len(network.b_hidden), question.n + network.classes + EVALUATION
    work.plan(question.count_sequences() * hidden * least, "running every sequence")
    sequences, certified = question.sequences(), 0
    while batch := list(islice(sequences, max(1, min(BATCH, CHUNK // hidden)))):
        columns = [_active(network, tokens, work) for tokens, _ in batch]
        logits = rows(work.product(out, arb_mat(columns).transpose()).transpose())
        for (tokens, orders), logit in zip(batch, logits, strict=True):
            answer = question.answer(tokens)
            if answer is not None and _wins(network, winning, tokens, logit, answer):
                certified += orders
    return settle(claim, certified, question.total)


def _active(network: Network, tokens: tuple[int, ...], work: Work) -> list[arb]:
    """The neurons' values on a sequence."""
    h = network.b_hidden
    work.spend(len(tokens) * len(h))
    for token in tokens:
        h = [a + b for a, b in zip(h, network.hidden[token], strict=True)]
    return work.evaluate(network.phi.value, h)


def _wins(
    network: Network, winning: Winning, tokens: tuple[int, ...], from_mlp: list[arb], answer: int
) -> bool:
    """Whether the answer's logit is certainly ahead of every other."""
    logit = [a + b for a, b in zip(from_mlp, network.b_logit, strict=True)]
    if network.direct is not None:
        for token in tokens:
            logit = [a + b for a, b in zip(logit, network.direct[token], strict=True)]
    margins = [logit[answer] - other - winning.slack for other in logit]
    return all(
        wrong == answer or (margin > 0 if winning.least(answer, wrong) else margin >= 0)
        for wrong, margin in enumerate(margins)
    )
