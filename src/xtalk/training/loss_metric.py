"""Errors of an MLP's output in units of what they cost the model's loss.

Penalties that rebuild an MLP's output count its squared error. Most directions of the output hardly matter
to what the model predicts, a few matter much; the Fisher information says which: to second order an error e
at one token costs e^T F e / 2, with F the mean of g g^T over gradients g of the loss with respect to the
output, labels drawn from the model itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from xtalk.data import ALL, Counted, TokenSequences
from xtalk.data.tokens import UNLABELLED
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.models.mlp import MlpWeights

PLAIN = 0.3
"""Weight of the plain squared error beside the Fisher information, which a sample measures only roughly."""
_NOTHING = 1e-10  # of the output's mean square, which rounding leaves of a constant


@dataclass(frozen=True)
class LossMetric:
    """The metric of MLP outputs in which squared length is cost in the loss, R R^T = metric.

    factors: R by the MLP's input, an ln2 hookpoint.
    """

    factors: Mapping[Hookpoint, Float[Tensor, "D D"]]

    def turned(self, point: Hookpoint, weights: MlpWeights) -> MlpWeights:
        """The MLP with its output in the metric: W_out becomes W_out R and b_out becomes b_out R.

        R counts what a norm after the MLP makes of the output.
        """
        R_DD = self.factors[point].to(weights.W_out.device)
        return replace(weights, W_out=weights.W_out @ R_DD, b_out=weights.b_out @ R_DD, post_norm=None)


def measure_loss_metric(
    model: LanguageModel,
    sequences: TokenSequences,
    tokens: int,
    blocks: Sequence[int],
    seed: int,
    counted: Counted = ALL,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, Float[Tensor, "D D"]]:
    """The factor R of some blocks, from the first `tokens` tokens; R R^T = PLAIN I / v + (1 - PLAIN) F / w.

    v and w are the output's variance and its mean squared deviation in F, so that either part counts the MLP
    replaced by its mean output as 1; R is I for an output that does not vary. Outputs and losses are those of
    tokens that count. Costs a forward and a backward pass of the blocks above, for each block. `progress`
    hears of blocks done and their number. Errors: XtalkError for logits that are not finite.
    """
    generator = torch.Generator(model.device).manual_seed(seed)
    rows = torch.from_numpy(sequences.tokens[: -(-tokens // sequences.length)]).to(model.device)
    factors: dict[int, Tensor] = {}
    for done, block in enumerate(blocks, start=1):
        read = (Hookpoint(block, "resid_mid"), Hookpoint(block, "ln2"))
        weights = model.mlp_weights(block).to(model.device)
        outputs: list[Tensor] = []
        gradients: list[Tensor] = []
        for some in rows.split(model.sequences_at_once(sequences.length)):
            mid_BSD, n_BSD = model.capture(some, read).float().unbind(2)
            output_BSD = weights(n_BSD).requires_grad_()
            post_BSD = mid_BSD + model.added(block, output_BSD)
            logits = model.continue_from(block, post_BSD, some).float().flatten(0, 1)
            if not logits.isfinite().all():
                raise XtalkError(
                    f"the model's logits are not finite on the text (from block {block} on); expected finite "
                    "numbers; check its weights, or run it in float32 (harvest.dtype)"
                )
            labels = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
            counted_B = torch.from_numpy(counted.mask(some.cpu().numpy())).to(some.device).flatten()
            labels = labels.masked_fill(~counted_B, UNLABELLED)
            loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=UNLABELLED)
            gradients.append(torch.autograd.grad(loss, output_BSD)[0].flatten(0, 1)[counted_B])
            outputs.append(output_BSD.detach().flatten(0, 1)[counted_B])
        factors[block] = _factor(torch.cat(outputs).double(), torch.cat(gradients).double())
        progress(done, len(blocks))
    return factors


def _factor(output_BD: Float[Tensor, "B D"], gradient_BD: Float[Tensor, "B D"]) -> Float[Tensor, "D D"]:
    deviation_BD = output_BD - output_BD.mean(0)
    variance = deviation_BD.square().sum(1).mean()
    fisher_DD = gradient_BD.T @ gradient_BD / len(gradient_BD)
    cost = ((deviation_BD @ fisher_DD) * deviation_BD).sum(1).mean()
    identity_DD = torch.eye(len(fisher_DD), dtype=fisher_DD.dtype, device=fisher_DD.device)
    if not (variance > _NOTHING * output_BD.square().sum(1).mean() and cost > 0):
        return identity_DD.float()
    metric_DD = PLAIN * identity_DD / variance + (1 - PLAIN) * fisher_DD / cost
    return torch.linalg.cholesky(metric_DD).float()
