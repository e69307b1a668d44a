"""T3 for attention: how many sequences a single layer of one head answers right; the softmax is exact.

For tokens t_1 ... t_n, rows x_p = embed[t_p], the last of which asks:
    s_p = (w_query^T x_n) . (w_key^T x_p),   a = softmax(s),   y = w_out^T w_value^T sum_p a_p x_p + b_out
    (+ x_n where there is a residual path),   logits = unembed^T y + b_unembed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from itertools import chain

from flint import arb, arb_mat

from xtalk_check import limits
from xtalk_check.claims import settle
from xtalk_check.counting import Bound, certified_fillings, doubtful
from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields, Weights
from xtalk_check.rounding import of_attention, slack
from xtalk_check.tasks import Partition, Task
from xtalk_check.work import Row, Work, hull, hulls, lead, plus, rows, smallest

# For a right answer: a base for each answer, and for each codebook and column a score for each answer.
Margins = Callable[[int], tuple[Row, list[list[Row]]]]


def prove(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Count sequences on which the network's answer is right, cell by cell.

    The answer is that of the n-1 tokens before the last, and the last one's class, together; so a cell is one
    of n-1 tokens beside a column of last tokens, all of one class. Postcondition: at least `certified` of the
    `total` sequences are answered right. Complexity: that of `Network.load`; then for each query column of A
    tokens, with F columns in each codebook, A + 2 F evaluations, A C + 2 F C multiply-adds for each of at
    most C answers, and for each cell of S slots S C; and where a cell's answer is in doubt, for each bound
    one for each of its columns and 2, and those of `certified_fillings`.
    Proof: docs/proofs/theory.md, "Attention".
    """
    question = Task.read(task)
    if question.name not in ("max", "min") or question.n < 2:
        raise Rejected(f"{question.name} of {question.n} tokens is not a task of the attention theorem")
    joined, tokens = max if question.name == "max" else min, len(question.classes)
    network = Network.load(task, weights, tokens, question.answers, work)
    needed = slack(task, lambda: of_attention(network.residual, question.n, weights, work))
    queries, *books = (Partition.read(advice.fields(name), tokens) for name in ("query", "anchor", "rest"))
    bits, before = advice.integer("bits", 0, 20), replace(question, n=question.n - 1)
    size = limits.count(before.parts(*books), work.budget.work)
    asked = len(queries.members)
    work.plan(asked * (size.cells + size.slots * question.answers), "going through every cell of a query")
    work.fit(size.cells * (2 + question.n // 8) + size.slots, "the list of cells")
    cells, certified, columns = list(before.cells(*books)), 0, [book.members for book in books]
    for asking in queries.members:
        classes = {question.classes[token] for token in asking}
        if len(classes) > 1:
            raise Rejected("a query column has tokens of several classes")
        margins = margins_of(network, asking, columns, needed, work)
        for cell in cells:
            work.spend(steps=1 + len(cell.slots))
            whole = replace(cell, answer=joined(cell.answer, *classes))
            bases, tables = margins(whole.answer)
            scores = [[tables[slot.codebook][i] for i in slot.columns] for slot in cell.slots]
            bounds = [scaled(bound, work) for bound in doubtful(whole, bases, scores, work)]
            fillings = certified_fillings(whole, bounds, bits, work)
            certified += len(asking) * cell.arrangements * fillings
    return settle(claim, certified, question.total)


@dataclass(frozen=True)
class Network:
    """The same network with every product of weights multiplied out.

    logit_c = resting[t_n][c] + sum_p a_p moved[t_p][c], with a the softmax of scores[t_n][t_p].
    """

    scores: list[Row]  # V x V
    moved: list[Row]  # V x C
    resting: list[Row]  # V x C, rows alike where there is no residual path
    residual: bool

    @classmethod
    def load(cls, task: Fields, weights: Weights, tokens: int, classes: int, work: Work) -> "Network":
        """Read the network. Cost: V^2 H + 3 V D H + H D C + V H C + V D C + D C."""
        embed, residual = weights.matrix("embed", tokens, None), task.flag("residual")
        size = embed.ncols()
        w_query = weights.matrix("w_query", size, None)
        w_key = weights.matrix("w_key", size, w_query.ncols())
        w_value = weights.matrix("w_value", size, None)
        w_out = weights.matrix("w_out", w_value.ncols(), size)
        unembed = weights.matrix("unembed", size, classes)
        b_out = arb_mat(1, size, weights.vector("b_out", size))
        b_logit = work.product(b_out, unembed) + arb_mat(1, classes, weights.vector("b_unembed", classes))
        resting = arb_mat(tokens, classes, b_logit.entries() * tokens)
        work.hold(tokens * (tokens + 3 * classes), "the network")
        keys = work.product(embed, w_key).transpose()
        return cls(
            scores=rows(work.product(work.product(embed, w_query), keys)),
            moved=rows(work.product(work.product(embed, w_value), work.product(w_out, unembed))),
            resting=rows(resting + work.product(embed, unembed) if residual else resting),
            residual=residual,
        )


def margins_of(
    network: Network, asking: list[int], columns: list[list[list[int]]], slack: arb, work: Work
) -> Margins:
    """What a column of last tokens makes of the tokens before it.

    For a last token q and any number called its shift let e_t = exp(scores[q][t] - shift), and m_t how far
    moved[t] + resting[q] puts the right answer ahead of a wrong one, less the slack. The margin exceeds the
    slack if the sum of e_t m_t over all positions, the last one too, is positive. The base encloses the least
    of the last position's terms, over the column; a score is e_t m_t over it and one of `columns` of tokens.
    Proof: docs/proofs/theory.md, lemma "denominator".
    """
    seen = [network.scores[q] for q in asking]
    shifts = [sum(scores, arb(0)).mid() / len(scores) for scores in seen]
    shifted = hulls([score - shift for score in scores] for scores, shift in zip(seen, shifts, strict=True))
    last = work.evaluate(arb.exp, [s[q] - shift for q, s, shift in zip(asking, seen, shifts, strict=True)])
    weights = [work.evaluate(arb.exp, [hull(shifted[t] for t in own) for own in book]) for book in columns]

    @lru_cache(1)  # cells come by their answers
    def margins(right: int) -> tuple[Row, list[list[Row]]]:
        work.spend((len(asking) + sum(map(len, weights))) * len(network.moved[0]))
        ahead = [lead(row, right) for row in network.moved]
        resting = [[margin - slack for margin in lead(network.resting[q], right)] for q in asking]
        terms = map(_times, last, map(plus, (ahead[q] for q in asking), resting))
        bases = [smallest(of_answer) for of_answer in zip(*terms, strict=True)]
        rest, scores = hulls(resting), list[list[Row]]()
        for book, of_book in zip(columns, weights, strict=True):
            moved = (plus(hulls(ahead[t] for t in own), rest) for own in book)
            scores.append([_times(e, row) for e, row in zip(of_book, moved, strict=True)])
        return bases, scores

    return margins


def scaled(bound: Bound, work: Work) -> Bound:
    """The bound times a positive number, which brings it to a size at which rounding costs little.

    Cost: for F columns F + 2 multiply-adds.
    """
    work.spend(2 + sum(map(len, bound.scores)))
    largest = reduce(arb.max, map(arb.abs_upper, chain([bound.base], *bound.scores)))
    unit = 1 / largest if largest > 0 else arb(1)
    return Bound(bound.base * unit, [_times(unit, of_slot) for of_slot in bound.scores])


def _times(factor: arb, row: Row) -> Row:
    """The row times a factor."""
    return [factor * entry for entry in row]
