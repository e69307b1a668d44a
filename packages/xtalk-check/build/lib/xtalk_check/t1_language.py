"""T1 for a language model: an upper bound on the cross-entropy of its tail, on activations that are given.

The tail is the last MLP and all that follows. It reads x, a row of data.resid_mid:
    n = norm_in(x),   z = x + w_out^T phi(w_in^T n + b_in) + b_out,   logits = unembed^T norm_out(z),
    norm(a) = weight * (a - mean(a)) / scale(a) + bias,   scale(a) = sqrt(mean((a - mean(a))^2) + epsilon).
The certificate may explain the neurons by features, which read s_i = r_i . n: each neuron has one feature
i(k) and a gain, w_k = gain_k r_i(k) + rest_k. What a feature's neurons add to z is tabled as a function of
s_i; what else reaches a neuron, rest_k . n, is crosstalk, and charged.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from flint import arb, arb_mat

from xtalk_check.activations import EVERYWHERE, Activation, activation
from xtalk_check.data import curvature, data, dot, magnitude
from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields, Weights
from xtalk_check.work import EVALUATION, Row, Work, floor, rows

MILLION = 1_000_000
LIMIT = 1 << 50  # largest direction, gain and knot, in units of 2^-bits
CHUNK = 256  # tokens whose logits are held at a time


def prove(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Bound the mean cross-entropy of the targets from above, in micronats (millionths of a nat) per token.

    Precondition: the specification has the targets and the hash of the activations. Postcondition: the mean
    over the `tokens` rows of -log softmax(logits)[target] is at most `micronats` / 10^6. Complexity: for a
    token D V + V + 3 D multiply-adds and V + 1 evaluations, beside those of the form that the certificate
    chooses; 2 V D once. Proof: docs/proofs/theory.md, "Theorem T1 for a language model".
    """
    tail = Tail.load(task, weights, work)
    work.plan(len(tail.x) * tail.unembed.ncols() * (len(tail.b_out) + 1 + EVALUATION), "every token's loss")
    form = FORMS[advice.choice("form", *FORMS)]
    losses = list(tail.losses(form(tail, advice, work), work))
    if claim.integer("tokens", 0, len(losses)) != len(losses):
        raise Rejected(f"the claim is about another number of tokens; there are {len(losses)}")
    proven = -floor(-sum(losses, arb(0)) * MILLION / len(losses), 0)
    claimed = claim.integer("micronats", 0, LIMIT)
    if claimed < proven:
        raise Rejected(f"{claimed} micronats per token are claimed; {proven} are proven")
    return {"micronats": proven, "tokens": len(losses)}


@dataclass(frozen=True)
class Norm:
    """A layer norm."""

    weight: Row
    bias: Row
    epsilon: arb

    @classmethod
    def load(cls, name: str, size: int, epsilon: arb, weights: Weights) -> "Norm":
        """The norm of that name."""
        return cls(weights.vector(f"{name}.weight", size), weights.vector(f"{name}.bias", size), epsilon)

    def scale(self, row: Row, work: Work) -> tuple[Row, arb]:
        """The row less its mean, and its scale. Cost: D multiply-adds and an evaluation."""
        mean = sum(row, arb(0)) / len(row)
        centred = [a - mean for a in row]
        work.spend(len(row))
        return centred, work.evaluate(arb.sqrt, [dot(centred, centred) / len(row) + self.epsilon])[0]

    def of(self, centred: Row, scale: arb, work: Work) -> Row:
        """The norm's output. Cost: 2 D multiply-adds."""
        work.spend(2 * len(centred))
        return [a / scale * w + b for a, w, b in zip(centred, self.weight, self.bias, strict=True)]

    def moved(self, scale: arb, error: arb) -> arb:
        """A bound on |P z / scale(z) - P z' / scale(z')|, where scale(z) is given and |z' - z| <= error.

        P takes the mean away. Proof: docs/proofs/theory.md, lemma "norm".
        """
        least = (scale - error / arb(len(self.weight)).sqrt()).max(self.epsilon.sqrt())
        return error / (scale * least).sqrt()


