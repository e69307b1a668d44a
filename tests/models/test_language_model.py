"""Capture and splicing against the hand-written forward of every family."""

from functools import cache

import pytest
import torch
from reference.hand_forward import hand_forward
from reference.tiny_models import (
    BLOCKS,
    CONTEXT,
    D_MLP,
    D_MODEL,
    KINDS,
    VOCABULARY,
    tiny_hf,
    tiny_model,
    tiny_tokens,
)

from xtalk.errors import XtalkError
from xtalk.models.fused import use_fused_kernels
from xtalk.models.hookpoints import SITES, Hookpoint
from xtalk.models.language_model import LanguageModel

UNGATED = ("gpt_neo", "gpt2", "gptj", "gpt_neox", "gpt_neox-sequential", "opt", "bloom", "phi", "falcon",
           "falcon-new", "falcon-sequential")  # fmt: skip
POST_NORM = ("gemma2", "gemma3_text", "olmo2", "glm4")
ALL = [Hookpoint(block, site) for block in range(BLOCKS) for site in SITES]


@cache
def model_and_truth(kind):
    model = tiny_model(kind)
    return model, hand_forward(model.hf.state_dict(), model.hf.config, tiny_tokens())


def assert_close(actual, expected):
    scale = expected.abs().max()
    torch.testing.assert_close(actual.double() / scale, expected / scale, rtol=0, atol=2e-6)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_capture_equals_the_hand_written_forward(kind):
    model, truth = model_and_truth(kind)
    captured = model.capture(tiny_tokens(), ALL)
    assert captured.shape == (2, 7, len(ALL), D_MODEL)
    for slot, hookpoint in enumerate(ALL):
        assert_close(captured[:, :, slot], truth[str(hookpoint)])


def test_hookpoints_come_in_the_order_asked_for(kind):
    model, truth = model_and_truth(kind)
    asked = [model.hookpoint(f"blocks.{name}") for name in ("2.ln1", "0.resid_mid", "2.ln1")]
    captured = model.capture(tiny_tokens(), asked)
    for slot, name in enumerate(("2.ln1", "0.resid_mid", "2.ln1")):
        assert_close(captured[:, :, slot], truth[f"blocks.{name}"])


def test_logits_equal_the_hand_written_forward(kind):
    model, truth = model_and_truth(kind)
    assert_close(model.logits(tiny_tokens()), truth["logits"])


def test_mlp_weights_map_ln2_to_what_the_mlp_puts_out(kind):
    model, truth = model_and_truth(kind)
    for block in range(BLOCKS):
        mlp = model.mlp_weights(block)
        assert mlp.W_in.shape == (D_MODEL, model.d_mlp)
        assert mlp.gated == (kind not in UNGATED)
        n, mid, post = model.capture(
            tiny_tokens(),
            [Hookpoint(block, "ln2"), Hookpoint(block, "resid_mid"), Hookpoint(block, "resid_post")],
        ).unbind(2)
        assert_close(mlp(n), truth[f"blocks.{block}.mlp_out"])
        added = model.added(block, mlp(n))
        torch.testing.assert_close(added, post - mid, rtol=0, atol=2e-5 * float(post.abs().max()))


def test_what_a_rebuilt_output_adds_passes_through_the_norm_after_the_mlp(kind):
    model, _ = model_and_truth(kind)
    out = torch.randn(2, 7, D_MODEL, generator=torch.Generator().manual_seed(4)).requires_grad_()
    added = model.added(1, out)
    if kind not in POST_NORM:
        assert added is out
        return
    scale = (out**2).mean(-1, keepdim=True).sqrt()
    weight = added / (out / scale)  # of each coordinate, at whatever token
    torch.testing.assert_close(weight, weight[:1, :1].expand_as(weight), rtol=1e-3, atol=1e-5)
    (gradient,) = torch.autograd.grad(added.square().sum() + added.sum(), out)
    assert float(gradient.abs().sum()) > 0


