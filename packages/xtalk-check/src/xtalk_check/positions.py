"""T3 for attention with positions, where every token has an answer of its own: certified without advice.

For tokens t_1 ... t_n, the last of which asks, rows x_p = embed[t_p] + position[p]:
    s_p = (w_query^T x_n) . (w_key^T x_p),   a = softmax(s),
    y = x_n + w_out^T w_value^T sum_p a_p x_p + b_out,   logits = unembed^T y + b_unembed.
"""

from dataclasses import dataclass
from functools import reduce

from flint import arb, arb_mat

from xtalk_check import rounding
from xtalk_check.claims import settle
from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields, Weights
from xtalk_check.tasks import Task
from xtalk_check.work import Row, Work, hull, plus, rows, smallest


def prove(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Count sequences on which the network's answer is right, by their last token and their furthest.

    Postcondition: at least `certified` of the `total` sequences are answered right. `advice` is empty.
    Two additions or comparisons count as a multiply-add. Complexity: that of `Tables.load`; then for each
    last token V + 1 evaluations and V + 1 additions; and for each last token and each furthest, with A tokens
    up to it, A + 1 multiply-adds, A + 3 additions, and those of `fillings`.
    Proof: docs/proofs/theory.md, "Positions".
    """
    question = Task.read(task)
    n, classes, tokens = question.n, question.classes, len(question.classes)
    deployed = task.choice("arithmetic", "real", "float32") == "float32"
    if question.name not in ("max", "min") or n < 2:
        raise Rejected(f"{question.name} of {n} tokens is not a task of the theorem on positions")
    if len(set(classes)) < tokens or question.answers < 2:
        raise Rejected(
            "the theorem on positions is about tokens with an answer of their own, and two answers"
        )
    work.plan(tokens**3 // 2, "going through the tokens before each furthest one")
    tables = Tables.load(weights, question, work)
    drift, needed = tables.rounded(weights, n, work) if deployed else (arb(0), arb(0))
    order, certified = sorted(range(tokens), key=classes.__getitem__, reverse=question.name == "min"), 0
    for place, asking in enumerate(order):
        count(tokens + 1, work)
        scores, at_others = tables.scores[asking], tables.at_others[asking] + drift
        own = scores[asking] + tables.at_last[asking] + drift
        last, *attention = work.evaluate(arb.exp, [own, *(scores[t] + at_others for t in order)])
        for far, answer in enumerate((classes[t] for t in order[place:]), place):
            work.spend(far + 2)
            count(far + 4, work)
            direct = tables.direct[asking][answer] - needed
            leads = (tables.moved[t][answer] + direct for t in order[: far + 1])
            *others, furthest = (e * lead for e, lead in zip(attention, leads, strict=False))
            base = last * (tables.moved_last[asking][answer] + direct)
            certified += fillings(others, furthest, base, n - 1, int(far > place), work)
    return settle(claim, certified, question.total)


def fillings(others: Row, furthest: arb, base: arb, positions: int, least: int, work: Work) -> int:
    """A lower bound on the ways to fill positions such that base plus the sum of scores is positive.

    Each position takes the furthest token or one of the others; the furthest is there `least` times or more,
    which is 0 or 1. Counted are fillings of which no other token needs more than its share of what the rest
    gains, and those with one that does. Cost: some 2 additions and comparisons for each of the others, and,
    for each of these that needs more than its share and could win, one for each that does not.
    Proof: docs/proofs/theory.md, lemma "shares".
    """
    start, free = base + least * furthest, positions - least
    if not (furthest > 0 and start > 0):
        return 0

    def ways(tokens: int, positions: int) -> int:
        return (tokens + 1) ** positions - least * tokens**positions

    count(len(others) + 4, work)
    share = -start / max(free, 1)
    modest = [score for score in others if score > share]
    count(2 * (len(others) - len(modest)), work)
    greedy = [score for score in others if not score > share and start + score > 0]
    found = ways(len(modest), positions)
    for score in greedy:
        count(len(modest) + 2, work)
        share = -(start + score) / max(free - 1, 1)
        found += positions * ways(sum(other > share for other in modest), positions - 1)
    return found


@dataclass(frozen=True)
class Tables:
    """Pairs of tokens: scores, and by how much a token puts an answer ahead of the best of all others.

    The last token q's score of a token t is scores[q][t] and what t's position adds, at_last or at_others. A
    token's lead for an answer is at least moved (at any position but the last) or moved_last, plus what the
    asking token adds past the attention, direct.
    """

    scores: list[Row]  # V x V
    at_others: Row  # V: a ball around what each position but the last adds
    at_last: Row  # V
    moved: list[Row]  # V x C
    moved_last: list[Row]  # V x C
    direct: list[Row]  # V x C
    spread: arb  # how far what a token adds past the attention can put one answer ahead of another

    @classmethod
    def load(cls, weights: Weights, question: Task, work: Work) -> "Tables":
        """Read the network.

        Cost: D^2 (H + H' + 2 V + n) + V D (V + 2 C + n) + n D C; and V (2 D + n + C (5 n + 8)) additions and
        comparisons.
        """
        n, tokens, answers = question.n, len(question.classes), question.answers
        work.hold(tokens * (tokens + (n + 5) * answers), "the tables of pairs")
        embed = weights.matrix("embed", tokens, None)
        size = embed.ncols()
        position = weights.matrix("position", n, size)
        w_query = weights.matrix("w_query", size, None)
        w_key = weights.matrix("w_key", size, w_query.ncols())
        w_value = weights.matrix("w_value", size, None)
        w_out = weights.matrix("w_out", w_value.ncols(), size)
        unembed = weights.matrix("unembed", size, answers)
        b_out, b_logit = weights.vector("b_out", size), weights.vector("b_unembed", answers)
        count(tokens * (2 * size + n + answers * (5 * n + 8)), work)
        asking = arb_mat([plus(row, rows(position)[-1]) for row in rows(embed)])
        resting = arb_mat([plus(row, b_out) for row in rows(asking)])
        asking = work.product(asking, work.product(w_query, w_key.transpose()))
        at = rows(work.product(asking, position.transpose()))
        values = work.product(w_value, w_out)
        moved = rows(work.product(work.product(embed, values), unembed))
        places = rows(work.product(work.product(position, values), unembed))
        direct = [plus(row, b_logit) for row in rows(work.product(resting, unembed))]
        mean = [sum(column, arb(0)) / tokens for column in zip(*direct, strict=True)]
        places = [plus(place, mean) for place in places]
        *others, last = ([ahead(plus(row, place)) for row in moved] for place in places)
        return cls(
            scores=rows(work.product(asking, embed.transpose())),
            at_others=[hull(row[:-1]) for row in at],
            at_last=[row[-1] for row in at],
            moved=[
                [smallest(leads) for leads in zip(*token, strict=True)] for token in zip(*others, strict=True)
            ],
            moved_last=last,
            direct=[ahead([a - b for a, b in zip(row, mean, strict=True)]) for row in direct],
            spread=reduce(arb.max, (reduce(arb.max, row) - smallest(row) for row in direct)),
        )

    def rounded(self, weights: Weights, n: int, work: Work) -> tuple[arb, arb]:
        """A ball around what rounding does to a weight's logarithm, and how large a lead has to be.

        Cost: 2 (2 D H + D H' + H' D + D C) + 3 H, and an evaluation; (V + n) D comparisons.
        Proof: docs/proofs/theory.md, lemma "drift".
        """
        embed, position = (weights.matrix(name, None, None) for name in ("embed", "position"))
        count((embed.nrows() + n) * embed.ncols(), work)
        size, tiny = rounding.largest(embed) + rounding.largest(position), rounding.tiny(embed.ncols())
        x = size, size * rounding.UNIT + tiny
        drift = rounding.of_softmax(x, n, weights, work)
        if not drift < 10:
            raise Rejected("in float32 the scores are too far off for a bound on the softmax")
        grown, lost = work.evaluate(arb.exp, [drift])[0], 4 * n * rounding.UNDERFLOW
        summed = (size + x[1]) * rounding.gamma(n)
        mixed = size * grown, (grown + lost) * (x[1] + summed) + lost * size + tiny
        values = rounding.layer(mixed, "w_value", None, 0, weights, work)
        error = rounding.of_output(values, x, True, weights, work)
        return arb(0, 1) * drift, grown * (2 * error + self.spread * (grown - 1))


def ahead(logits: Row) -> Row:
    """By how much each logit is ahead of the largest other one, or less."""
    best = max(range(len(logits)), key=lambda answer: logits[answer].mid())
    largest_other = reduce(arb.max, logits[:best] + logits[best + 1 :])
    largest_of_all = largest_other.max(logits[best])
    leads = [logit - largest_of_all for logit in logits]
    leads[best] = logits[best] - largest_other
    return leads


def count(operations: int, work: Work) -> None:
    """Count additions and comparisons: two of them as a multiply-add."""
    work.spend(-(-operations // 2))
