"""T1: on how many inputs of a given data set the answer is right, from codes in the certificate.

The network is that of finite.py. The certificate explains x as base + sum_i s_i f_i + e: features f_i, codes
s_i of every input's own, and the residual e that is left. Neuron k sees c_k + sum_i s_i g_ik + w_k.e, with
c = w_in^T base + b_in and g = w_in^T f.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flint import arb, arb_mat

from xtalk_check.activations import EVERYWHERE
from xtalk_check.charts import from_charts
from xtalk_check.data import curvature, dot, repeated, root, scaled
from xtalk_check.errors import Rejected
from xtalk_check.finite import LIMIT, Network, read_features
from xtalk_check.margins import settle
from xtalk_check.reading import Fields, Weights
from xtalk_check.rounding import slack
from xtalk_check.work import EVALUATION, Row, Work, rows, smallest


def prove(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Count the inputs on which the label's logit is certainly ahead of every other; ties lose.

    Precondition: the specification has the labels of the data and the hash of its values. Postcondition: at
    least `certified` of the `total` inputs are answered right. Complexity: that of the form which the
    certificate chooses, below.
    Proof: docs/proofs/theory.md, theorem T1.
    """
    network = Network.load(task, weights, work)
    form = FORMS[advice.choice("form", *FORMS)]
    least = [
        smallest(margin for wrong, margin in enumerate(margins) if wrong != label)
        for label, margins in zip(network.labels, form(network, advice, work), strict=True)
    ]
    needed = slack(task, lambda: network.rounding_error(weights, work))
    certified = sum(margin > needed for margin in least)
    return settle(claim, certified, len(least))


def exactly(network: Network, advice: Fields, work: Work) -> list[Row]:
    """The margins, by running the network: brute force. Cost: T N (D + C), T N evaluations."""
    work.fit(3 * len(network.labels) * network.w_in.ncols(), "the neurons of every input")
    h = work.product(network.x, network.w_in) + repeated(len(network.labels), network.b_in.entries())
    active = arb_mat(h.nrows(), h.ncols(), work.evaluate(network.phi.value, h.entries()))
    logits = rows(network.direct + work.product(active, network.out))
    return [_margins(logit, label, arb(0)) for logit, label in zip(logits, network.labels, strict=True)]


@dataclass(frozen=True)
class Explanation:
    """The certificate's account of the data, whatever it is, and the residual that makes it an identity."""

    contributions: arb_mat  # L x N: g, what a unit of each feature adds to each neuron
    base: Row  # N: c
    codes: list[list[tuple[int, int]]]  # for each input, pairs of a feature and its strength / unit
    unit: arb
    residuals: arb_mat  # T x D: e

    @classmethod
    def read(cls, network: Network, advice: Fields, work: Work) -> "Explanation":
        """Read base, features and codes. Cost: (L + 1) D N, and D for each entry of a code."""
        size = network.w_in.nrows()
        unit, base, features = read_features(advice, size, work)
        flat = advice.table("codes", -LIMIT, LIMIT)
        residuals = rows(network.x - repeated(len(network.labels), base))
        if len(flat) != len(residuals) or not features:
            raise Rejected(
                f"{len(flat)} codes of {len(features)} features are given for {len(residuals)} inputs"
            )
        work.hold(2 * len(residuals) * size + len(features) * network.w_in.ncols(), "the explanation")
        codes: list[list[tuple[int, int]]] = []
        for t, entries in enumerate(flat):
            if len(entries) % 2 or not all(0 <= i < len(features) for i in entries[::2]):
                raise Rejected(f"the code of input {t} is not pairs of a feature and its strength")
            codes.append(list(zip(entries[::2], entries[1::2], strict=True)))
            work.spend(len(codes[t]) * size)
            for i, strength in codes[t]:
                scale = unit * strength
                residuals[t] = [e - scale * f for e, f in zip(residuals[t], features[i], strict=True)]
        return cls(
            contributions=work.product(arb_mat(features), network.w_in),
            base=network.before(base, work),
            codes=codes,
            unit=unit,
            residuals=arb_mat(residuals),
        )


