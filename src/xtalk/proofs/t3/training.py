"""Training the networks of the product-space theorem: for the task, or for what can be proven too."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from xtalk.proofs.t3.bound import Cells, bound_loss, cell_margins, compact_cells
from xtalk.proofs.t3.columns import Columns
from xtalk.proofs.t3.sum_network import SumNetwork
from xtalk.proofs.t3.tasks import ProductTask

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class NetworkTraining:
    """AdamW on sequences drawn anew at every step; lr is warmed up over 100 steps and decayed over the last
    half, or, if not `scheduled`, constant.

    bound: weight of the bound's loss on `cells` random cells per step. direct: weight of the mean squared
    logit of the direct path, less its mean: what it takes away from the logits, the MLP has to supply.
    """

    steps: int
    batch: int = 256
    lr: float = 5e-3
    weight_decay: float = 0.1
    bound: float = 0.0
    direct: float = 0.0
    cells: int = 32
    scheduled: bool = True
    seed: int = 0


def train_network(
    network: SumNetwork,
    task: ProductTask,
    training: NetworkTraining,
    columns: Columns | None = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Train a network in place; `columns`, of a crosscoder's dictionary, are needed for the bound."""
    cells = compact_cells(task, columns) if training.bound and columns else None

    def further(generator: torch.Generator) -> Float[Tensor, ""]:
        loss = torch.zeros(())
        if training.direct:
            loss = loss + training.direct * _direct_logits(network)
        if cells is not None and columns is not None:
            loss = loss + training.bound * _bound(network, columns, cells, training.cells, generator)
        return loss

    learn_task(network, task, training, further, progress)


def learn_task(
    network: nn.Module,
    task: ProductTask,
    training: NetworkTraining,
    further: Callable[[torch.Generator], Float[Tensor, ""]] = lambda generator: torch.zeros(()),
    progress: Progress = lambda done, total: None,
) -> None:
    """Train any network from tokens to logits in place: cross-entropy, and `further` terms of the loss."""
    generator = torch.Generator().manual_seed(training.seed)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True
    )
    for step in range(training.steps):
        if training.scheduled:
            rate = min(1.0, (step + 1) / 100, (training.steps - step) / (0.5 * training.steps))
            optimiser.param_groups[0]["lr"] = training.lr * rate
        tokens_Bn = task.sample(training.batch, generator)
        loss = F.cross_entropy(network(tokens_Bn), task.answer(tokens_Bn))
        loss = loss + further(generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress(step + 1, training.steps)


def _bound(
    network: SumNetwork, columns: Columns, cells: Cells, count: int, generator: torch.Generator
) -> Float[Tensor, ""]:
    chance_X = cells.share_X + 1 / len(cells)  # half by size, so that what counts most is seen most
    rows = torch.multinomial(chance_X, min(count, len(cells)), generator=generator)
    return bound_loss(cell_margins(network, columns, cells.choose(rows)))


def _direct_logits(network: SumNetwork) -> Float[Tensor, ""]:
    """Mean square of the logits that a token adds past the MLP, each token's mean logit taken off."""
    direct_VC = network.embed @ network.unembed
    return (direct_VC - direct_VC.mean(1, keepdim=True)).square().mean()