def test_continue_from_the_true_residual_is_the_full_forward(kind):
    model, _ = model_and_truth(kind)
    full = model.logits(tiny_tokens())
    for block in range(BLOCKS):
        resid_post = model.capture(tiny_tokens(), [Hookpoint(block, "resid_post")])[:, :, 0]
        torch.testing.assert_close(
            model.continue_from(block, resid_post, tiny_tokens()), full, rtol=0, atol=0
        )


def test_continue_from_another_residual_equals_the_hand_written_forward(kind):
    model, _ = model_and_truth(kind)
    spliced = torch.randn(2, 7, D_MODEL, generator=torch.Generator().manual_seed(3))
    for block in range(BLOCKS):
        truth = hand_forward(
            model.hf.state_dict(), model.hf.config, tiny_tokens(), {f"blocks.{block}.resid_post": spliced}
        )
        assert_close(model.continue_from(block, spliced, tiny_tokens()), truth["logits"])


def test_logits_with_another_mlp_output_equal_the_hand_written_forward(kind):
    model, _ = model_and_truth(kind)
    out = torch.randn(2, 7, D_MODEL, generator=torch.Generator().manual_seed(4))
    for block in range(BLOCKS):
        truth = hand_forward(
            model.hf.state_dict(), model.hf.config, tiny_tokens(), {f"blocks.{block}.mlp_out": out}
        )
        assert_close(model.logits_with_mlp_output(block, out, tiny_tokens()), truth["logits"])


def test_several_mlp_outputs_at_once_equal_the_hand_written_forward(kind):
    model, _ = model_and_truth(kind)
    spliced, *outs = torch.randn(3, 2, 7, D_MODEL, generator=torch.Generator().manual_seed(5))
    given = {"blocks.0.resid_post": spliced, "blocks.1.mlp_out": outs[0], "blocks.2.mlp_out": outs[1]}
    truth = hand_forward(model.hf.state_dict(), model.hf.config, tiny_tokens(), given)
    added = {block: model.added(block, out) for block, out in zip((1, 2), outs, strict=True)}
    assert_close(model.continue_from(0, spliced, tiny_tokens(), added), truth["logits"])
    assert_close(model.logits(tiny_tokens()), model_and_truth(kind)[1]["logits"])  # nothing stays changed


def test_hugging_face_module_paths_name_what_the_module_puts_out(kind):
    model, _ = model_and_truth(kind)
    for path, module in model.hf.named_modules():
        try:
            hookpoint = model.hookpoint(path)
        except XtalkError:
            continue
        outputs = []
        handle = module.register_forward_hook(lambda _m, _a, out, seen=outputs: seen.append(out))
        captured = model.capture(tiny_tokens(), [hookpoint])[:, :, 0]
        handle.remove()
        out = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
        out = out.view(captured.shape)  # OPT flattens
        torch.testing.assert_close(captured, out, rtol=0, atol=0)


def last_layer(block):
    """Of the MLP, wherever its architecture keeps it."""
    names = ("c_proj", "fc_out", "fc2", "dense_4h_to_h", "down_proj")
    part = getattr(block, "mlp", block)
    return next(getattr(part, name) for name in names if hasattr(part, name))


class Runs:
    """Counts the forward calls of modules."""

    def __init__(self, modules):
        self.counts = dict.fromkeys(modules, 0)
        for name, module in modules.items():
            module.register_forward_hook(lambda *_, name=name: self.add(name))

    def add(self, name):
        self.counts[name] += 1


def test_nothing_is_computed_that_is_not_asked_for(kind):
    model = tiny_model(kind)
    runs = Runs({i: last_layer(block) for i, block in enumerate(model._blocks)} | {"head": model.hf.lm_head})
    resid_post = model.capture(tiny_tokens(), [Hookpoint(1, "resid_post")])[:, :, 0]
    assert runs.counts == {0: 1, 1: 1, 2: 0, "head": 0}
    model.continue_from(1, resid_post, tiny_tokens())
    assert runs.counts == {0: 1, 1: 1, 2: 1, "head": 1}


