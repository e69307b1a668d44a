"""T1: on how many inputs of a given data set the answer is right, from codes in the certificate.

The network reads an input z, a row of the tensor data.inputs:
    x = embed^T z + b_embed,   h = w_in^T x + b_in,   y = w_out^T phi(h) + b_out  (+ x where there is a residual
    path),   logits = unembed^T y + b_unembed,
and the certificate explains x as base + sum_i s_i f_i, with features f_i, codes s_i of its own for every input,
and a residual e that is left. So h_k = c_k + sum_i s_i g_ik + w_k.e, where c = w_in^T base + b_in, g = w_in^T f.
"""

import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from flint import arb, arb_mat

from xtalk_check.activations import Activation, activation
from xtalk_check.errors import Rejected
from xtalk_check.population import claimed_accuracy
from xtalk_check.reading import Fields, Weights
from xtalk_check.work import Work, rows

LIMIT = 1 << 40  # largest entry of base, features and codes, in units of 2^-bits
EVERYWHERE = arb(0, 1 << 100)

Row = list[arb]


def prove(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Count the inputs on which the label's logit is certainly ahead of every other; ties lose.

    Preconditions: the verifier's specification has the labels of the data and the hash of its values. Where the
    claim is about a population, the inputs were drawn independently from it after the network was fixed.
    Postcondition: at least `certified` of the `total` inputs are answered right; with a population, see
    population.py. Complexity: that of the form which the certificate chooses, below. Proof: docs/proofs.md,
    theorem T1.
    """
    network = Network.load(task, weights, work)
    form = FORMS[advice.choice("form", *FORMS)]
    certified = sum(
        all(wrong == label or margin > 0 for wrong, margin in enumerate(margins))
        for label, margins in zip(network.labels, form(network, advice, work), strict=True)
    )
    total = len(network.labels)
    if claim.integer("total", 0, total) != total:
        raise Rejected(f"the claim is about another number of inputs; there are {total}")
    claimed = claim.integer("certified", 0, total)
    if claimed > certified:
        raise Rejected(f"{claimed} inputs are claimed; {certified} are proven")
    return {"certified": certified, "total": total} | claimed_accuracy(task, claim, claimed, total)


@dataclass(frozen=True)
class Network:
    """The network and its data, with what every form needs of them."""

    phi: Activation
    labels: list[int]  # T
    x: arb_mat  # T x D
    w_in: arb_mat  # D x N
    b_in: arb_mat  # 1 x N
    out: arb_mat  # N x C: w_out unembed
    direct: arb_mat  # T x C: the logits without the MLP's neurons

    @classmethod
    def load(cls, task: Fields, weights: Weights, work: Work) -> "Network":
        """Read network and data. Cost: T (I D + D C), where the path is residual, and N D C."""
        (total, width), values = weights.values("data.inputs", None, None)
        stored = array("f", values)
        if sys.byteorder == "big":
            stored.byteswap()
        if sha256(stored.tobytes()).hexdigest() != task.digest("data"):
            raise Rejected("the specification is about other data")
        phi = activation(task.choice("activation", "gelu", "gelu_tanh"))
        residual = task.flag("residual")
        embed = weights.matrix("embed", width, None)
        w_in = weights.matrix("w_in", embed.ncols(), None)
        unembed = weights.matrix("unembed", embed.ncols(), None)
        w_out = weights.matrix("w_out", w_in.ncols(), embed.ncols())
        x = work.product(weights.matrix("data.inputs", total, width), embed) + _repeated(
            total, weights.vector("b_embed", embed.ncols())
        )
        y = _repeated(total, weights.vector("b_out", embed.ncols())) + (x if residual else x * 0)
        return cls(
            phi=phi,
            labels=task.integers("labels", 0, unembed.ncols() - 1, total),
            x=x,
            w_in=w_in,
            b_in=arb_mat(1, w_in.ncols(), weights.vector("b_in", w_in.ncols())),
            out=work.product(w_out, unembed),
            direct=work.product(y, unembed)
            + _repeated(total, weights.vector("b_unembed", unembed.ncols())),
        )

    @cached_property
    def spread(self) -> Row:
        """For each neuron, the largest difference between its weights on two logits."""
        spreads: Row = []
        for row in rows(self.out):
            top = low = row[0]
            for weight in row:
                top, low = top.max(weight), low.min(weight)
            spreads.append(top - low)
        return spreads

    def differences(self, label: int) -> arb_mat:
        """|out[:, label] - out|, the weights of the neurons in the margins of a label (N x C)."""
        return arb_mat([[abs(row[label] - weight) for weight in row] for row in rows(self.out)])


def exactly(network: Network, advice: Fields, work: Work) -> list[Row]:
    """The margins, by running the network: brute force. Cost: T N (D + C), T N evaluations."""
    h = work.product(network.x, network.w_in) + _repeated(len(network.labels), network.b_in.entries())
    active = arb_mat(h.nrows(), h.ncols(), work.evaluate(network.phi.value, h.entries()))
    return _margins(network, network.direct + work.product(active, network.out))


@dataclass(frozen=True)
class Explanation:
    """The certificate's account of the data, whatever it is, and the residual that makes it an identity."""

    contributions: arb_mat  # L x N: g, what a unit of each feature adds to each neuron
    base: Row  # N: c
    codes: list[list[tuple[int, arb]]]  # for each input, features and strengths
    residuals: arb_mat  # T x D: e

    @classmethod
    def read(cls, network: Network, advice: Fields, work: Work) -> "Explanation":
        """Read features, base and codes. Cost: (L + 1) D N, and D for each code."""
        unit, size = arb(2) ** -advice.integer("bits", 0, 40), network.w_in.nrows()
        base = [unit * entry for entry in advice.integers("base", -LIMIT, LIMIT, size)]
        features = [[unit * entry for entry in row] for row in advice.table("features", -LIMIT, LIMIT, size)]
        codes: list[list[tuple[int, arb]]] = []
        residuals = rows(network.x - _repeated(len(network.labels), base))
        for t, code in enumerate(advice.table("codes", -LIMIT, LIMIT)):
            if t >= len(residuals) or len(code) % 2 or not all(0 <= i < len(features) for i in code[::2]):
                raise Rejected(f"the code of input {t} is not pairs of a feature and its strength")
            codes.append([(i, unit * s) for i, s in zip(code[::2], code[1::2], strict=True)])
            for i, strength in codes[t]:
                residuals[t] = [e - strength * f for e, f in zip(residuals[t], features[i], strict=True)]
                work.multiply_adds += size
        if len(codes) < len(residuals) or not features:
            raise Rejected(f"there are {len(codes)} codes and {len(features)} features for {len(residuals)} inputs")
        return cls(
            contributions=work.product(arb_mat(features), network.w_in),
            base=(work.product(arb_mat([base]), network.w_in) + network.b_in).entries(),
            codes=codes,
            residuals=arb_mat(residuals),
        )


@dataclass(frozen=True)
class Residuals:
    """What the residuals do: to first order exactly, and their size for the rest."""

    linear: arb_mat  # T x C: sum_k out_kc phi'(c_k) w_k.e
    sizes: Row  # T: upper bounds of sqrt(sum_k spread_k (w_k.e)^2)

    @classmethod
    def of(cls, network: Network, explanation: Explanation, work: Work) -> "Residuals":
        """Cost: D N (C + D + 2) and N evaluations once; T D (C + D + 1)."""
        w_in, hidden = rows(network.w_in), len(explanation.base)
        slopes = work.evaluate(network.phi.slope, explanation.base)
        sloped = arb_mat([[w * slope for w, slope in zip(row, slopes, strict=True)] for row in w_in])
        spread = arb_mat([[w * s for w, s in zip(row, network.spread, strict=True)] for row in w_in])
        square = work.product(spread, network.w_in.transpose())
        e = explanation.residuals
        sizes: Row = []
        for row, image in zip(rows(e), rows(work.product(e, square)), strict=True):
            sizes.append(_root(sum((a * b for a, b in zip(row, image, strict=True)), arb(0))))
        work.multiply_adds += (2 * hidden + len(sizes)) * len(w_in)
        return cls(work.product(e, work.product(sloped, network.out)), sizes)


def from_tables(network: Network, advice: Fields, work: Work) -> list[Row]:
    """Margins from a table of single features and a table of pairs: no neuron is looked at for an input.

    Cost: for each feature with each of its strengths N evaluations and N (C + 1) multiply-adds; (L + 1) L N for
    the pairs; then K (K + 1) / 2 + K C for an input with K codes, beside its residual's.
    Proof: docs/proofs.md, T1, "tables".
    """
    explanation = Explanation.read(network, advice, work)
    residuals = Residuals.of(network, explanation, work)
    singles, logits = _singles(network, explanation, work)
    contributions = rows(explanation.contributions)
    weighted = [[abs(g) * s for g, s in zip(row, network.spread, strict=True)] for row in contributions]
    magnitudes = arb_mat([[abs(g) for g in row] for row in contributions])
    work.multiply_adds += len(weighted) * len(network.spread)
    pairs = rows(work.product(arb_mat(weighted), magnitudes.transpose()))
    alone = [_root(pairs[i][i]) for i in range(len(pairs))]
    curvature = _curvature(network.phi)
    bounds: list[Row] = []
    for t, code in enumerate(explanation.codes):
        logit = logits + residuals.linear_row(t)
        crosstalk, size = residuals.sizes[t] ** 2 / 2, residuals.sizes[t]
        for place, (i, strength) in enumerate(code):
            ...
    return bounds


def _curvature(phi: Activation) -> arb:
    """The supremum of |phi''|."""
    curvature = phi.ranges(EVERYWHERE).curvature
    if curvature is None:
        raise Rejected("T1 needs an activation function without kinks")
    return curvature.abs_upper()


def _root(square: arb) -> arb:
    """The root of a number that is known not to be negative."""
    return square.max(arb(0)).sqrt()


def _repeated(count: int, row: Row) -> arb_mat:
    """A matrix of `count` equal rows."""
    return arb_mat(count, len(row), row * count)


FORMS: dict[str, Callable[[Network, Fields, Work], list[Row]]] = {}
