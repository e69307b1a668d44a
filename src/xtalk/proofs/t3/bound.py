"""The margin bound of theorem T3 (docs/proofs/theory.md), differentiable, for proof-aware training.

A cell is a set of sequences with one answer: some copies of an anchor column, and free positions that any
column of a mask may fill. Around the cell's centre h0, a free position that moves a neuron by g is charged,
of m free positions, at most (phi(h0 + m g) - phi(h0)) / m + kappa m g^2 / 2 and at least phi'(h0) g - kappa m
g^2 / 2 (phi'' >= -kappa), and its distance from its column's middle at the neuron's slope. The checker proves
the same with local constants; this twin only guides the search.
"""

from dataclasses import dataclass
from math import comb

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xtalk.proofs.t3.columns import Columns
from xtalk.proofs.t3.sum_network import SumNetwork
from xtalk.proofs.t3.tasks import ProductTask

_CONCAVITY = {"relu": 0.0, "gelu": 0.1085}  # kappa: GELU's second derivative is least at |h| = 2, -0.10798


@dataclass(frozen=True)
class Cells:
    """X cells: the answer, the copies of each column that are fixed, and S groups of free positions.

    `copies_XS` positions may each take any column that `free_XSK` allows (a group of none is empty).
    `share_X` is the cell's share of all sequences.
    """

    answer_X: Int[Tensor, "X"]
    fixed_XK: Float[Tensor, "X K"]
    free_XSK: Bool[Tensor, "X S K"]
    copies_XS: Float[Tensor, "X S"]
    share_X: Float[Tensor, "X"]

    def __len__(self) -> int:
        return len(self.answer_X)

    def choose(self, rows: Int[Tensor, "R"]) -> "Cells":
        """Some of the cells."""
        parts = (self.answer_X, self.fixed_XK, self.free_XSK, self.copies_XS, self.share_X)
        return Cells(*(part[rows] for part in parts))


def compact_cells(task: ProductTask, columns: Columns) -> Cells:
    """The cells of a task with an anchor (not modular addition) when all free positions are one group per
    key.
    """
    class_K = [task.classes[tokens[0]] for tokens in columns.members_KT.tolist()]
    rows = _lookup_cells(task, columns, class_K) if task.name == "lookup" else _anchored(task, class_K)
    answers, fixed, free, copies = zip(*rows, strict=True)
    K = len(columns)
    fixed_XK = torch.zeros(len(rows), K)
    for row, counts in enumerate(fixed):
        for column, number in counts.items():
            fixed_XK[row, column] = number
    free_XSK = torch.zeros(len(rows), len(free[0]), K, dtype=torch.bool)
    for row, groups in enumerate(free):
        for group, allowed in enumerate(groups):
            free_XSK[row, group, allowed] = True
    copies_XS = torch.tensor(copies, dtype=torch.float32)
    share_X = _shares(task, columns, fixed_XK, free_XSK, copies_XS)
    return Cells(torch.tensor(answers), fixed_XK, free_XSK, copies_XS, share_X)


def _shares(
    task: ProductTask,
    columns: Columns,
    fixed_XK: Float[Tensor, "X K"],
    free_XSK: Bool[Tensor, "X S K"],
    copies_XS: Float[Tensor, "X S"],
) -> Float[Tensor, "X"]:
    """The share of each cell: its fillings, in all orders that its fixed positions can stand in."""
    sizes_K = torch.tensor(columns.of_token).bincount().double()
    ways_X = (sizes_K**fixed_XK).prod(1) * (free_XSK.double() @ sizes_K).pow(copies_XS).prod(1)
    if task.name != "lookup":
        orders = [comb(task.n, int(copies)) for copies in fixed_XK.sum(1).tolist()]
        ways_X = ways_X * torch.tensor(orders)
    return (ways_X / float(task.total)).float()


_Row = tuple[int, dict[int, int], list[list[int]], list[int]]


def _anchored(task: ProductTask, class_K: list[int]) -> list[_Row]:
    sign = -1 if task.name == "min" else 1
    order = [(sign * c, column) for column, c in enumerate(class_K)]
    rows: list[_Row] = []
    for anchor, answer in enumerate(class_K):
        if task.name == "majority":
            free, fewest = [k for k, c in enumerate(class_K) if c != answer], task.n // 2 + 1
        else:
            free, fewest = [k for k in range(len(order)) if order[k] < order[anchor]], 1
        rows += [
            (answer, {anchor: copies}, [free], [task.n - copies])
            for copies in range(fewest, task.n + 1)
            if free or copies == task.n
        ]
    return rows


