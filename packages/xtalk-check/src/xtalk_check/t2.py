"""T2: regions of real inputs that all get one answer, and which inputs of a data set lie in them.

The network is that of finite.py, of which only what follows x matters here. A region holds every
x = base + sum_i s_i f_i + e with s_i in [low_i, high_i] for its features i, and |e| at most its radius.
"""

from dataclasses import dataclass

from flint import arb, arb_mat

from xtalk_check.activations import curvature
from xtalk_check.errors import Rejected
from xtalk_check.finite import LIMIT, Network, read_features
from xtalk_check.margins import settle
from xtalk_check.population import claimed_population
from xtalk_check.reading import Fields, Weights
from xtalk_check.work import Row, Work, dot, magnitude, rows, smallest


def prove(task: Fields, advice: Fields, claim: Fields, weights: Weights, work: Work) -> dict[str, int]:
    """Count the inputs that lie in a region whose points all get their label; refuses a region that does not.

    Postcondition: every real x in any of the regions gets the region's answer, ties losing; and at least
    `certified` of the `total` inputs of the data lie in a region of their own label. Complexity: for a region
    of F features D N C + N (2 D + D F + C) multiply-adds, up to lower orders, and 3 N evaluations; D for each
    entry of a code. Proof: docs/proofs/theory.md, theorem T2.
    """
    network = Network.load(task, weights, work)
    unit, base, features = read_features(advice, network.w_in.nrows(), work)
    regions = [
        Region.read(row, features, network.out.ncols(), unit)
        for row in advice.table("regions", -LIMIT, LIMIT)
    ]
    work.plan(
        len(regions) * network.w_in.nrows() * network.w_in.ncols() * network.out.ncols(), "every region"
    )
    least: list[arb] = []
    for number, region in enumerate(regions):
        margins = region.margins(network, base, features, work)
        least.append(smallest(m for wrong, m in enumerate(margins) if wrong != region.label))
        if not least[number] > 0:
            raise Rejected(f"region {number} is not proven to get the answer {region.label}")
    codes = advice.table("codes", -LIMIT, LIMIT)
    if len(codes) != len(network.labels):
        raise Rejected(f"{len(codes)} codes are given for {len(network.labels)} inputs")
    proven: list[arb] = []
    for x, label, code in zip(rows(network.x), network.labels, codes, strict=True):
        if not code:
            continue
        if not 0 <= code[0] < len(regions):
            raise Rejected(f"a code names region {code[0]}; there are {len(regions)}")
        region, moved = regions[code[0]], [a - b for a, b in zip(x, base, strict=True)]
        if region.label == label and region.holds(moved, code[1:], features, work):
            proven.append(least[code[0]])
    margins = proven + [arb(-1)] * (len(codes) - len(proven))  # of the others nothing is known
    population = claimed_population(task, claim, len(proven), margins, work)
    return settle(claim, len(proven), len(codes)) | {"regions": len(regions)} | population


@dataclass(frozen=True)
class Region:
    """A box of strengths of some features, and a ball around it."""

    label: int
    radius: arb
    support: list[int]
    box: list[tuple[int, int]]  # in units
    unit: arb

    @classmethod
    def read(cls, row: list[int], features: list[Row], classes: int, unit: arb) -> "Region":
        """A label and a radius; then a feature and the ends of its strength, any number of times."""
        ends = list(zip(row[3::3], row[4::3], strict=False))
        if (
            len(row) % 3 != 2
            or not 0 <= row[0] < classes
            or row[1] < 0
            or not all(0 <= i < len(features) for i in row[2::3])
            or not all(low <= high for low, high in ends)
        ):
            raise Rejected("a region is not a label, a radius, and features with the ends of their strengths")
        return cls(row[0], unit * row[1], row[2::3], ends, unit)

    def margins(self, network: Network, base: Row, features: list[Row], work: Work) -> Row:
        """Lower bounds on the label's margin over each answer, for every point of the region.

        Each neuron by its tangent at the centre and its curvature over the region; the tangents' sum is
        linear, and exact over box and ball. Proof: docs/proofs/theory.md, theorem T2.
        """
        work.fit(2 * len(self.box) * len(base), "the features of a region")
        work.spend(2 * len(self.box) * len(base))
        middle = list(base)
        spans: list[Row] = []
        for i, (low, high) in zip(self.support, self.box, strict=True):
            middle = [
                m + f * (self.unit * (low + high) / 2) for m, f in zip(middle, features[i], strict=True)
            ]
            spans.append([f * (self.unit * (high - low) / 2) for f in features[i]])
        h = network.before(middle, work)
        reach = [self.radius * magnitude(row) for row in rows(network.w_in.transpose())]
        for moved in rows(work.product(arb_mat(spans), network.w_in)) if spans else []:
            reach = [r + abs(move) for r, move in zip(reach, moved, strict=True)]
        work.spend(4 * len(h), evaluations=len(h))
        slopes = work.evaluate(network.phi.slope, h)
        remainders = [
            (curvature(network.phi, centre + arb(0, 1) * width) * width**2 / 2).union(arb(0))
            for centre, width in zip(h, reach, strict=True)
        ]
        active = [a + b for a, b in zip(work.evaluate(network.phi.value, h), remainders, strict=True)]
        margins, gradients = network.tangent(self.label, middle, active, slopes, work)
        return [
            margin - self._swing(gradient, spans, work)
            for margin, gradient in zip(margins, gradients, strict=True)
        ]

    def _swing(self, direction: Row, spans: list[Row], work: Work) -> arb:
        """How far a linear function can fall from its value at the centre."""
        work.spend((len(spans) + 1) * len(direction))
        return self.radius * magnitude(direction) + sum((abs(dot(direction, span)) for span in spans), arb(0))

    def holds(self, x: Row, strengths: list[int], features: list[Row], work: Work) -> bool:
        """Whether an input, less the base, is certainly in the region, by these strengths."""
        if len(strengths) != len(self.support):
            raise Rejected(
                f"{len(strengths)} strengths are given in a region of {len(self.support)} features"
            )
        work.spend(len(x) * (len(strengths) + 1))
        for i, strength in zip(self.support, strengths, strict=True):
            x = [a - f * (self.unit * strength) for a, f in zip(x, features[i], strict=True)]
        in_box = all(low <= s <= high for s, (low, high) in zip(strengths, self.box, strict=True))
        return in_box and dot(x, x) <= self.radius**2