@dataclass(frozen=True)
class Residuals:
    """What the residuals do to the logits, to first order at the base, and their size for the rest."""

    linear: arb_mat  # T x C: sum_k out_kc phi'(c_k) w_k.e
    sizes: Row  # T: sqrt(sum_k spread_k (w_k.e)^2)

    @classmethod
    def of(cls, network: Network, explanation: Explanation, work: Work) -> "Residuals":
        """Cost: D N (C + D + 2) and N evaluations; then T D (C + D + 1)."""
        w_in = rows(network.w_in)
        slopes = work.evaluate(network.phi.slope, explanation.base)
        jacobian = work.product(scaled(w_in, slopes, work), network.out)
        square = work.product(scaled(w_in, network.spread, work), network.w_in.transpose())
        e = explanation.residuals
        images = rows(work.product(e, square))
        work.spend(len(images) * len(w_in))
        sizes = [root(dot(row, image)) for row, image in zip(rows(e), images, strict=True)]
        return cls(work.product(e, jacobian), sizes)


def from_tables(network: Network, advice: Fields, work: Work) -> list[Row]:
    """Margins from a table of single features and a table of pairs; no neuron is looked at for an input.

    Single effects are tabulated at whole multiples of each feature's step, and interpolated between them.
    Cost: N evaluations and N (C + 1) multiply-adds for each entry of that table, (L + 1) L N for the pairs;
    then K (K / 2 + 2 C + 4) for an input with K codes, beside its residual's. Proof: T1, "tables".
    """
    explanation = Explanation.read(network, advice, work)
    steps = advice.integers("steps", 1, LIMIT, explanation.contributions.nrows())
    features, hidden = explanation.contributions.nrows(), explanation.contributions.ncols()
    work.hold(2 * features * (features + hidden), "the table of pairs")
    charged = sum(len(code) * (len(code) - 1) // 2 for code in explanation.codes)
    work.plan(features**2 * hidden + charged, "charging every pair of features")
    residuals = Residuals.of(network, explanation, work)
    magnitudes = arb_mat([[abs(g) for g in row] for row in rows(explanation.contributions)])
    pairs = rows(work.product(scaled(rows(magnitudes), network.spread, work), magnitudes.transpose()))
    alone = [root(pairs[i][i]) for i in range(len(pairs))]
    resting, singles = _single_effects(network, explanation, steps, work)
    logits = network.direct + residuals.linear + repeated(len(network.labels), resting)
    bend, unit = curvature(network.phi, EVERYWHERE).abs_upper(), explanation.unit
    bounds: list[Row] = []
    for t, (code, logit) in enumerate(zip(explanation.codes, rows(logits), strict=True)):
        size = residuals.sizes[t]
        crosstalk = size**2 / 2
        for place, (i, strength) in enumerate(code):
            work.spend(place + 4 + 2 * len(logit))
            others = sum((abs(unit * other) * pairs[i][j] for j, other in code[:place]), alone[i] * size)
            node, beyond = divmod(strength, steps[i])
            share = arb(beyond) / steps[i]
            crosstalk += abs(unit * strength) * others
            crosstalk += pairs[i][i] * share * (1 - share) * (unit * steps[i]) ** 2 / 2
            low, high = singles[i, node], singles[i, node + (beyond > 0)]
            logit = [a + b + share * (c - b) for a, b, c in zip(logit, low, high, strict=True)]
        bounds.append(_margins(logit, network.labels[t], bend * crosstalk))
    return bounds


def _single_effects(
    network: Network, explanation: Explanation, steps: list[int], work: Work
) -> tuple[Row, dict[tuple[int, int], Row]]:
    """The logits of the base, and what each feature adds to them when alone, at the multiples of its step."""
    base, contributions = explanation.base, rows(explanation.contributions)
    nodes = {
        (i, node)
        for code in explanation.codes
        for i, strength in code
        for node in (strength // steps[i], -(-strength // steps[i]))
    }
    work.hold(2 * len(nodes) * (len(base) + network.out.ncols()), "the table of single features")
    work.plan(len(nodes) * len(base) * (network.out.ncols() + 1 + EVALUATION), "tabling single features")
    active = [work.evaluate(network.phi.value, base)]
    for i, node in sorted(nodes):
        work.spend(len(base))
        scale = explanation.unit * (node * steps[i])
        h = [c + scale * g for c, g in zip(base, contributions[i], strict=True)]
        values = work.evaluate(network.phi.value, h)
        active.append([value - rest for value, rest in zip(values, active[0], strict=True)])
    resting, *effects = rows(work.product(arb_mat(active), network.out))
    return resting, dict(zip(sorted(nodes), effects, strict=True))


FORMS: dict[str, Callable[[Network, Fields, Work], list[Row]]] = {
    "charts": from_charts,
    "exact": exactly,
    "tables": from_tables,
}


def _margins(logits: Row, label: int, charge: arb) -> Row:
    """By how much the label's logit is ahead of each, after a charge."""
    return [logits[label] - other - charge for other in logits]
