"""The network of the product-space theorems: a sum of embeddings, one MLP, an unembedding.

For tokens t_1 ... t_n, rows of `embed`:
    x = sum_p embed[t_p],   y = w_out^T phi(w_in^T x + b_in) + b_out  (+ x where there is a residual path),
    logits = unembed^T y + b_unembed.
"""

from dataclasses import dataclass

from flint import arb, arb_mat

from xtalk_check.activations import EVERYWHERE, Activation, activation
from xtalk_check.reading import Fields, Weights
from xtalk_check.rounding import gamma, largest, logit_error, tiny
from xtalk_check.work import Work, rows


@dataclass(frozen=True)
class Network:
    """The same network with every product of weights multiplied out.

    h_k = b_hidden[k] + sum_p hidden[t_p][k];
    logit_c = b_logit[c] + sum_p direct[t_p][c] + sum_k out[c][k] phi(h_k).
    """

    phi: Activation
    residual: bool
    hidden: list[list[arb]]  # V x N
    direct: list[list[arb]]  # V x C, rows of 0 where there is no residual path
    b_hidden: list[arb]  # N
    out: list[list[arb]]  # C x N
    b_logit: list[arb]  # C

    @classmethod
    def load(cls, task: Fields, weights: Weights, tokens: int, classes: int, work: Work) -> "Network":
        """Read the network with that many tokens and classes. Cost: (V + C) D N + V D C + D C."""
        phi = activation(task.choice("activation", "relu", "gelu", "gelu_tanh"))
        residual = task.flag("residual")
        embed = weights.matrix("embed", tokens, None)
        w_in = weights.matrix("w_in", embed.ncols(), None)
        w_out = weights.matrix("w_out", w_in.ncols(), embed.ncols())
        unembed = weights.matrix("unembed", embed.ncols(), classes)
        b_out = arb_mat(1, embed.ncols(), weights.vector("b_out", embed.ncols()))
        work.hold((tokens + classes) * w_in.ncols() + residual * tokens * classes, "the network")
        b_logit = work.product(b_out, unembed) + arb_mat(1, classes, weights.vector("b_unembed", classes))
        return cls(
            phi=phi,
            residual=residual,
            hidden=rows(work.product(embed, w_in)),
            direct=rows(work.product(embed, unembed)) if residual else [[arb(0)] * classes] * tokens,
            b_hidden=weights.vector("b_in", w_in.ncols()),
            out=rows(work.product(w_out, unembed).transpose()),
            b_logit=b_logit.entries(),
        )

    @property
    def classes(self) -> int:
        """The number of answers C."""
        return len(self.b_logit)

    def rounding_error(self, weights: Weights, n: int, work: Work) -> arb:
        """A bound on the error of every deployed logit, on every sequence of n tokens."""
        x = largest(weights.matrix("embed", None, None)) * n
        summed = x, x * gamma(n) + tiny(x.ncols())
        steepest = self.phi.ranges(EVERYWHERE).slope.abs_upper()
        return logit_error(steepest, self.residual, summed, weights, work)

    def ahead(self, answer: int, work: Work) -> arb_mat:
        """Row j holds out[answer] - out[j] (C x N)."""
        work.fit(self.classes * len(self.b_hidden), "what each neuron does to margins")
        right = self.out[answer]
        return arb_mat([[a - b for a, b in zip(right, wrong, strict=True)] for wrong in self.out])
