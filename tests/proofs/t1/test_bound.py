"""The differentiable bound of T1 is the checker's, and its gradient is right."""

import torch
from flint import ctx
from proofs.small_finite import rings, untrained
from xtalk_check.finite import Network
from xtalk_check.reading import Fields, parse_weights
from xtalk_check.t1 import from_tables
from xtalk_check.work import PRECISION, Work

from xtalk.codes import Codes
from xtalk.proofs.t1.bound import margin_loss, table_margins
from xtalk.proofs.t1.certificate import explanation, specification


def test_the_bound_is_the_checkers():
    network, crosscoder = untrained()
    inputs_TI, labels_T = rings(7, 1)
    spec, weights = specification(network, inputs_TI, labels_T)
    advice = explanation(network, crosscoder, inputs_TI) | {"steps": [1] * 8}
    unit = 2.0 ** -advice["bits"]
    with ctx.workprec(PRECISION):
        checked = Network.load(Fields(spec["task"], "task"), parse_weights(weights), Work())
        expected = from_tables(checked, Fields(advice, "advice"), Work())
    network, codes = network.double(), advice["codes"]
    for t, code in enumerate(codes):
        latents, strengths = torch.tensor(code[::2])[None], unit * torch.tensor(code[1::2]).double()[None]
        found = table_margins(
            network,
            unit * torch.tensor(advice["base"]).double(),
            unit * torch.tensor(advice["features"]).double(),
            Codes(latents, strengths, 8),
            network.embedded(inputs_TI[t : t + 1].double()),
            labels_T[t : t + 1],
        )
        charge = -found[0, labels_T[t]].item()
        for margin, ball in zip(found[0].tolist(), expected[t], strict=True):
            # The checker encloses the supremum of phi'' a little less tightly.
            assert -1e-4 < margin - float(ball.mid()) < 1e-4 + 5e-3 * charge


def test_the_bounds_gradient_is_that_of_finite_differences():
    network, crosscoder = untrained(2)
    network, crosscoder = network.double(), crosscoder.double()
    inputs_TI, labels_T = rings(5, 3)
    x_BD = network.embedded(inputs_TI.double()).detach().requires_grad_()
    codes = Codes(torch.tensor([[0, 5, 3]] * 5), torch.rand(5, 3).double().requires_grad_(), 8)
    features_LD = crosscoder.W_dec[:, 0].detach().requires_grad_()
    base_D = torch.randn(4).double().requires_grad_()

    def loss(base_D, features_LD, values, x_BD, w_in, b_in, w_out):
        network._parameters |= {"w_in": w_in, "b_in": b_in, "w_out": w_out}
        margins = table_margins(network, base_D, features_LD, Codes(codes.latents, values, 8), x_BD, labels_T)
        return margin_loss(margins, labels_T, 1.5)

    weights = [getattr(network, name).detach().clone().requires_grad_() for name in ("w_in", "b_in", "w_out")]
    assert torch.autograd.gradcheck(loss, (base_D, features_LD, codes.values, x_BD, *weights), fast_mode=True)


def test_margin_loss_is_cross_entropy_when_nothing_is_charged():
    logits_BC, labels_B = torch.randn(6, 4), torch.tensor([0, 3, 1, 2, 2, 0])
    margins_BC = logits_BC.gather(1, labels_B[:, None]) - logits_BC
    charged_BC = margins_BC - 0.5  # the label's own entry is a charge, and does not count
    expected = torch.nn.functional.cross_entropy(logits_BC, labels_B)
    assert torch.allclose(margin_loss(margins_BC, labels_B, 1.0), expected)
    assert margin_loss(charged_BC, labels_B, 1.0) > expected
