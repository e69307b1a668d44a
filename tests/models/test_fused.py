"""The fused attention against the eager one that transformers ships."""

import pytest
import torch
from reference.tiny_models import CONTEXT, WINDOW, tiny_hf, tiny_tokens

from xtalk.models.fused import use_fused_kernels


def pair():
    return tiny_hf("gpt_neo"), use_fused_kernels(tiny_hf("gpt_neo"))


@pytest.mark.parametrize("length", [1, WINDOW, WINDOW + 1, CONTEXT])
def test_logits_within_and_past_the_window(length):
    eager, fused = pair()
    tokens = tiny_tokens(length=length)
    torch.testing.assert_close(fused(tokens).logits, eager(tokens).logits, rtol=1e-5, atol=2e-5)


def test_the_window_matters_in_this_model():
    fused = pair()[1]
    tokens = tiny_tokens(length=CONTEXT)
    windowed = fused(tokens).logits
    for block in fused.transformer.h:
        block.attn.attention.attention_type = "global"
    assert not torch.allclose(windowed, fused(tokens).logits, atol=1e-2)


def test_a_padding_mask():
    eager, fused = pair()
    tokens, mask = tiny_tokens(), torch.ones(2, 7, dtype=torch.long)
    mask[0, :2] = 0
    torch.testing.assert_close(
        fused(tokens, attention_mask=mask).logits[:, 2:],
        eager(tokens, attention_mask=mask).logits[:, 2:],
        rtol=1e-5,
        atol=2e-5,
    )


def test_the_key_value_cache_step_by_step_and_in_chunks():
    eager, fused = pair()
    tokens = tiny_tokens(length=12)
    expected = eager(tokens).logits
    for cuts in ([1] * 12, [5, 1, 6]):
        cache, logits = None, []
        for chunk in tokens.split(cuts, dim=1):
            step = fused(chunk, past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            logits.append(step.logits)
        torch.testing.assert_close(torch.cat(logits, 1), expected, rtol=1e-5, atol=2e-5)


def test_generation():
    eager, fused = pair()
    greedy = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = eager.generate(tiny_tokens(length=5), **greedy)
    assert torch.equal(fused.generate(tiny_tokens(length=5), **greedy), expected)
    assert expected.shape == (2, 15)


def test_gradients():
    eager, fused = pair()
    for model in (eager, fused):
        model(tiny_tokens()).logits.logsumexp(-1).sum().backward()
    for (name, a), b in zip(eager.named_parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-3, msg=name)


def test_attention_dropout_acts_in_training_only():
    fused = pair()[1]
    for block in fused.transformer.h:
        block.attn.attention.attn_dropout.p = 0.9
    evaluated = fused(tiny_tokens()).logits
    torch.testing.assert_close(evaluated, pair()[1](tiny_tokens()).logits)
    torch.manual_seed(0)
    assert not torch.allclose(fused.train()(tiny_tokens()).logits, evaluated, atol=1e-2)


def test_gelu_new_becomes_one_kernel_with_the_same_values() -> None:
    eager, fused = tiny_hf("gpt_neo"), use_fused_kernels(tiny_hf("gpt_neo"))
    h = torch.linspace(-12, 12, 1001)
    old, new = eager.transformer.h[0].mlp.act, fused.transformer.h[0].mlp.act
    assert type(old) is not type(new)
    torch.testing.assert_close(new(h), old(h), rtol=1e-6, atol=2e-6)
