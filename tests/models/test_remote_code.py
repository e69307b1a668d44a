"""A model that brings its own code runs it only where that is asked for."""

import pytest
import torch
from models.folders import edit_config, refusal
from reference.tiny_models import save_tiny, tiny_tokens

from xtalk.models.language_model import load_model

CODE = """
print("this ran")
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own"
    save_tiny(folder, "llama")
    (folder / "own.py").write_text(CODE)
    edit_config(
        folder,
        model_type="own_llama",
        architectures=["OwnForCausalLM"],
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    )
    return folder


def test_it_is_refused_and_not_run_without_the_flag(own, capfd):
    assert "transformers has no code for it but its own, which trust_remote_code runs" in refusal(own)
    assert "this ran" not in capfd.readouterr().out


def test_with_the_flag_it_is_run_and_checked_as_any(own, tmp_path, capfd):
    model = load_model(own, trust_remote_code=True)
    assert "this ran" in capfd.readouterr().out and model.family == "Own"
    save_tiny(tmp_path / "plain", "llama")
    assert torch.equal(model.logits(tiny_tokens()), load_model(tmp_path / "plain").logits(tiny_tokens()))
