"""Out of memory means smaller batches, said aloud."""

import logging

import pytest
import torch
from reference.tiny_models import BLOCKS, D_MODEL, tiny_model, tiny_tokens

from xtalk.errors import XtalkError
from xtalk.models.devices import in_halves_if_full
from xtalk.models.hookpoints import Hookpoint


def test_a_batch_that_does_not_fit_is_halved_until_it_does(caplog):
    sizes: list[int] = []

    def run(x_BS: torch.Tensor, y_BS: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x_BS))
        if len(x_BS) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x_BS + y_BS

    x_BS, y_BS = torch.arange(14).view(7, 2), torch.ones(7, 2, dtype=torch.int64)
    with caplog.at_level(logging.WARNING, "xtalk"):
        assert torch.equal(in_halves_if_full(run, x_BS, y_BS), x_BS + y_BS)
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    assert "out of memory with 7 sequences of 2 tokens: going on with half" in caplog.text


def test_one_sequence_that_does_not_fit_is_one_line():
    def run(x_BS: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory:\nyou tried 9 bytes")

    with pytest.raises(XtalkError, match=r"one sequence of 5 tokens \(.*can't allocate.*shorter sequence_le"):
        in_halves_if_full(run, torch.zeros(2, 5))


def test_other_errors_are_their_own():
    def run(x_BS: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        in_halves_if_full(run, torch.zeros(2, 5))


def test_a_model_gives_the_same_in_halves(monkeypatch):
    model, tokens = tiny_model("llama"), tiny_tokens(5)
    points = [Hookpoint(0, "ln2"), Hookpoint(BLOCKS - 1, "resid_post")]
    post_BSD = torch.randn(*tokens.shape, D_MODEL, generator=torch.Generator().manual_seed(0))

    def all_of_it() -> list[torch.Tensor]:
        start_BSD = post_BSD.clone().requires_grad_()
        logits_BSV = model.continue_from(0, start_BSD, tokens)
        (gradient_BSD,) = torch.autograd.grad(logits_BSV.square().sum(), start_BSD)
        later = model.capture_from(0, post_BSD, tokens, points[1:])
        return [model.capture(tokens, points), later, model.logits(tokens), logits_BSV, gradient_BSD]

    whole, base, sizes = all_of_it(), model.hf.base_model, list[int]()
    forward = base.forward

    def small(input_ids: torch.Tensor, **how: object) -> object:
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **how)

    monkeypatch.setattr(base, "forward", small)
    for found, expected in zip(all_of_it(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert {1, 2, 3, 5} <= set(sizes)
