"""GGUF files, written here by the package gguf, are the model that they were made of."""

import sys

import numpy as np
import pytest
import torch
from models.folders import refusal
from transformers import LlamaConfig, LlamaForCausalLM

from xtalk.models.language_model import load_model

V, D, N, H, G, BLOCKS = 64, 64, 96, 4, 2, 2
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=V, hidden_size=D, intermediate_size=N, num_hidden_layers=BLOCKS,
                         num_attention_heads=H, num_key_value_heads=G, max_position_embeddings=32,
                         initializer_range=0.2, tie_word_embeddings=False)  # fmt: skip
    return LlamaForCausalLM(config).eval()


def turned(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Queries' and keys' rows as llama.cpp has them: pairs of coordinates beside each other."""
    return weight.view(heads, 2, -1, D).transpose(1, 2).reshape(weight.shape)


def write(path, model: LlamaForCausalLM, kind: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (
        ("context_length", 32), ("embedding_length", D), ("block_count", BLOCKS), ("feed_forward_length", N),
        ("head_count", H), ("head_count_kv", G), ("vocab_size", V), ("rope_dimension_count", D // H),
        ("layer_norm_rms_eps", 1e-6), ("rope_freq_base", 10000.0),
    ):  # fmt: skip
        getattr(writer, f"add_{key}")(value)
    characters = [chr(code) for code in range(33, 33 + V - 2)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|endoftext|>", *characters, '!"'])
    writer.add_token_types([3] + [1] * (V - 1))
    writer.add_token_merges(['! "'])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, tensor in model.state_dict().items():
        place = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                 "lm_head.weight": "output.weight"}.get(name)  # fmt: skip
        if place is None:
            block, _, rest = name.removeprefix("model.layers.").partition(".")
            place = f"blk.{block}.{NAMES[rest.removesuffix('.weight')]}.weight"
            tensor = (
                turned(tensor, H) if "q_proj" in rest else turned(tensor, G) if "k_proj" in rest else tensor
            )
        array = tensor.numpy().astype(np.float32)
        dtype = getattr(gguf.GGMLQuantizationType, kind if array.ndim > 1 else "F32")
        writer.add_tensor(place, gguf.quants.quantize(array, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def file(tmp_path):
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    return tmp_path / "tiny.gguf"


@torch.no_grad()
@pytest.mark.parametrize(("kind", "off"), [("F32", 1e-5), ("F16", 1e-2), ("Q8_0", 0.1)])
def test_it_is_the_model_up_to_the_rounding_of_its_weights(file, kind, off):
    plain = tiny()
    write(file, plain, kind)
    model = load_model(file)
    assert (model.name, model.n_blocks, model.d_model, model.hf.dtype) == (
        "tiny.gguf",
        BLOCKS,
        D,
        torch.float32,
    )
    tokens = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(1))
    logits, own = plain(tokens).logits, model.logits(tokens)
    assert float((own - logits).abs().max() / logits.abs().max()) < off
    if kind == "F32":
        for name, parameter in model.hf.named_parameters():
            assert torch.equal(parameter, plain.get_parameter(name)), name
    assert model.tokenizer('!"#', add_special_tokens=False)["input_ids"] == [63, 3]
    assert model.tokenizer.bos_token_id == 0


@pytest.mark.parametrize("keep", [0, 100, 4000])
def test_a_file_that_is_cut_short_is_one_line(file, keep):
    write(file, tiny(), "F32")
    file.write_bytes(file.read_bytes()[:keep])
    assert "tiny.gguf" in refusal(file)


def test_without_the_extra_it_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    message = refusal(tmp_path / "tiny.gguf")
    assert "gguf is not installed" in message and "pip install 'xtalk[gguf]'" in message