def leftovers(model):
    return [
        name
        for name, module in model.hf.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    ]


def test_the_model_is_left_as_it_was_even_after_an_error(kind):
    model = tiny_model(kind)
    untouched = leftovers(model)
    spliced = torch.zeros(2, 7, D_MODEL)

    def fail(*_):
        raise RuntimeError("stop")

    handle = last_layer(model._blocks[1]).register_forward_hook(fail)
    calls = [
        lambda: model.capture(tiny_tokens(), ALL[:8]),
        lambda: model.continue_from(0, spliced, tiny_tokens()),
        lambda: model.logits_with_mlp_output(0, spliced, tiny_tokens()),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="stop"):
            call()
    handle.remove()
    for call in calls:
        call()
    assert leftovers(model) == untouched
    assert_close(model.logits(tiny_tokens()), model_and_truth(kind)[1]["logits"])


def test_a_forward_that_someone_else_replaced_is_put_back():
    model = tiny_model("gpt_neo")
    block = model._blocks[0]
    theirs = block.forward = lambda x, *_args, **_kwargs: (x, None)
    model.continue_from(0, torch.ones(2, 7, D_MODEL), tiny_tokens())
    assert block.forward is theirs


def test_the_model_is_frozen_in_evaluation_mode():
    hf = use_fused_kernels(tiny_hf("gpt_neo")).train()
    assert hf.config.resid_dropout > 0
    model = LanguageModel(hf, None, "tiny", "")
    assert_close(model.logits(tiny_tokens()), model_and_truth("gpt_neo")[1]["logits"])


def test_gradients_reach_what_is_spliced_but_no_parameter():
    model = tiny_model("gpt_neo")
    spliced = torch.zeros(2, 7, D_MODEL, requires_grad=True)
    model.continue_from(0, spliced, tiny_tokens()).logsumexp(-1).sum().backward()
    assert spliced.grad is not None and spliced.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.hf.parameters())


def test_tokens_may_be_int32():
    model, truth = model_and_truth("gpt2")
    assert_close(model.logits(tiny_tokens().int()), truth["logits"])


def test_sizes(kind):
    model = tiny_model(kind)
    d_mlp = 4 * D_MODEL if kind == "bloom" else D_MLP  # which has no choice
    assert (model.n_blocks, model.d_model, model.d_mlp, model.context) == (BLOCKS, D_MODEL, d_mlp, CONTEXT)
    stored = {parameter.data_ptr(): parameter.numel() for parameter in model.hf.parameters()}
    assert model.n_params == sum(stored.values())
    assert len(model.hookpoints()) == 4 * BLOCKS + 1
    assert model.device == torch.device("cpu")


def test_bad_requests_are_refused_in_one_line():
    model = tiny_model("gpt_neo")
    resid = torch.zeros(2, 7, D_MODEL)
    requests = {
        "context is 19": lambda: model.logits(tiny_tokens(length=CONTEXT + 1)),
        f"to {VOCABULARY}; the model": lambda: model.logits(torch.full((1, 2), VOCABULARY)),
        f"vocabulary is 0 to {VOCABULARY - 1}": lambda: model.logits(tiny_tokens() + 7),
        "from -1 ": lambda: model.logits(tiny_tokens() - tiny_tokens().min() - 1),
        "blocks 0 to 2": lambda: model.capture(tiny_tokens(), [Hookpoint(3, "ln2")]),
        "block -1 ": lambda: model.continue_from(-1, resid, tiny_tokens()),
        "block 3 ": lambda: model.mlp_weights(3),
        "block 4 ": lambda: model.logits_with_mlp_output(4, resid, tiny_tokens()),
    }
    for words, request in requests.items():
        with pytest.raises(XtalkError, match=words) as caught:
            request()
        assert "\n" not in str(caught.value)
