"""The exhaustive proof: every input, one by one. The longest and the tightest."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, islice, product
from math import comb

from flint import arb, arb_mat

from xtalk_check.margins import Winning, settle
from xtalk_check.network import Network
from xtalk_check.reading import Fields, Weights
from xtalk_check.rounding import slack
from xtalk_check.tasks import Task, arrangements
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
    winning = Winning.read(task, slack(task, lambda: network.rounding_error(weights, question.n, work)))
    out = arb_mat(network.out)
    hidden, least = len(network.b_hidden), question.n + network.classes + EVALUATION
    work.plan(count_sequences(question) * hidden * least, "running every sequence")
    every, certified = sequences(question), 0
    while batch := list(islice(every, max(1, min(BATCH, CHUNK // hidden)))):
        columns = [_active(network, tokens, work) for tokens, _ in batch]
        logits = rows(work.product(out, arb_mat(columns).transpose()).transpose())
        for (tokens, orders), logit in zip(batch, logits, strict=True):
            answer = right_answer(question, tokens)
            if answer is not None and _wins(network, winning, tokens, logit, answer):
                certified += orders
    return settle(claim, certified, question.total)


def right_answer(task: Task, tokens: Sequence[int]) -> int | None:
    """The right answer, None where the sequence has none."""
    classes = [task.classes[token] for token in tokens]
    if task.name == "max":
        return max(classes)
    if task.name == "min":
        return min(classes)
    if task.name == "modular_addition":
        return sum(classes) % task.answers
    if task.name == "lookup":
        return classes[1 + tokens[0]]
    most, copies = Counter(classes).most_common(1)[0]
    return most if 2 * copies > task.n else None


def sequences(task: Task) -> Iterator[tuple[tuple[int, ...], int]]:
    """Every sequence, up to the order of its tokens where that does not matter, and its orders."""
    if task.name == "lookup":
        keys, tokens = task.n - 1, range(len(task.classes))
        yield from ((filled, 1) for filled in product(tokens[:keys], *task.groups()))
        return
    for tokens in combinations_with_replacement(range(len(task.classes)), task.n):
        yield tokens, arrangements(Counter(tokens).values())


def count_sequences(task: Task) -> int:
    """How many `sequences` there are."""
    if task.name == "lookup":
        return task.total
    return comb(len(task.classes) + task.n - 1, task.n)


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
    for token in tokens:
        logit = [a + b for a, b in zip(logit, network.direct[token], strict=True)]
    margins = [logit[answer] - other - winning.slack for other in logit]
    return all(
        wrong == answer or (margin > 0 if winning.least(answer, wrong) else margin >= 0)
        for wrong, margin in enumerate(margins)
    )