@dataclass(frozen=True)
class Tail:
    """The last MLP and what follows it, the activations it reads, and the tokens that it should predict."""

    phi: Activation
    x: list[Row]  # T x D
    targets: list[int]  # T
    norm_in: Norm
    w_in: arb_mat  # D x N
    b_in: Row
    w_out: arb_mat  # N x D
    b_out: Row
    norm_out: Norm
    unembed: arb_mat  # D x V

    @classmethod
    def load(cls, task: Fields, weights: Weights, work: Work) -> "Tail":
        """Read tail and data; epsilon is in millionths."""
        x = data(weights, "data.resid_mid", task.digest("data"))
        work.hold(6 * x.nrows() * x.ncols(), "the tokens' streams")
        size, epsilon = x.ncols(), arb(task.integer("epsilon", 1, MILLION)) / MILLION
        w_in = weights.matrix("w_in", size, None)
        unembed = weights.matrix("unembed", size, None)
        return cls(
            phi=activation(task.choice("activation", "gelu", "gelu_tanh")),
            x=rows(x),
            targets=task.integers("targets", 0, unembed.ncols() - 1, x.nrows()),
            norm_in=Norm.load("norm_in", size, epsilon, weights),
            w_in=w_in,
            b_in=weights.vector("b_in", w_in.ncols()),
            w_out=weights.matrix("w_out", w_in.ncols(), size),
            b_out=weights.vector("b_out", size),
            norm_out=Norm.load("norm_out", size, epsilon, weights),
            unembed=unembed,
        )

    def normed(self, work: Work) -> list[Row]:
        """The MLP's inputs n. Cost: 3 T D, and T evaluations."""
        return [self.norm_in.of(*self.norm_in.scale(row, work), work) for row in self.x]

    def losses(self, streams: Iterator[tuple[Row, arb]], work: Work) -> Iterator[arb]:
        """An upper bound on each token's cross-entropy, from its z up to an error of the norm that is given.

        Proof: docs/proofs/theory.md, lemmas "norm" and "cross-entropy".
        """
        reach = self.reach(work)
        chunk: list[Row] = []
        moves: Row = []
        for t, (z, error) in enumerate(streams):
            centred, scale = self.norm_out.scale(z, work)
            chunk.append(self.norm_out.of(centred, scale, work))
            moves.append(self.norm_out.moved(scale, error))
            if len(chunk) == CHUNK or t + 1 == len(self.x):
                logits = rows(work.product(arb_mat(chunk), self.unembed))
                targets = self.targets[t + 1 - len(chunk) : t + 1]
                for row, target, move in zip(logits, targets, moves, strict=True):
                    yield cross_entropy(row, target, reach, move, work)
                chunk, moves = [], []

    def reach(self, work: Work) -> Row:
        """For each token of the vocabulary, how far its logit goes when the norm's unit moves by 1, but for
        what it has in common with all the others. Cost: 2 V D.
        """
        work.hold(3 * self.unembed.nrows() * self.unembed.ncols(), "the reach of every logit")
        work.spend(2 * self.unembed.nrows() * self.unembed.ncols())
        directions: list[Row] = []
        for column in rows(self.unembed.transpose()):
            weighted = [u * w for u, w in zip(column, self.norm_out.weight, strict=True)]
            mean = sum(weighted, arb(0)) / len(weighted)
            directions.append([a - mean for a in weighted])
        targets = [directions[target] for target in self.targets]
        common = [sum(entries, arb(0)) / len(targets) for entries in zip(*targets, strict=True)]
        apart = [[a - c for a, c in zip(row, common, strict=True)] for row in directions]
        return [magnitude(row) for row in apart]


def cross_entropy(logits: Row, target: int, reach: Row, move: arb, work: Work) -> arb:
    """An upper bound on the cross-entropy of logits whose distance to the target's may each differ from the
    given ones' by (reach_j + reach_target) move. Cost: V multiply-adds, V evaluations.
    """
    work.spend(len(logits))
    own = reach[target] * move - logits[target]
    rises = [logit + width * move + own for logit, width in zip(logits, reach, strict=True)]
    others = work.evaluate(arb.exp, rises[:target] + rises[target + 1 :])
    return work.evaluate(arb.log, [sum(others, arb(1))])[0]


