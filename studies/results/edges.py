"""How sparse the edges between two dictionaries are, one at an MLP's input and one at its output.

The score is that of SCALAR (Fillingham et al. 2025, "SCALAR: Benchmarking SAE Interaction Sparsity in Toy
LLMs", arXiv 2511.07572). An edge joins a latent i of the input's dictionary to a latent j of the output's.
Edges are ranked by attribution, the root of the sum over tokens of squared integrated gradients of j by i.
Then only the first n edges are kept: each j is what the output's dictionary encodes when only the latents i
that still have an edge to it are there, all others being 0; the output is decoded and put in the place of
the MLP's own, and the divergence of the model's predictions from those with all edges is counted. The score
is the area under the divergence as a function of n: small where few edges do nearly all, whatever the two
dictionaries leave out.

Definitions are those of the abstract and of the authors' repository (gpt-circuits), whose divergence is
from the circuit of all edges too; the paper's own text was not at hand. Three things are ours. Integrated
gradients are taken in the usual form, f_i times the mean slope on the way from no latent to all (the
repository multiplies it with the length of the way). Latents j that are not active with all edges stay
inactive. The area is by the trapezoid over about eight numbers of edges.

That each j is encoded anew, by TopK among all latents, matters: were it known which are active, that choice
would cost no edge, and dictionaries whose latents hardly change while they are active would need none.

How many edges a latent of the output needs at one token is another question: `MlpEdges.rebuilt_from_few`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from studies.results.jacobian import jacobian, slopes
from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.models.mlp import MlpWeights

_STEPS = 10  # of the integral
_POINTS = 8  # numbers of edges between none and all
_TOKENS = 256  # at a time


@dataclass(frozen=True)
class EdgeScore:
    """edges: how many are ever used. counts: numbers of edges kept; costs: divergence from all, with each."""

    edges: int
    counts: tuple[int, ...]
    costs: tuple[float, ...]

    @property
    def absolute(self) -> float:
        """The area under the costs by number of edges."""
        return float(np.trapezoid(self.costs, self.counts))

    @property
    def relative(self) -> float:
        """The area by the fraction of used edges that are kept."""
        return self.absolute / self.edges


class MlpEdges:
    """The edges of an MLP on some tokens; dictionaries of one hookpoint each, in the model's own units."""

    def __init__(
        self, mlp: MlpWeights, of_input: Crosscoder, of_output: Crosscoder, n_BD: Float[Tensor, "B D"]
    ) -> None:
        self._mlp, self._of_input, self._of_output = mlp, of_input, of_output
        self.inputs = of_input.encode_sparse(n_BD)
        self.outputs = of_output.encode_sparse(mlp(of_input.decode(self.inputs)[:, 0]))

    @cached_property
    def attribution_LM(self) -> Float[Tensor, "L M"]:
        """Of each edge, over all tokens; 0 where its latents are never active together."""
        L, M = self.inputs.n_latents, self.outputs.n_latents
        total = torch.zeros(L * M, dtype=self.inputs.values.dtype)
        for rows in self._parts():
            inputs, outputs = _rows(self.inputs, rows), _rows(self.outputs, rows)
            found_BKJ = self._attributions(inputs, outputs)
            total.index_add_(0, self._edges(inputs, outputs).flatten(), found_BKJ.square().flatten())
        return total.sqrt().view(L, M)

    def _attributions(self, inputs: Codes, outputs: Codes) -> Float[Tensor, "B K J"]:
        """Integrated gradients at each token."""
        way = [(step + 0.5) / _STEPS for step in range(_STEPS)]
        ways = [slopes(self._mlp, self._decoded(inputs, part)) for part in way]
        mean = [
            (by_path[0][0], torch.stack([slope_BN for _, slope_BN in by_path]).mean(0))
            for by_path in zip(*ways, strict=True)
        ]
        directions_LD, encoder_DM = self._of_input.W_dec[:, 0], self._of_output.W_enc[0]
        J_BKJ = jacobian(self._mlp, mean, directions_LD, encoder_DM, inputs, outputs)
        return J_BKJ * inputs.values[..., None]

    @cached_property
    def rank_LM(self) -> Int[Tensor, "L M"]:
        """The place of each edge by attribution, the largest first; those never used come last."""
        order = self.attribution_LM.flatten().argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        return rank.view(self.attribution_LM.shape)

    def rebuilt(self, kept: int) -> Float[Tensor, "B D"]:
        """The MLP's output as the output's dictionary decodes it, with that many edges."""
        parts = [(_rows(self.inputs, rows), _rows(self.outputs, rows)) for rows in self._parts()]
        ranks = [self.rank_LM.flatten()[self._edges(*part)] for part in parts]
        rebuilt = [self._rebuilt(*part, rank < kept) for part, rank in zip(parts, ranks, strict=True)]
        return torch.cat(rebuilt)

    def rebuilt_from_few(self, kept: int) -> Float[Tensor, "B D"]:
        """The same, each output latent from its `kept` edges of largest attribution at that very token."""
        rebuilt: list[Tensor] = []
        for rows in self._parts():
            inputs, outputs = _rows(self.inputs, rows), _rows(self.outputs, rows)
            size_BKJ = self._attributions(inputs, outputs).abs()
            largest = size_BKJ.topk(min(kept, size_BKJ.shape[1]), dim=1).indices
            kept_BKJ = torch.zeros_like(size_BKJ, dtype=torch.bool).scatter(1, largest, True)
            rebuilt.append(self._rebuilt(inputs, outputs, kept_BKJ))
        return torch.cat(rebuilt)

    def _rebuilt(
        self, inputs: Codes, outputs: Codes, kept_BKJ: Bool[Tensor, "B K J"]
    ) -> Float[Tensor, "B D"]:
        mlp, of_output = self._mlp, self._of_output
        kept_BJK = kept_BKJ.transpose(1, 2)
        directions_LD, b_D = self._of_input.W_dec[:, 0], self._of_input.b_dec[0]

        def pre_activations(W_DN: Tensor, b_N: Tensor) -> Float[Tensor, "B J N"]:
            p_BKN = F.embedding(inputs.latents, directions_LD @ W_DN) * inputs.values[..., None]
            return kept_BJK.to(p_BKN) @ p_BKN + b_D @ W_DN + b_N

        active_BJN = pre_activations(mlp.W_in, mlp.b_in)
        if mlp.W_gate is None or mlp.b_gate is None:
            active_BJN = mlp.activation(active_BJN)
        else:
            active_BJN = mlp.activation(pre_activations(mlp.W_gate, mlp.b_gate)) * active_BJN
        y_RD = (active_BJN @ mlp.W_out + mlp.b_out).flatten(0, 1)  # a row for each token and output latent
        codes = of_output.encode_sparse(y_RD)
        is_own_RK = codes.latents == outputs.latents.reshape(-1, 1)
        own_BJ = (codes.values * is_own_RK).sum(1).view(outputs.values.shape) * (outputs.values > 0)
        return of_output.decode(Codes(outputs.latents, own_BJ, outputs.n_latents))[:, 0]

    def _decoded(self, codes: Codes, part: float) -> Float[Tensor, "B D"]:
        return self._of_input.decode(Codes(codes.latents, part * codes.values, codes.n_latents))[:, 0]

    def _edges(self, inputs: Codes, outputs: Codes) -> Int[Tensor, "B K J"]:
        return inputs.latents[..., None] * outputs.n_latents + outputs.latents[:, None]

    def _parts(self) -> Sequence[slice]:
        starts = range(0, len(self.inputs.values), _TOKENS)
        return [slice(start, start + _TOKENS) for start in starts]


@torch.no_grad()
def edge_score(
    edges: MlpEdges, divergence: Callable[[Float[Tensor, "B D"], Float[Tensor, "B D"]], float]
) -> EdgeScore:
    """The score of an MLP's edges; divergence: from one output in the place of the MLP's own, of another."""
    used = int((edges.attribution_LM > 0).sum())
    between = np.geomspace(1, max(used, 1), _POINTS).round().astype(int).tolist()
    counts = sorted({0, *between, used})
    whole_BD = edges.rebuilt(used)
    costs = tuple(divergence(whole_BD, edges.rebuilt(count)) for count in counts)
    return EdgeScore(used, tuple(counts), costs)


def _rows(codes: Codes, rows: slice) -> Codes:
    return codes.slice(rows.start, rows.stop)
