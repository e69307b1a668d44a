"""Charts: the margins that choose them are the checker's, and their certificates never exceed the truth."""

import pytest
import torch
from flint import ctx
from proofs.small_finite import rings, unchanged, untrained
from xtalk_check.charts import from_charts
from xtalk_check.finite import Network
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.work import PRECISION, Work

from xtalk.errors import XtalkError
from xtalk.proofs.t1.certificate import BITS, specification
from xtalk.proofs.t1.charts import Charts, certify_by_charts, chart_margins, charts_of
from xtalk.proofs.t1.training import FiniteTraining, train_finite

INPUTS, LABELS = rings(60, 5)


def test_margins_are_the_checkers():
    """Up to the pieces in which the checker knows phi'', which widen every bend a little."""
    network = untrained()[0].requires_grad_(False)
    inputs_TI, labels_T = rings(40, 1)
    charts = Charts(
        torch.tensor([0, 1, 2, 1]),
        torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double() / 4,
        torch.tensor([1.5, 0.75, 1.0, 1.25]).double(),
    )
    rows = torch.cat([charts.radii_M[:, None], charts.points_MD], 1) * 2.0**BITS
    table = torch.cat([charts.labels_M[:, None], rows.round().long()], 1).tolist()
    spec, weights = specification(network, inputs_TI, labels_T)
    found_TM = chart_margins(network, charts, network.embedded(inputs_TI), labels_T)
    seen = 0
    for m in range(4):
        with ctx.workprec(PRECISION):
            checked = Network.load(Fields(spec["task"], "task"), parse_weights(weights), Work())
            advice = {"bits": BITS, "charts": table, "codes": [m] * 40}
            bounds = from_charts(checked, Fields(advice, "advice"), Work())
        for bound, label, found in zip(bounds, labels_T.tolist(), found_TM[:, m].tolist(), strict=True):
            least = min(float(b.lower()) for wrong, b in enumerate(bound) if wrong != label)
            if found == -torch.inf:
                assert least == -torch.inf
                continue
            seen += 1
            assert least - 1e-4 <= found <= least + 0.05 * abs(least) + 0.05
    assert seen > 10


def test_certificates_claim_no_more_than_is_true_and_more_charts_prove_more():
    network, crosscoder = untrained(1)
    train_finite(network, crosscoder, INPUTS, LABELS, FiniteTraining(steps=40, bound=0.0), unchanged)
    network.requires_grad_(False)
    right = int((network(INPUTS).argmax(1) == LABELS).sum())
    certified = []
    for per_label in (1, 3):
        charts = charts_of(network, INPUTS, LABELS, per_label)
        made = certify_by_charts(network, charts, INPUTS, LABELS)
        certified.append(made.claim["certified"])
        assert made.verdict.verdict == "accepted"
    assert 0 < certified[0] < certified[1] <= right


def test_a_label_needs_as_many_inputs_as_charts():
    with pytest.raises(XtalkError, match="a label has 3 inputs"):
        charts_of(untrained()[0], INPUTS, LABELS, 4)


def test_the_same_seed_makes_the_same_charts():
    network = untrained(1)[0].requires_grad_(False)
    one, two = (charts_of(network, INPUTS, LABELS, 2, seed=3) for _ in range(2))
    assert torch.equal(one.points_MD, two.points_MD) and torch.equal(one.radii_M, two.radii_M)