def exactly(tail: Tail, advice: Fields, work: Work) -> Iterator[tuple[Row, arb]]:
    """The streams z, by running the MLP: brute force. Cost: T (2 D N + 3 D), T (N + 1) evaluations."""
    normed = tail.normed(work)
    for start in range(0, len(normed), CHUNK):
        hidden = rows(work.product(arb_mat(normed[start : start + CHUNK]), tail.w_in))
        active = [
            work.evaluate(tail.phi.value, [h + b for h, b in zip(row, tail.b_in, strict=True)])
            for row in hidden
        ]
        for x, out in zip(tail.x[start:], rows(work.product(arb_mat(active), tail.w_out)), strict=False):
            yield [a + b + c for a, b, c in zip(x, out, tail.b_out, strict=True)], arb(0)


@dataclass(frozen=True)
class Features:
    """The certificate's account of the neurons: their features, and what it leaves to be charged."""

    unit: arb
    bits: int
    directions: arb_mat  # F x D
    neurons: list[list[int]]  # F: those that have the feature
    gains: Row  # N
    knots: list[list[int]]  # F, in units
    sizes: Row  # N: |w_out[k]|
    out: list[Row]  # N x D: w_out
    steepest: arb  # the supremum of |phi'|
    crosstalk: arb  # per unit of |n|: steepest x sum_k |w_out[k]| |rest_k|

    @classmethod
    def read(cls, tail: Tail, advice: Fields, work: Work) -> "Features":
        """Read the features. Cost: N (3 D + 1)."""
        bits = advice.integer("bits", 0, 40)
        unit, (size, hidden) = arb(2) ** -bits, (tail.w_in.nrows(), tail.w_in.ncols())
        directions = [
            [unit * entry for entry in row] for row in advice.table("directions", -LIMIT, LIMIT, size)
        ]
        knots = advice.table("knots", -LIMIT, LIMIT)
        if not directions or len(knots) != len(directions):
            raise Rejected(f"{len(directions)} directions and {len(knots)} rows of knots are given")
        if not all(low < high for row in knots for low, high in pairwise(row)):
            raise Rejected("the knots of a feature do not increase")
        work.hold(2 * (len(directions) + hidden) * size, "the features")
        work.spend(hidden * (3 * size + 1))
        features = advice.integers("features", 0, len(directions) - 1, hidden)
        gains = [unit * gain for gain in advice.integers("gains", -LIMIT, LIMIT, hidden)]
        out = rows(tail.w_out)
        sizes = [magnitude(row) for row in out]
        crosstalk, steepest = arb(0), tail.phi.ranges(EVERYWHERE).slope.abs_upper()
        for k, column in enumerate(rows(tail.w_in.transpose())):
            rest = [w - gains[k] * r for w, r in zip(column, directions[features[k]], strict=True)]
            crosstalk += sizes[k] * magnitude(rest)
        neurons: list[list[int]] = [[] for _ in directions]
        for k, feature in enumerate(features):
            neurons[feature].append(k)
        return cls(
            unit=unit,
            bits=bits,
            directions=arb_mat(directions),
            neurons=neurons,
            gains=gains,
            knots=knots,
            sizes=sizes,
            out=out,
            steepest=steepest,
            crosstalk=steepest * crosstalk,
        )


