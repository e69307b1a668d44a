import pytest
from reference.tiny_models import tiny_model

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import DEPTHS, SITES, Hookpoint, paper_hookpoints

TRANSFORMER_LENS = {
    "blocks.1.hook_resid_pre": "blocks.1.resid_pre",
    "blocks.1.attn.hook_in": "blocks.1.ln1",
    "blocks.1.hook_resid_mid": "blocks.1.resid_mid",
    "blocks.1.mlp.hook_in": "blocks.1.ln2",
    "blocks.1.hook_resid_post": "blocks.1.resid_post",
}
MODULE_PATHS = {
    "gpt_neo": ("transformer.h.2", "transformer.h.2.ln_1", "transformer.h.2.ln_2"),
    "gpt2": ("transformer.h.2", "transformer.h.2.ln_1", "transformer.h.2.ln_2"),
    "gpt_neox": (
        "gpt_neox.layers.2",
        "gpt_neox.layers.2.input_layernorm",
        "gpt_neox.layers.2.post_attention_layernorm",
    ),
    "llama": ("model.layers.2", "model.layers.2.input_layernorm", "model.layers.2.post_attention_layernorm"),
}


def test_the_paper_reads_four_sites_per_block_and_the_last_output():
    assert [str(point) for point in paper_hookpoints(2)] == [
        "blocks.0.resid_pre", "blocks.0.ln1", "blocks.0.resid_mid", "blocks.0.ln2",
        "blocks.1.resid_pre", "blocks.1.ln1", "blocks.1.resid_mid", "blocks.1.ln2",
        "blocks.1.resid_post",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", MODULE_PATHS)
def test_names_in_every_spelling(kind):
    model = tiny_model(kind)
    for block in range(model.n_blocks):
        for site in SITES:
            assert model.hookpoint(f"blocks.{block}.{site}") == Hookpoint(block, site)
    for name, canonical in TRANSFORMER_LENS.items():
        assert str(model.hookpoint(name)) == canonical
    assert [model.hookpoint(f"{depth}.ln1").block for depth in DEPTHS] == [0, 1, 2]
    for path, site in zip(MODULE_PATHS[kind], ("resid_post", "ln1", "ln2"), strict=True):
        assert model.hookpoint(path) == Hookpoint(2, site)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("blocks.3.ln2", "blocks.2.ln2"),
        ("blocks.0.ln3", "blocks.0.ln2"),
        ("middle.ln3", "blocks.1.ln2"),
        ("blocks.7.hook_resid_mid", "resid_mid"),
        ("transformer.h.0.ln_3", "transformer.h.0.ln_2"),
        ("blocks.0.hook_mlp_in", "blocks.0."),
        ("", "names are"),
    ],
)
def test_a_hookpoint_the_model_lacks_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(XtalkError) as caught:
        tiny_model("gpt_neo").hookpoint(name)
    message = str(caught.value)
    assert repr(name) in message
    assert nearest in message.split("nearest")[1]
    assert "\n" not in message
