"""T1, form "charts": second order around a few points, with a table of pairs of coordinates for each.

A chart is a label, a point b and a radius R. For x = b + e with |e| <= R neuron k sees c_k + w_k.e, with
c = w_in^T b + b_in and |w_k.e| <= R |w_k|; the label's margins are at least a quadratic function of e.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement

from flint import arb, arb_mat

from xtalk_check.data import curvature, dot, magnitude
from xtalk_check.errors import Rejected
from xtalk_check.finite import LIMIT, Network
from xtalk_check.reading import Fields
from xtalk_check.work import Row, Work, rows

LAYERS = 16


def from_charts(network: Network, advice: Fields, work: Work) -> list[Row]:
    """Margins from the chart that the certificate names for each input; no neuron is looked at for an input.

    Nothing is known of an input outside its chart's ball, or of another label. Cost, with P = D (D + 1) / 2
    pairs of coordinates: P N once; N (D (C + 3) + (C - 1) (P + 1) + C) + D C and (LAYERS + 2) N evaluations
    for each chart; and (P + D) C + C - 1 for each input. Proof: docs/proofs/theory.md, T1, "charts".
    """
    unit, size = arb(2) ** -advice.integer("bits", 0, 40), network.w_in.nrows()
    tabled, hidden, classes = size * (size + 1) // 2, network.w_in.ncols(), network.out.ncols()
    work.hold(2 * tabled * hidden, "the products of weights for every pair of coordinates")
    work.spend(tabled * hidden)
    pairs = list(combinations_with_replacement(range(size), 2))
    w_in = rows(network.w_in)
    products = arb_mat(
        [[(1 + (a < b)) * v * w for v, w in zip(w_in[a], w_in[b], strict=True)] for a, b in pairs]
    )
    given = advice.table("charts", -LIMIT, LIMIT, size + 2)
    work.hold(2 * len(given) * (tabled + size + 1) * classes, "the charts' tables")
    work.fit(len({row[0] for row in given}) * hidden * classes, "every label's margins")
    work.plan(len(given) * tabled * hidden * (classes - 1), "tabling every chart")
    charts = [Chart.read(row, unit, network, products, work) for row in given]
    codes = advice.integers("codes", 0, len(charts) - 1, len(network.labels))
    bounds: list[Row] = []
    for x, label, code in zip(rows(network.x), network.labels, codes, strict=True):
        chart = charts[code]
        work.spend(len(pairs) + size)
        e = [a - b for a, b in zip(x, chart.point, strict=True)]
        terms = arb_mat([[arb(1), *e, *(e[a] * e[b] for a, b in pairs)]])
        inside = label == chart.label and dot(e, e) <= chart.radius**2
        margins = work.product(terms, chart.table).entries()
        margins.insert(chart.label, arb(0))
        bounds.append(margins if inside else [arb("-inf")] * len(margins))
    return bounds


@dataclass(frozen=True)
class Chart:
    """A ball, and a quadratic function below each margin of its label in it."""

    label: int
    point: Row
    radius: arb
    table: arb_mat  # (1 + D + P) x (C - 1): constant, coordinates, and pairs, for each wrong answer

    @classmethod
    def read(cls, row: list[int], unit: arb, network: Network, products: arb_mat, work: Work) -> "Chart":
        """Read a chart: its label, its radius, then its point."""
        label, radius, point = row[0], unit * row[1], [unit * entry for entry in row[2:]]
        if not 0 <= label < network.out.ncols() or row[1] < 0:
            raise Rejected("a chart is not a label, a radius and a point")
        h, phi = network.before(point, work), network.phi
        values, slopes = work.evaluate(phi.value, h), work.evaluate(phi.slope, h)
        margins, gradients = network.tangent(label, point, values, slopes, work)
        bends = [
            bend(network, centre, radius * magnitude(column), work)
            for centre, column in zip(h, rows(network.w_in.transpose()), strict=True)
        ]
        wrong = [answer for answer in range(len(margins)) if answer != label]
        lowest = [
            [(ahead[answer] * ball / 2).lower() for answer in wrong]
            for ahead, ball in zip(rows(network.ahead(label, work)), bends, strict=True)
        ]
        work.spend(len(lowest) * (len(wrong) + len(point)))
        linear = [[row[answer] for answer in wrong] for row in (margins, *zip(*gradients, strict=True))]
        return cls(label, point, radius, arb_mat(linear + rows(work.product(products, arb_mat(lowest)))))


def bend(network: Network, centre: arb, reach: arb, work: Work) -> arb:
    """A ball around every number theta with phi(c + d) = phi(c) + phi'(c) d + theta d^2 / 2, |d| <= reach.

    theta is the mean of phi''(c + t d) over t in [0, 1] with the weight 2 (1 - t). In layer m, which ends at
    t = m / LAYERS, phi'' is in its range over what is as close to c.
    Proof: docs/proofs/theory.md, lemma "bend".
    """
    work.spend(evaluations=LAYERS)
    ranges = (
        (2 * (LAYERS - layer) + 1) * curvature(network.phi, centre + arb(0, 1) * reach * layer / LAYERS)
        for layer in range(1, LAYERS + 1)
    )
    return sum(ranges, arb(0)) / LAYERS**2
