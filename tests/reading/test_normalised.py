"""Dictionaries of hook_normalized, against the norm before its weights."""

import pytest
import torch
from reference.tiny_models import tiny_model, tiny_tokens

from xtalk.api.inputs import crosscoder_in
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.reading.normalised import behind_norms

L = 9


def dictionary(model, *names, out=None, skip=False) -> Crosscoder:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    D, P = model.d_model, len(names)
    Q = len(out or names)
    return Crosscoder.from_tensors(
        W_enc=draw(P, D, L), W_dec=draw(L, Q, D), b_enc=draw(L), b_dec=draw(Q, D), hook_names=names,
        architecture="relu", hook_names_out=out, W_skip=draw(P, D, Q, D) if skip else None,
    ).requires_grad_(False)  # fmt: skip


@pytest.mark.parametrize("kind", ["gpt_neo", "llama", "gemma2"])
def test_codes_are_those_of_the_norm_before_its_weights(kind):
    model = tiny_model(kind)
    given = dictionary(
        model, "blocks.1.ln2.hook_normalized", "blocks.0.resid_pre", "blocks.2.ln1.hook_normalized"
    )
    made = crosscoder_in(model, given)
    assert made.config.hook_names == ("blocks.1.ln2", "blocks.0.resid_pre", "blocks.2.ln1")
    points = [Hookpoint(1, "ln2"), Hookpoint(0, "resid_pre"), Hookpoint(2, "ln1")]
    x_BPD = model.capture(tiny_tokens(), points).flatten(0, 1)
    z_BPD, after = x_BPD.clone(), []
    for p in (0, 2):
        norm, source = model.norm_weights(points[p])
        stream_BD = model.capture(tiny_tokens(), [source])[:, :, 0].flatten(0, 1)
        z_BPD[:, p] = norm.centre(stream_BD) / norm.scale(stream_BD)[:, None]
        after.append(norm)
    torch.testing.assert_close(made.encode(x_BPD), given.encode(z_BPD), rtol=1e-3, atol=1e-3)
    decoded_BPD = given.decode(given.encode(z_BPD))
    for p, norm in zip((0, 2), after, strict=True):
        decoded_BPD[:, p] = decoded_BPD[:, p] * norm.weight + norm.bias
    torch.testing.assert_close(made(x_BPD), decoded_BPD, rtol=1e-3, atol=1e-2)
    assert given.config.hook_names[0] == "blocks.1.ln2.hook_normalized"  # stays as it was


def test_a_transcoder_writes_what_it_wrote():
    model = tiny_model("gpt_neo")
    given = dictionary(model, "blocks.1.ln2.hook_normalized", out=["blocks.1.hook_mlp_out"], skip=True)
    norm, source = model.norm_weights(Hookpoint(1, "ln2"))
    stream_BD = model.capture(tiny_tokens(), [source])[:, :, 0].flatten(0, 1)
    z_BD = norm.centre(stream_BD) / norm.scale(stream_BD)[:, None]
    made = behind_norms(given, model)
    torch.testing.assert_close(made(norm(stream_BD)), given(z_BD), rtol=1e-3, atol=1e-2)


def test_others_are_as_they_are_and_what_cannot_be_read_is_refused():
    model = tiny_model("gpt_neo")
    plain = dictionary(model, "blocks.1.ln2")
    assert behind_norms(plain, model) is plain
    with pytest.raises(XtalkError, match=r"no hookpoint 'blocks\.7\.ln2'"):
        behind_norms(dictionary(model, "blocks.7.ln2.hook_normalized"), model)
    with torch.no_grad():
        model.hf.transformer.h[1].ln_2.weight[3] = 0
    with pytest.raises(XtalkError, match="weights of 0"):
        behind_norms(dictionary(model, "blocks.1.ln2.hook_normalized"), model)
