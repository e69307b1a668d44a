"""T3 for attention: how many sequences a single layer of one head answers right; the softmax is exact.

For tokens t_1 ... t_n, rows x_p = embed[t_p], the last of which asks:
    s_p = (w_query^T x_n) . (w_key^T x_p),   a = softmax(s),   y = w_out^T w_value^T sum_p a_p x_p + b_out
    (+ x_n where there is a residual path),   logits = unembed^T y + b_unembed.
"""

from dataclasses import dataclass, field

from flint import arb, arb_mat

from xtalk_check.counting import Bound, certified_fillings, doubtful
from xtalk_check.errors import Rejected
from xtalk_check.margins import Winning, settle
from xtalk_check.partition import read_partition
from xtalk_check.reading import Fields, Weights
from xtalk_check.rounding import (
    FUNCTION_ERROR,
    UNDERFLOW,
    UNIT,
    beside,
    gamma,
    largest,
    layer,
    slack,
    tiny,
    unembedded,
)
from xtalk_check.tasks import Cell, Task
from xtalk_check.work import Row, Work, hull, rows, smallest


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
    if question.name not in ("max", "min", "modular_addition") or question.n < 2:
        raise Rejected(f"{question.name} of {question.n} tokens is not a task of the attention theorem")
    network = Network.load(task, weights, len(question.classes), question.answers, work)
    error = slack(task, lambda: rounding_error(network.residual, weights, question.n, work))
    winning = Winning.read(task, error)
    tokens = len(question.classes)
    queries, anchor, rest = (
        read_partition(advice.fields(name), tokens) for name in ("query", "anchor", "rest")
    )
    bits = advice.integer("bits", 0, 20)
    codebooks = [Columns(partition.members, network.moved) for partition in (anchor, rest)]
    before = Task(question.name, question.n - 1, question.classes, question.answers)
    size = before.size(anchor, rest, work.budget.work)
    asked = len(queries.members)
    work.plan(asked * (size.cells + size.slots * network.classes), "going through every cell for every query")
    work.fit(size.cells * (2 + question.n // 8) + size.slots, "the list of cells")
    cells = list(before.cells(anchor, rest))
    certified = 0
    for asking in queries.members:
        asked = {question.classes[token] for token in asking}
        if len(asked) > 1:
            raise Rejected("a query column has tokens of several classes")
        query = Query(network, asking, codebooks, winning.slack, work)
        for cell in cells:
            work.spend(steps=1 + len(cell.slots))
            whole = Cell(_joined(question, cell.answer, *asked), cell.slots, cell.arrangements)
            bounds = [scaled(bound, work) for bound in doubtful(whole, query.bounds(whole), work)]
            fillings = certified_fillings(whole, bounds, winning, bits, work)
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

    @property
    def classes(self) -> int:
        """The number of answers C."""
        return len(self.moved[0])

    @classmethod
    def load(cls, task: Fields, weights: Weights, tokens: int, classes: int, work: Work) -> "Network":
        """Read the network. Cost: V^2 H + 3 V D H + H D C + V H C + V D C + D C."""
        residual = task.flag("residual")
        embed = weights.matrix("embed", tokens, None)
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


@dataclass(frozen=True)
class Columns:
    """The tokens of each column, and for each answer how far they move its logit beyond the others."""

    members: list[list[int]]
    moved: list[Row]  # V x C
    _ahead: dict[int, list[Row]] = field(default_factory=dict[int, list[Row]])

    def ahead(self, right: int, work: Work) -> list[Row]:
        """For each column and answer, a ball around moved[t][right] - moved[t][answer], t in the column."""
        if right not in self._ahead:
            work.hold(2 * len(self.members) * len(self.moved[0]), "what each column does to margins")
            self._ahead[right] = [
                [hull(entries) for entries in zip(*(_ahead(self.moved[t], right) for t in own), strict=True)]
                for own in self.members
            ]
        return self._ahead[right]


class Query:
    """What a column of last tokens makes of the tokens before it.

    For a last token q and any number called its shift let e_t = exp(scores[q][t] - shift), and m_t how far
    moved[t] + resting[q] puts the right answer ahead of a wrong one, less the slack. The margin exceeds the
    slack if the sum of e_t m_t over all positions, the last one too, is positive.
    Proof: docs/proofs/theory.md, lemma "denominator".
    """

    def __init__(
        self, network: Network, asking: list[int], codebooks: list[Columns], slack: arb, work: Work
    ) -> None:
        """Enclose e_t over the column, for each column of each codebook. Cost: as many evaluations."""
        self._network, self._asking, self._codebooks, self._work = network, asking, codebooks, work
        self._slack = slack
        seen = [network.scores[q] for q in asking]
        shifts = [sum(of_query, arb(0)).mid() / len(of_query) for of_query in seen]
        shifted = [
            hull(score - shift for score, shift in zip(of_token, shifts, strict=True))
            for of_token in zip(*seen, strict=True)
        ]
        own = [of_query[q] - shift for q, of_query, shift in zip(asking, seen, shifts, strict=True)]
        self._own = work.evaluate(arb.exp, own)
        self._weights = [
            work.evaluate(arb.exp, [hull(shifted[t] for t in members) for members in codebook.members])
            for codebook in codebooks
        ]
        self._base: dict[int, Row] = {}
        self._tables: dict[tuple[int, int], list[Row]] = {}

    def bounds(self, cell: Cell) -> list[Bound]:
        """Bound the sum of e_t m_t for each wrong answer on every filling of a cell."""
        tables = [self._table(slot.codebook, cell.answer) for slot in cell.slots]
        return [
            Bound(
                wrong,
                base,
                [
                    [table[column][wrong] for column in slot.columns]
                    for slot, table in zip(cell.slots, tables, strict=True)
                ],
            )
            for wrong, base in enumerate(self._bases(cell.answer))
            if wrong != cell.answer
        ]

    def _bases(self, right: int) -> Row:
        """For each answer, the least that the last position's own term is for a token of the column."""
        if right not in self._base:
            self._work.spend(len(self._asking) * self._network.classes)
            terms: list[Row] = []
            for q, weight in zip(self._asking, self._own, strict=True):
                both = [a + b for a, b in zip(self._network.moved[q], self._network.resting[q], strict=True)]
                terms.append([weight * (margin - self._slack) for margin in _ahead(both, right)])
            self._base[right] = [smallest(of_answer) for of_answer in zip(*terms, strict=True)]
        return self._base[right]

    def _table(self, codebook: int, right: int) -> list[Row]:
        """For each column of a codebook and each answer, e_t m_t over the column's tokens."""
        if (codebook, right) not in self._tables:
            resting = [
                hull(margins) - self._slack
                for margins in zip(
                    *(_ahead(self._network.resting[q], right) for q in self._asking), strict=True
                )
            ]
            self._work.spend(len(self._weights[codebook]) * self._network.classes)
            ahead = self._codebooks[codebook].ahead(right, self._work)
            self._tables[codebook, right] = [
                [weight * (a + b) for a, b in zip(margins, resting, strict=True)]
                for weight, margins in zip(self._weights[codebook], ahead, strict=True)
            ]
        return self._tables[codebook, right]


def rounding_error(residual: bool, weights: Weights, n: int, work: Work) -> arb:
    """A bound on |deployed logit - logit|, for every logit of every sequence of n tokens.

    Precondition: that of `logit_error`, but with exp in the place of phi; the deployed softmax is
    exp(s - max s), each within FUNCTION_ERROR of itself, divided by their sum. Cost: 2 (3 D H + H D + D C) +
    3 H, and an evaluation. Proof: docs/proofs/theory.md, "Rounding", lemma "softmax".
    """
    embed, w_query, w_key, w_value, w_out = (
        weights.matrix(name, None, None) for name in ("embed", "w_query", "w_key", "w_value", "w_out")
    )
    size, width = embed.ncols(), w_query.ncols()
    x = largest(embed)
    (q, q_error), (k, k_error) = (
        layer((x, x * 0), w, [arb(0)] * width, size, work) for w in (w_query, w_key)
    )
    work.spend(3 * width)
    score = (q * k.transpose())[0, 0]
    carried = (q_error * (k + k_error).transpose() + q * k_error.transpose())[0, 0]
    score_error = carried + (score + carried) * gamma(width) + UNDERFLOW
    exponent = score_error + 2 * (score + score_error) * UNIT + 2 * FUNCTION_ERROR
    grown = work.evaluate(arb.exp, [2 * (exponent + gamma(n + 2))])[0] - 1 + 4 * n * UNDERFLOW
    mixed = x, x * (grown + (1 + grown) * gamma(n)) + tiny(size)
    value = layer(mixed, w_value, [arb(0)] * w_value.ncols(), size, work)
    y = layer(value, w_out, weights.vector("b_out", None), w_out.nrows() + 2, work)
    return unembedded(beside(y, (x, x * 0), w_out.nrows() + 2) if residual else y, weights, work)


def scaled(bound: Bound, work: Work) -> Bound:
    """The bound times a positive number, which brings it to a size at which rounding costs little.

    Cost: for F columns F + 2 multiply-adds.
    """
    work.spend(2 + sum(map(len, bound.scores)))
    largest = bound.base.abs_upper()
    for of_slot in bound.scores:
        for score in of_slot:
            largest = largest.max(score.abs_upper())
    unit = 1 / largest if largest > 0 else arb(1)
    scores = [[score * unit for score in of_slot] for of_slot in bound.scores]
    return Bound(bound.wrong, bound.base * unit, scores)


def _ahead(logits: Row, right: int) -> Row:
    """By how much one logit is ahead of each."""
    return [logits[right] - logit for logit in logits]


def _joined(question: Task, answer: int, other: int) -> int:
    """The answer of a sequence whose two parts have these answers."""
    if question.name == "modular_addition":
        return (answer + other) % question.answers
    return max(answer, other) if question.name == "max" else min(answer, other)
