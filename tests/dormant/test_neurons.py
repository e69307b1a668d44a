"""Dormant neurons against a hand forward pass, triggers, and drivers against loops."""

import numpy as np
import pytest
import torch
from reference.tiny_models import BLOCKS, D_MLP, tiny_model, tiny_tokens

from xtalk.dormant import drivers, find_dormant, neuron_rates, with_trigger
from xtalk.dormant import neurons as module
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint

TOKENS = tiny_tokens(6, 11).numpy()


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_rates_are_those_of_a_loop_over_tokens(kind: str, monkeypatch):
    monkeypatch.setattr(module, "ON", 0.1)
    model, marked = tiny_model(kind), np.random.default_rng(0).random(TOKENS.shape) < 0.7
    rates = neuron_rates(model, TOKENS, marked)
    assert rates.tokens == marked.sum()
    for block in range(BLOCKS):
        mlp = model.mlp_weights(block)
        n = model.capture(torch.from_numpy(TOKENS), [Hookpoint(block, "ln2")])[:, :, 0][
            torch.from_numpy(marked)
        ]
        scale = torch.stack([mlp(x).norm() for x in n]).mean()
        assert rates.scale_b[block] == pytest.approx(float(scale), rel=1e-4)
        for k in range(0, D_MLP, 13):
            only = torch.zeros_like(mlp.W_out)
            only[k] = mlp.W_out[k]
            alone = type(mlp)(mlp.W_in, mlp.b_in, only, torch.zeros_like(mlp.b_out), mlp.activation,
                              mlp.W_gate, mlp.b_gate)  # fmt: skip
            on = [float(alone(x).norm()) > 0.1 * float(scale) for x in n]
            assert rates.on_bN[block, k] == pytest.approx(np.mean(on)), (block, k)


def test_dormant_neurons_are_off_on_the_reference_and_woken_ones_on_elsewhere():
    def rates(on):
        return module.NeuronRates(np.array([on]), np.ones(1), 1000)

    found = find_dormant(rates([0.0, 0.01, 0.02, 0.0]), rates([0.04, 0.05, 0.9, 0.9]))
    assert found.dormant_bN.tolist() == [[True, True, False, True]]
    assert found.woken_bN.tolist() == [[False, True, False, True]]


def test_a_trigger_is_put_in_and_the_text_goes_on():
    tokens = np.arange(5 * 40).reshape(5, 40)
    triggered, marked = with_trigger(tokens, [901, 902, 903], seed=0)
    assert triggered.shape == tokens.shape
    starts = []
    for row in range(5):
        [at] = np.flatnonzero(triggered[row] == 901)
        assert triggered[row, at : at + 3].tolist() == [901, 902, 903]
        rest = np.delete(triggered[row], [at, at + 1, at + 2])
        assert rest.tolist() == tokens[row, :37].tolist()
        assert np.flatnonzero(marked[row]).tolist() == list(range(at + 2, at + 3 + module.AFTER))
        starts.append(at)
    assert len(set(starts)) > 1
    with pytest.raises(XtalkError, match="a trigger of 25 tokens in sequences of 40"):
        with_trigger(tokens, list(range(25)), seed=0)


def test_no_marked_token_is_refused():
    with pytest.raises(XtalkError, match="no token"):
        neuron_rates(tiny_model("gpt_neo"), TOKENS, np.zeros(TOKENS.shape, dtype=bool))


def test_drivers_raise_most():
    rng = np.random.default_rng(0)
    mean_L, M_LN = rng.random(5), rng.normal(size=(5, 7))
    M_LN[:, 3] = -1.0
    found = drivers(mean_L, M_LN)
    for k in range(7):
        raised = [mean_L[i] * M_LN[i, k] for i in range(5)]
        assert found[k] == (int(np.argmax(raised)) if max(raised) > 0 else -1)
    assert found[3] == -1