def _lookup_cells(task: ProductTask, columns: Columns, class_K: list[int]) -> list[_Row]:
    keys, values = task.n - 1, task.values_per_key
    by_key = [sorted(set(columns.of_token[keys + k * values : keys + (k + 1) * values])) for k in range(keys)]
    return [
        (
            class_K[anchor],
            {columns.of_token[key]: 1, anchor: 1},
            [own for other, own in enumerate(by_key) if other != key] or [[]],
            [1] * (keys - 1) or [0],
        )
        for key in range(keys)
        for anchor in by_key[key]
    ]


def cell_margins(network: SumNetwork, columns: Columns, cells: Cells) -> Float[Tensor, "X C"]:
    """A lower bound, up to rounding, on the margin over each answer on every sequence of each cell.

    Infinite over the right answer itself. Cost: X S K N C.
    """
    phi, kappa = network.activation, _CONCAVITY[network.sizes.activation]
    middle_KN, half_KN = _boxes(network.embed @ network.w_in, columns)
    sizes_XS = cells.free_XSK.sum(2)
    fixed_XK, copies_XS = cells.fixed_XK.to(middle_KN), cells.copies_XS.to(middle_KN)
    share_XSK = cells.free_XSK.to(middle_KN) / sizes_XS.clamp(min=1)[:, :, None]
    centre_XSN = share_XSK @ middle_KN
    h_XN = network.b_in + fixed_XK @ middle_KN + (copies_XS[:, :, None] * centre_XSN).sum(1)
    m_X = (copies_XS * (sizes_XS > 1)).sum(1).clamp(min=1)[:, None, None, None]
    g_XSKN = (middle_KN - centre_XSN[:, :, None]) * cells.free_XSK[..., None]
    here_XN = phi(h_XN)
    here, h = here_XN[:, None, None], h_XN[:, None, None]
    bend = kappa / 2 * m_X * g_XSKN.square() * (m_X > 1)  # one free position: exact
    high = (phi(h + m_X * g_XSKN) - here) / m_X + bend
    low = torch.where(m_X > 1, _slope(network, h) * g_XSKN - bend, high)
    box_KN = half_KN * phi.lipschitz

    out_CN = (network.w_out @ network.unembed).T
    ahead_XCN = out_CN[cells.answer_X][:, None] - out_CN
    direct_KCC = _direct(network, columns)
    direct_XKC = direct_KCC[:, cells.answer_X].transpose(0, 1)
    score_XSKC = (
        torch.einsum("xskn,xcn->xskc", (low + high) / 2, ahead_XCN)
        - torch.einsum("xskn,xcn->xskc", (high - low) / 2 + box_KN, ahead_XCN.abs())
        + direct_XKC[:, None]
    )
    allowed = cells.free_XSK[..., None] | (sizes_XS == 0)[:, :, None, None]
    worst_XSC = score_XSKC.masked_fill(~allowed, torch.inf).amin(2)
    fixed_XKC = direct_XKC - torch.einsum("kn,xcn->xkc", box_KN, ahead_XCN.abs())
    logit_C = network.b_out @ network.unembed + network.b_unembed
    margin_XC = (
        torch.einsum("xcn,xn->xc", ahead_XCN, here_XN)
        + (logit_C[cells.answer_X][:, None] - logit_C)
        + torch.einsum("xk,xkc->xc", fixed_XK, fixed_XKC)
        + (worst_XSC * copies_XS[..., None]).sum(1)
    )
    return margin_XC.scatter(1, cells.answer_X[:, None], torch.inf)


def bound_loss(margin_XC: Float[Tensor, "X C"]) -> Float[Tensor, ""]:
    """The cross-entropy that the margins bound from above, mean over cells."""
    return torch.log1p(torch.exp(-margin_XC.clamp(min=-50)).sum(1)).mean()


def _boxes(
    values_VN: Float[Tensor, "V N"], columns: Columns
) -> tuple[Float[Tensor, "K N"], Float[Tensor, "K N"]]:
    """Middle and half-width of the box of each column."""
    members_KTN = values_VN[columns.members_KT]
    low_KN, high_KN = members_KTN.amin(1), members_KTN.amax(1)
    return (low_KN + high_KN) / 2, (high_KN - low_KN) / 2


def _direct(network: SumNetwork, columns: Columns) -> Float[Tensor, "K C C"]:
    """The least, over a column's tokens, that the direct path puts one answer's logit ahead of another's."""
    C = network.sizes.answers
    if not network.sizes.residual:
        return network.embed.new_zeros(len(columns), C, C)
    members_KTC = (network.embed @ network.unembed)[columns.members_KT]
    return (members_KTC[..., :, None] - members_KTC[..., None, :]).amin(1)


def _slope(network: SumNetwork, h: Float[Tensor, "*X"]) -> Float[Tensor, "*X"]:
    """phi'(h)."""
    if network.sizes.activation == "relu":
        return (h > 0).to(h.dtype)
    normal = torch.distributions.Normal(0.0, 1.0)
    return normal.cdf(h) + h * normal.log_prob(h).exp()
