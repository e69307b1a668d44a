"""Several dictionaries as one: codes and reconstructions are those of each, and so is what is measured."""

import pytest
import torch
from reference.tiny_models import save_tiny

import xtalk
from xtalk.errors import XtalkError

SIZES = {0: (7, "relu"), 2: (11, "jumprelu"), 1: (5, "batchtopk")}  # latents and architecture, by block


def sae(block: int, d_in: int = 16, **changes) -> xtalk.Crosscoder:
    L, architecture = SIZES[block]
    generator = torch.Generator().manual_seed(block)
    given = {
        "W_enc": torch.randn(d_in, L, generator=generator),
        "W_dec": torch.randn(L, d_in, generator=generator),
        "b_enc": torch.randn(L, generator=generator),
        "b_dec": torch.randn(d_in, generator=generator),
        "hook_names": f"blocks.{block}.ln2",
        "architecture": architecture,
        "threshold": None if architecture == "relu" else torch.rand(L, generator=generator) + 0.5,
        "k": 2,
    }
    return xtalk.Crosscoder.from_tensors(**given | changes)


def test_codes_and_reconstructions_are_those_of_each():
    parts = [sae(block) for block in SIZES]
    whole = xtalk.stack(parts)
    assert whole.config.hook_names == ("blocks.0.ln2", "blocks.2.ln2", "blocks.1.ln2")
    x_BPD = torch.randn(40, 3, 16, generator=torch.Generator().manual_seed(9))
    f_BL = whole.encode(x_BPD)
    expected = [part.encode(x_BPD[:, p]) for p, part in enumerate(parts)]
    torch.testing.assert_close(f_BL, torch.cat(expected, dim=1))
    assert all(((f > 0).any() and (f == 0).any()) for f in expected)
    rebuilt = torch.stack([part.decode(f) for part, f in zip(parts, expected, strict=True)], dim=1)
    torch.testing.assert_close(whole.decode(f_BL), rebuilt)


def test_one_architecture_stays():
    assert xtalk.stack([sae(0), sae(0, hook_names="blocks.1.ln2")]).config.architecture == "relu"


def test_what_is_measured_at_an_mlp_is_that_of_its_own_dictionary(tmp_path):
    save_tiny(tmp_path / "model")
    model = xtalk.load_model(tmp_path / "model")
    texts = [" ".join(f"w{(7 * i + j * j) % 20 + 1}" for j in range(40)) for i in range(12)]
    given = {"tokens": 400, "sequence_length": 16, "resamples": 50}
    parts = {block: sae(block, model.d_model) for block in (0, 1)}
    whole = xtalk.fidelity(model, xtalk.stack(list(parts.values())), texts, **given)
    for block, part in parts.items():
        alone = xtalk.fidelity(model, part, texts, **given)
        for scheme in ("full", "keep_1", "keep_2", "drop_largest"):
            rows = [
                next(r for r in of.rows() if (r["block"], r["scheme"]) == (block, scheme))
                for of in (whole, alone)
            ]
            assert rows[0]["ce"] == pytest.approx(rows[1]["ce"], rel=1e-6)


@pytest.mark.parametrize(
    ("dictionaries", "message"),
    [
        (lambda: [sae(0)], "1 dictionaries to stack"),
        (lambda: [sae(0), sae(1, d_in=8)], "d_in 8, 16"),
        (lambda: [sae(0), sae(0)], "two of the dictionaries are at blocks.0.ln2"),
        (lambda: [sae(0), sae(1, architecture="topk", threshold=None)], "blocks.1.ln2 is topk"),
        (lambda: [sae(0), sae(1, hook_names_out="blocks.1.resid_mid")], "is a transcoder or gated"),
    ],
)
def test_what_cannot_be_stacked_is_refused(dictionaries, message: str):
    with pytest.raises(XtalkError, match=message):
        xtalk.stack(dictionaries())