@dataclass(frozen=True)
class Table:
    """What one feature's neurons add to z, at those of its knots that a reading needs."""

    tail: Tail
    features: Features
    feature: int
    work: Work
    pieces: dict[int, tuple[arb_mat, arb]] = field(default_factory=dict[int, tuple[arb_mat, arb]])
    values: dict[int, Row] = field(default_factory=dict[int, Row])

    def at(self, reading: int) -> tuple[arb_mat, arb]:
        """The interpolated effect of a reading (1 x D), and a bound on how far the true one is from it.

        Cost: 2 D + 2 multiply-adds beside a new piece's. Proof: docs/proofs/theory.md, lemma "knots".
        """
        knots = self.features.knots[self.feature]
        place = bisect_right(knots, reading) - 1
        if not 0 <= place < len(knots) - 1:
            raise Rejected(f"a reading of feature {self.feature} lies outside its knots")
        if place not in self.pieces:
            ends = arb_mat([self._value(place), self._value(place + 1)])
            self.pieces[place] = ends, self._bend(place)
        ends, bend = self.pieces[place]
        share = arb(reading - knots[place]) / (knots[place + 1] - knots[place])
        self.work.spend(2)
        return self.work.product(arb_mat([[1 - share, share]]), ends), bend * share * (1 - share)

    @cached_property
    def _out(self) -> arb_mat:
        return arb_mat([self.features.out[k] for k in self.features.neurons[self.feature]])

    def _value(self, place: int) -> Row:
        """The sum of phi(h_k) w_out[k] at a knot. Cost: for M neurons M (D + 1), and M evaluations."""
        if place not in self.values:
            active = self.work.evaluate(self.tail.phi.value, self._inputs(place))
            effect = self.work.product(arb_mat([active]), self._out)
            self.values[place] = effect.entries()
        return self.values[place]

    def _inputs(self, place: int) -> Row:
        features, neurons = self.features, self.features.neurons[self.feature]
        reading = features.unit * features.knots[self.feature][place]
        self.work.spend(len(neurons))
        return [self.tail.b_in[k] + features.gains[k] * reading for k in neurons]

    def _bend(self, place: int) -> arb:
        """Half the squared length of the piece after a knot, times a bound on the effect's second derivative.

        Cost: for M neurons 4 M multiply-adds, M evaluations.
        """
        features, neurons = self.features, self.features.neurons[self.feature]
        low, high = features.knots[self.feature][place : place + 2]
        self.work.spend(2 * len(neurons))
        between = [a.union(b) for a, b in zip(self._inputs(place), self._inputs(place + 1), strict=True)]
        bends = self.work.evaluate(lambda ball: curvature(self.tail.phi, ball).abs_upper(), between)
        terms = [
            features.sizes[k] * features.gains[k] ** 2 * bend for k, bend in zip(neurons, bends, strict=True)
        ]
        return sum(terms, arb(0)) * (features.unit * (high - low)) ** 2 / 2


def from_features(tail: Tail, advice: Fields, work: Work) -> Iterator[tuple[Row, arb]]:
    """The streams z from one feature per neuron: tables of single features, the rest charged as crosstalk.

    Readings are rounded to units, and what that moves is charged too. Cost for a token: 4 D + F (3 D + 3)
    multiply-adds and an evaluation, none of which depends on the number of neurons; the table, for each knot
    that is needed, costs some D + 5 multiply-adds and two evaluations for each of its feature's neurons.
    Proof: docs/proofs/theory.md, theorem "one feature per neuron".
    """
    features, normed = Features.read(tail, advice, work), tail.normed(work)
    readings = rows(work.product(arb_mat(normed), features.directions.transpose()))
    streams = [arb_mat([[a + b for a, b in zip(x, tail.b_out, strict=True)]]) for x in tail.x]
    errors = [features.crosstalk * magnitude(n) for n in normed]
    work.spend(len(normed) * tail.w_in.nrows())
    for i, neurons in enumerate(features.neurons):
        if not neurons:
            continue
        table = Table(tail, features, i, work)
        slope = features.steepest * sum((features.sizes[k] * abs(features.gains[k]) for k in neurons), arb(0))
        work.spend(len(neurons) + len(readings))
        for t, row in enumerate(readings):
            reading = floor(row[i], features.bits)
            effect, error = table.at(reading)
            streams[t] += effect
            errors[t] += error + slope * abs(row[i] - features.unit * reading)
    for stream, error in zip(streams, errors, strict=True):
        yield stream.entries(), error


FORMS: dict[str, Callable[[Tail, Fields, Work], Iterator[tuple[Row, arb]]]] = {
    "exact": exactly,
    "features": from_features,
}
