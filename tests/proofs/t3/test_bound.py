import pytest
import torch
from proofs.small_networks import ANCHORED, CLASS_COLUMNS, LOOKUP, MAX, all_sequences, random_network
from reference.product_bound_loops import cell_margin

from xtalk.proofs.t3.bound import bound_loss, cell_margins, compact_cells
from xtalk.proofs.t3.columns import Columns

CASES = [(task, activation) for task in ANCHORED for activation in ("relu", "gelu")]


def cells_of(task):
    return compact_cells(task, CLASS_COLUMNS[task])


def cell_of_each(task, cells):
    """The cell that every sequence lies in, found by its columns; each must lie in exactly one."""
    columns = torch.tensor(CLASS_COLUMNS[task].of_token)
    found = []
    for sequence in all_sequences(task).tolist():
        counts = torch.bincount(columns[sequence], minlength=cells.fixed_XK.shape[1]).float()
        rest_XK = counts - cells.fixed_XK
        total_X = cells.copies_XS.sum(1)
        allowed_XK = cells.free_XSK.any(1)
        fits = (rest_XK >= 0).all(1) & ((rest_XK == 0) | allowed_XK).all(1) & (rest_XK.sum(1) == total_X)
        found.append(fits.nonzero()[:, 0].tolist())
    assert all(len(rows) == 1 for rows in found)
    return torch.tensor(found)[:, 0]


@pytest.mark.parametrize(("task", "activation"), CASES, ids=str)
@pytest.mark.parametrize("residual", [True, False])
def test_no_sequence_has_a_smaller_margin_than_its_cell(task, activation, residual):
    cells = cells_of(task)
    cell_B = cell_of_each(task, cells)
    sequences = all_sequences(task)
    answers = task.answer(sequences)
    assert (cells.answer_X[cell_B] == answers).all()
    counted_X = torch.bincount(cell_B, minlength=len(cells))
    torch.testing.assert_close(cells.share_X, counted_X / len(sequences))
    slack = []
    for seed in range(5):
        network = random_network(task, activation, residual, seed)
        logits = network(sequences)
        true = (logits.gather(1, answers[:, None]) - logits).scatter(1, answers[:, None], torch.inf)
        bound = cell_margins(network, CLASS_COLUMNS[task], cells)[cell_B]
        finite = true.isfinite()
        slack.append((true - bound)[finite])
    slack = torch.cat(slack)
    assert slack.min() > -1e-9
    assert slack.min() < 1  # and is not far below for the worst sequence


def test_with_one_free_position_and_single_tokens_the_bound_is_the_least_margin():
    network = random_network(LOOKUP, "gelu")
    columns = Columns(tuple(range(LOOKUP.vocabulary)))
    cells = compact_cells(LOOKUP, columns)
    margins = cell_margins(network, columns, cells)
    sequences = all_sequences(LOOKUP)
    answers = LOOKUP.answer(sequences)
    logits = network(sequences)
    true = (logits.gather(1, answers[:, None]) - logits).scatter(1, answers[:, None], torch.inf)
    for row in range(len(cells)):
        query, anchor = cells.fixed_XK[row].nonzero()[:, 0].tolist()
        own = (sequences[:, 0] == query) & (sequences == anchor).any(1)
        torch.testing.assert_close(margins[row], true[own].amin(0))


@pytest.mark.parametrize(("task", "activation"), CASES, ids=str)
def test_agrees_with_loops_in_value_and_gradient(task, activation):
    columns, cells = CLASS_COLUMNS[task], cells_of(task)
    network = random_network(task, activation, seed=3)
    rows = torch.arange(0, len(cells), 3)
    fast = cell_margins(network, columns, cells.choose(rows))
    slow = torch.full_like(fast, torch.inf)
    for place, row in enumerate(rows.tolist()):
        fixed = {k: int(count) for k, count in enumerate(cells.fixed_XK[row].tolist()) if count}
        free = [
            (cells.free_XSK[row, group].nonzero()[:, 0].tolist(), int(cells.copies_XS[row, group]))
            for group in range(cells.free_XSK.shape[1])
        ]
        for wrong in range(task.answers):
            if wrong != cells.answer_X[row]:
                slow[place, wrong] = cell_margin(
                    network, columns, fixed, free, int(cells.answer_X[row]), wrong
                )
    torch.testing.assert_close(fast, slow)
    weights = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = list(network.parameters())
    gradients = [
        torch.autograd.grad((value * weights)[value.isfinite()].sum(), parameters, retain_graph=True)
        for value in (fast, slow)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_loss_bounds_cross_entropy_from_above():
    network = random_network(MAX)
    cells = cells_of(MAX)
    loss = bound_loss(cell_margins(network, CLASS_COLUMNS[MAX], cells))
    sequences = all_sequences(MAX)
    errors = torch.nn.functional.cross_entropy(network(sequences), MAX.answer(sequences), reduction="none")
    cell_B = cell_of_each(MAX, cells)
    worst_X = torch.zeros(len(cells), dtype=torch.float64).index_reduce(0, cell_B, errors, "amax")
    assert loss >= worst_X.mean()
