"""Attention and norms as plain tensors put out what the model's own modules do."""

import pytest
import torch
from reference.tiny_models import BLOCKS, KINDS, VOCABULARY, tiny_model, tiny_tokens
from transformers import LlamaConfig, LlamaForCausalLM

from xtalk.errors import XtalkError
from xtalk.models.families import ATTENTION
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel

BILINEAR = [kind for kind in KINDS if kind.split("-")[0] in ATTENTION and kind != "falcon-sequential"]


@pytest.mark.parametrize("kind", BILINEAR)
def test_attention_is_the_models(kind):
    model, tokens = tiny_model(kind), tiny_tokens(2, 9)
    for block in range(BLOCKS):
        sites = [Hookpoint(block, site) for site in ("ln1", "resid_pre", "resid_mid")]
        n, before, after = model.capture(tokens, sites).unbind(2)
        attention = model.attention_weights(block)
        for b in range(len(tokens)):
            torch.testing.assert_close(attention(n[b]), after[b] - before[b], rtol=1e-4, atol=1e-5)
            pattern = attention.pattern(n[b])
            torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:2]))


ROTARY = {  # frequencies of 5 pairs; beyond `original` positions longrope takes other ones
    "default": {},
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 3.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 8},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    },
    "longrope": {
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4],
        "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0],
        "original_max_position_embeddings": 8,
        "factor": 4.0,
    },
}


def rotary_model(kind, context):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=24, intermediate_size=40, num_hidden_layers=1,
                         num_attention_heads=4, head_dim=10, max_position_embeddings=context,
                         initializer_range=0.3,
                         rope_parameters={"rope_type": kind, "rope_theta": 50.0, **ROTARY[kind]})  # fmt: skip
    return LanguageModel(LlamaForCausalLM(config), None, kind, "")


@pytest.mark.parametrize("length", [5, 30])
@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_positions_of_every_scaling_are_the_models(kind, length):
    model, tokens = rotary_model(kind, context=32), tiny_tokens(1, length)
    sites = [Hookpoint(0, site) for site in ("ln1", "resid_pre", "resid_mid")]
    attention = model.attention_weights(0)
    n, before, after = model.capture(tokens, sites)[0].unbind(1)
    torch.testing.assert_close(attention(n), after - before, rtol=1e-4, atol=1e-5)
    q_SHh = torch.einsum("sd,hde->she", n, attention.W_Q)
    assert not torch.allclose(q_SHh, attention.rotated(q_SHh, torch.arange(length)))


def test_rotary_tables_are_as_long_as_the_sequence_whatever_the_context(monkeypatch):
    model, made = rotary_model("default", context=10**9), []
    module = model.hf.model.rotary_emb
    forward = type(module).forward
    monkeypatch.setattr(
        type(module),
        "forward",
        lambda self, x, positions: made.append(positions) or forward(self, x, positions),
    )
    attention = model.attention_weights(0)
    attention.scores(torch.ones(6, 24), torch.ones(6, 24))
    assert made and all(positions.shape == (1, 6) for positions in made)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("qwen3", "normalises queries and keys"),
        ("gemma2", "normalises what its attention puts out"),
        ("bloom", "is not read as plain tensors"),
        ("falcon-sequential", "adds linear biases to its scores"),
    ],
)
def test_attention_that_is_no_sum_over_pairs_is_refused(kind, reason):
    with pytest.raises(XtalkError, match=reason):
        tiny_model(kind).attention_weights(0)


def test_attention_that_clips_is_refused():
    model = tiny_model("olmo")
    model.hf.config.clip_qkv = 8.0
    with pytest.raises(XtalkError, match="clips queries"):
        model.attention_weights(0)


@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_the_models(kind):
    model, tokens = tiny_model(kind), tiny_tokens()
    for point in (Hookpoint(1, "ln1"), Hookpoint(1, "ln2")):
        if kind == "olmo2":
            assert point not in model.normed()
            continue
        norm, source = model.norm_weights(point)
        x, n = model.capture(tokens, [source, point]).unbind(2)
        torch.testing.assert_close(norm(x), n, rtol=1e-4, atol=1e-5)
    with pytest.raises(XtalkError, match="no norm puts out"):
        model.norm_weights(Hookpoint(1, "resid_mid"))


def test_without_a_norm_in_front_the_mlp_reads_the_residual_stream():
    captured = tiny_model("olmo2").capture(tiny_tokens(), [Hookpoint(1, "resid_mid"), Hookpoint(1, "ln2")])
    assert torch.equal(captured[:, :, 0], captured[:, :, 1])
    with pytest.raises(XtalkError, match="no norm puts out"):
        tiny_model("olmo2").norm_weights(Hookpoint(1, "ln2"))
