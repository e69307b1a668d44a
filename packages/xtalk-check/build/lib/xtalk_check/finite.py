"""The network of the theorems about data: an input is embedded, and an MLP stands beside a residual path.

For an input z, a row of the tensor data.inputs:
    x = embed^T z + b_embed,   y = w_out^T phi(w_in^T x + b_in) + b_out  (+ x where there is a residual path),
    logits = unembed^T y + b_unembed.
"""

from dataclasses import dataclass, field
from functools import cached_property

from flint import arb, arb_mat

from xtalk_check.activations import EVERYWHERE, Activation, activation
from xtalk_check.data import data, repeated, scaled
from xtalk_check.errors import Rejected
from xtalk_check.reading import Fields, Weights
from xtalk_check.rounding import largest, layer, logit_error
from xtalk_check.work import Row, Work, rows

LIMIT = 1 << 40  # largest number of an explanation, in units of 2^-bits


@dataclass(frozen=True)
class Network:
    """The network and its data, with what every form needs of them."""

    phi: Activation
    residual: bool
    labels: list[int]  # T
    x: arb_mat  # T x D
    w_in: arb_mat  # D x N
    b_in: arb_mat  # 1 x N
    out: arb_mat  # N x C: w_out unembed
    path: arb_mat  # D x C: what the residual path adds to the logits
    direct: arb_mat  # T x C: the logits without the MLP's neurons
    _ahead: dict[int, arb_mat] = field(default_factory=dict[int, arb_mat])

    @classmethod
    def load(cls, task: Fields, weights: Weights, work: Work) -> "Network":
        """Read network and data. Cost: T (I D + D C), where the path is residual, and N D C."""
        inputs = data(weights, "data.inputs", task.digest("data"))
        total = inputs.nrows()
        phi = activation(task.choice("activation", "gelu", "gelu_tanh"))
        residual = task.flag("residual")
        embed = weights.matrix("embed", inputs.ncols(), None)
        w_in = weights.matrix("w_in", embed.ncols(), None)
        unembed = weights.matrix("unembed", embed.ncols(), None)
        if unembed.ncols() < 2:
            raise Rejected("there is nothing to prove of a single class")
        w_out = weights.matrix("w_out", w_in.ncols(), embed.ncols())
        work.hold(2 * total * (embed.ncols() + unembed.ncols()), "the data in the network")
        x = work.product(inputs, embed) + repeated(total, weights.vector("b_embed", embed.ncols()))
        y = repeated(total, weights.vector("b_out", embed.ncols())) + (x if residual else x * 0)
        return cls(
            phi=phi,
            residual=residual,
            labels=task.integers("labels", 0, unembed.ncols() - 1, total),
            x=x,
            w_in=w_in,
            b_in=arb_mat(1, w_in.ncols(), weights.vector("b_in", w_in.ncols())),
            out=work.product(w_out, unembed),
            path=unembed if residual else unembed * 0,
            direct=work.product(y, unembed) + repeated(total, weights.vector("b_unembed", unembed.ncols())),
        )

    def rounding_error(self, weights: Weights, work: Work) -> arb:
        """A bound on the error of every deployed logit, on every input. Cost: 2 (I D + D N + N D + D C)."""
        z = largest(weights.matrix("data.inputs", None, None))
        embed, bias = weights.matrix("embed", None, None), weights.vector("b_embed", None)
        x = layer((z, z * 0), embed, bias, embed.nrows() + 1, work)
        return logit_error(self.phi.ranges(EVERYWHERE).slope.abs_upper(), self.residual, x, weights, work)

    def before(self, at: Row, work: Work) -> Row:
        """The neurons' pre-activations at any x."""
        return (work.product(arb_mat([at]), self.w_in) + self.b_in).entries()

    def tangent(self, label: int, at: Row, active: Row, slopes: Row, work: Work) -> tuple[Row, list[Row]]:
        """The label's margins over each answer (C), and their gradients (C x D) in x, at any x = `at`.

        Precondition: the neurons' values there are in `active`, and their slopes in `slopes`. Cost: D C,
        N C and D N (C + 1).
        """
        x, direct = arb_mat([at]), arb_mat([rows(self.direct)[0]])
        resting = (work.product(x - arb_mat([rows(self.x)[0]]), self.path) + direct).entries()
        moved = work.product(arb_mat([active]), self.ahead(label, work)).entries()
        margins = [resting[label] - other + move for other, move in zip(resting, moved, strict=True)]
        linear = rows((self.path + work.product(scaled(rows(self.w_in), slopes, work), self.out)).transpose())
        return margins, [[a - b for a, b in zip(linear[label], other, strict=True)] for other in linear]

    def ahead(self, label: int, work: Work) -> arb_mat:
        """What a unit of each neuron adds to the label's margin over each answer (N x C)."""
        if label not in self._ahead:
            work.hold(self.out.nrows() * self.out.ncols(), "what each neuron does to margins")
            self._ahead[label] = arb_mat([[row[label] - weight for weight in row] for row in rows(self.out)])
        return self._ahead[label]

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


def read_features(advice: Fields, size: int, work: Work) -> tuple[arb, Row, list[Row]]:
    """The unit 2^-bits in which strengths are given, a base, and features, of that size."""
    unit = arb(2) ** -advice.integer("bits", 0, 40)
    base = [unit * entry for entry in advice.integers("base", -LIMIT, LIMIT, size)]
    features = advice.table("features", -LIMIT, LIMIT, size)
    work.hold(len(features) * size, "the features")
    return unit, base, [[unit * f for f in row] for row in features]
