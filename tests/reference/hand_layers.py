"""The layers of every family in plain tensor maths, by `model_type`; a name not listed is Llama's."""

import math

import torch


def _names(blocks, final, norm1, norm2, post1=None, post2=None):
    return {"blocks": blocks, "final": final, "norm1": norm1, "norm2": norm2, "post1": post1, "post2": post2}


_GPT2 = _names("transformer.h", "transformer.ln_f", "ln_1", "ln_2")
_LLAMA = _names("model.layers", "model.norm", "input_layernorm", "post_attention_layernorm")
_SANDWICH = _names("model.layers", "model.norm", "input_layernorm", "pre_feedforward_layernorm",
                   "post_attention_layernorm", "post_feedforward_layernorm")  # fmt: skip
_BLOOM = _LLAMA | {"blocks": "transformer.h", "final": "transformer.ln_f"}
_AS_LLAMA = ("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3", "phi3", "olmo", "stablelm", "granite")
NAMES = dict.fromkeys(_AS_LLAMA, _LLAMA) | {
    "gpt_neo": _GPT2,
    "gpt2": _GPT2,
    "gptj": _GPT2 | {"norm2": "ln_1"},
    "gpt_neox": _LLAMA | {"blocks": "gpt_neox.layers", "final": "gpt_neox.final_layer_norm"},
    "opt": _names("model.decoder.layers", "model.decoder.final_layer_norm", "self_attn_layer_norm",
                  "final_layer_norm"),
    "bloom": _BLOOM,
    "falcon": _BLOOM | {"norm2": "input_layernorm"},
    "falcon-new": _BLOOM | {"norm1": "ln_attn", "norm2": "ln_mlp"},
    "falcon-sequential": _BLOOM,
    "phi": _LLAMA | {"norm2": "input_layernorm", "final": "model.final_layernorm"},
    "gemma2": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "olmo2": _SANDWICH | {"norm1": None, "norm2": None},
    "glm4": _LLAMA | {"post1": "post_self_attn_layernorm", "post2": "post_mlp_layernorm"},
    "stablelm-parallel": _LLAMA | {"norm2": "input_layernorm"},
    "cohere": _LLAMA | {"norm2": "input_layernorm"},
}  # fmt: skip
_CENTRED = ("gpt_neo", "gpt2", "gptj", "gpt_neox", "opt", "bloom", "falcon", "phi", "stablelm", "olmo",
            "cohere")  # fmt: skip


def norm(run, x, name):
    """LayerNorm or RMSNorm, with a weight, one that counts from 1, or none."""
    c = run.config
    keys = ("layer_norm_epsilon", "layer_norm_eps", "rms_norm_eps")
    eps = next((getattr(c, key) for key in keys if hasattr(c, key)), 1e-5)
    if run.kind in _CENTRED:
        x = x - x.mean(-1, keepdim=True)
    x = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    weight = run.w.get(name + ".weight", torch.ones(1))
    x = x * (1 + weight if run.kind.startswith("gemma") else weight)
    return x + run.w.get(name + ".bias", torch.zeros(1))


def positions_added(tokens_name, positions_name, skipped=0):
    def embed(run, tokens):
        positions = run.w[positions_name][skipped : skipped + tokens.shape[1]]
        return run.w[tokens_name][tokens] + positions

    return embed


def llama_embed(run, tokens):
    x = run.w["model.embed_tokens.weight"][tokens]
    if run.kind.startswith("gemma"):
        return x * math.sqrt(run.config.hidden_size)
    return x * getattr(run.config, "embedding_multiplier", 1.0)


def bloom_embed(run, tokens):
    x = run.w["transformer.word_embeddings.weight"][tokens]
    return norm(run, x, "transformer.word_embeddings_layernorm")


EMBED = {
    "llama": llama_embed,
    "gpt_neo": positions_added("transformer.wte.weight", "transformer.wpe.weight"),
    "gpt2": positions_added("transformer.wte.weight", "transformer.wpe.weight"),
    "opt": positions_added("model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight", 2),
    "gptj": lambda run, tokens: run.w["transformer.wte.weight"][tokens],
    "gpt_neox": lambda run, tokens: run.w["gpt_neox.embed_in.weight"][tokens],
    "bloom": bloom_embed,
    "falcon": lambda run, tokens: run.w["transformer.word_embeddings.weight"][tokens],
}


def attend(q, k, v, scale, window=None, cap=None, slopes=None):
    """Causal attention, token by token; each sees the last `window` tokens, itself included."""
    batch, length, heads, _ = q.shape
    group = heads // k.shape[2]
    out = torch.zeros(batch, length, heads, v.shape[3], dtype=q.dtype)
    for b in range(batch):
        for t in range(length):
            first = 0 if window is None else max(0, t - window + 1)
            for h in range(heads):
                keys, values = k[b, first : t + 1, h // group], v[b, first : t + 1, h // group]
                scores = scale * keys @ q[b, t, h]
                scores = scores if cap is None else cap * torch.tanh(scores / cap)
                scores = scores if slopes is None else scores + slopes[h] * torch.arange(first, t + 1)
                out[b, t, h] = torch.softmax(scores, dim=0) @ values
    return out.flatten(2)


def rotate(x, theta, width, neighbours=False):
    """Rotary positions on each head's first `width` coordinates, i paired with i + width/2, or with i + 1."""
    length, half = x.shape[1], width // 2
    out = x.clone()
    for t in range(length):
        for i in range(half):
            angle = t * theta ** (-2 * i / width)
            one, other = (2 * i, 2 * i + 1) if neighbours else (i, i + half)
            a, b = x[:, t, :, one], x[:, t, :, other]
            out[:, t, :, one] = a * math.cos(angle) - b * math.sin(angle)
            out[:, t, :, other] = b * math.cos(angle) + a * math.sin(angle)
    return out


def heads_of(x, heads):
    return x.unflatten(-1, (heads, -1))


def alibi(heads):
    """Slopes of a number of heads that is a power of two."""
    return [2 ** (-8 * (h + 1) / heads) for h in range(heads)]


def gpt_neo_attention(run, n, p, block):
    heads, c = run.config.num_heads, run.config
    q, k, v = (heads_of(run.linear(n, f"{p}attn.attention.{x}_proj"), heads) for x in "qkv")
    window = c.window_size if c.attention_layers[block] == "local" else None
    return run.linear(attend(q, k, v, 1.0, window), p + "attn.attention.out_proj")


def gpt2_attention(run, n, p, block):
    q, k, v = (heads_of(x, run.config.n_head) for x in run.conv1d(n, p + "attn.c_attn").chunk(3, -1))
    return run.conv1d(attend(q, k, v, q.shape[-1] ** -0.5), p + "attn.c_proj")


def gptj_attention(run, n, p, block):
    q, k, v = (heads_of(run.linear(n, f"{p}attn.{x}_proj"), run.config.n_head) for x in "qkv")
    q, k = (rotate(x, 10000.0, run.config.rotary_dim, neighbours=True) for x in (q, k))
    return run.linear(attend(q, k, v, q.shape[-1] ** -0.5), p + "attn.out_proj")


def gpt_neox_attention(run, n, p, block):
    c = run.config
    q, k, v = heads_of(run.linear(n, p + "attention.query_key_value"), c.num_attention_heads).chunk(3, -1)
    theta, width = rotary(c, q)
    out = attend(rotate(q, theta, width), rotate(k, theta, width), v, q.shape[-1] ** -0.5)
    return run.linear(out, p + "attention.dense")


def rotary(c, q):
    """Theta and how many coordinates of a head turn."""
    width = int(q.shape[-1] * c.rope_parameters.get("partial_rotary_factor", 1.0))
    return c.rope_parameters["rope_theta"], width


def opt_attention(run, n, p, block):
    q, k, v = (
        heads_of(run.linear(n, f"{p}self_attn.{x}_proj"), run.config.num_attention_heads) for x in "qkv"
    )
    return run.linear(attend(q, k, v, q.shape[-1] ** -0.5), p + "self_attn.out_proj")


def bloom_attention(run, n, p, block):
    heads = run.config.n_head
    q, k, v = heads_of(run.linear(n, p + "self_attention.query_key_value"), heads).chunk(3, -1)
    return run.linear(attend(q, k, v, q.shape[-1] ** -0.5, slopes=alibi(heads)), p + "self_attention.dense")


def falcon_attention(run, n, p, block):
    c, made = run.config, run.linear(n, p + "self_attention.query_key_value")
    if c.new_decoder_architecture:  # the queries of a group, its key, its value
        each = made.unflatten(-1, (c.num_kv_heads, c.num_attention_heads // c.num_kv_heads + 2, -1))
        q, k, v = each[..., :-2, :].flatten(2, 3), each[..., -2, :], each[..., -1, :]
    elif c.multi_query:
        parts = heads_of(made, c.num_attention_heads + 2)
        q, k, v = parts[:, :, :-2], parts[:, :, -2:-1], parts[:, :, -1:]
    else:
        q, k, v = heads_of(made, c.num_attention_heads).chunk(3, -1)
    if c.alibi:  # added before the scale
        scale = q.shape[-1] ** -0.5
        out = attend(q, k, v, scale, slopes=[slope * scale for slope in alibi(c.num_attention_heads)])
    else:
        q, k = (rotate(x, *rotary(c, q)) for x in (q, k))
        out = attend(q, k, v, q.shape[-1] ** -0.5)
    return run.linear(out, p + "self_attention.dense")


def llama_attention(run, n, p, block):
    c, p = run.config, p + "self_attn."
    q, k, v = query_key_value(run, n, p)
    theta, width = rotary_of_block(c, q, block)
    neighbours = run.kind in ("glm4", "cohere")
    if run.kind != "smollm3" or c.no_rope_layers[block]:
        q, k = (rotate(x, theta, width, neighbours) for x in (q, k))
    scale = q.shape[-1] ** -0.5
    if run.kind == "granite":
        scale = c.attention_multiplier
    if run.kind in ("gemma2", "gemma3_text"):
        scale = c.query_pre_attn_scalar**-0.5
    layers = getattr(c, "layer_types", None)
    windowed = run.kind in ("mistral", "phi3") or (layers and layers[block] == "sliding_attention")
    window = c.sliding_window if windowed else None
    out = attend(q, k, v, scale, window, getattr(c, "attn_logit_softcapping", None))
    return run.linear(out, p + ("dense" if run.kind == "phi" else "o_proj"))


def rotary_of_block(c, q, block):
    if "sliding_attention" in c.rope_parameters:  # by kind of block
        return c.rope_parameters[c.layer_types[block]]["rope_theta"], q.shape[-1]
    return rotary(c, q)


def query_key_value(run, n, p):
    c, heads, groups = run.config, run.config.num_attention_heads, run.config.num_key_value_heads
    if run.kind == "phi3":
        made = heads_of(run.linear(n, p + "qkv_proj"), heads + 2 * groups)
        return made.split([heads, groups, groups], dim=2)
    q, k, v = (run.linear(n, p + x) for x in ("q_proj", "k_proj", "v_proj"))
    if run.kind == "olmo2":  # over all heads at once
        q, k = norm(run, q, p + "q_norm"), norm(run, k, p + "k_norm")
    q, k, v = heads_of(q, heads), heads_of(k, groups), heads_of(v, groups)
    if run.kind in ("qwen3", "gemma3_text"):
        q, k = norm(run, q, p + "q_norm"), norm(run, k, p + "k_norm")
    assert c.hidden_size == n.shape[-1]
    return q, k, v


ATTENTION = {
    "llama": llama_attention,
    "gpt_neo": gpt_neo_attention,
    "gpt2": gpt2_attention,
    "gptj": gptj_attention,
    "gpt_neox": gpt_neox_attention,
    "opt": opt_attention,
    "bloom": bloom_attention,
    "falcon": falcon_attention,
}


def gelu_tanh(h):
    return 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))


def gelu(h):
    return h * (1 + torch.erf(h / math.sqrt(2))) / 2


def silu(h):
    return h / (1 + torch.exp(-h))


def plain_mlp(first, last, phi):
    def mlp(run, n, p):
        return run.linear(phi(run.linear(n, p + first)), p + last)

    return mlp


def gpt2_mlp(run, n, p):
    return run.conv1d(gelu_tanh(run.conv1d(n, p + "mlp.c_fc")), p + "mlp.c_proj")


def llama_mlp(run, n, p):
    gate, phi = run.linear(n, p + "mlp.gate_proj"), gelu_tanh if run.kind.startswith("gemma") else silu
    return run.linear(phi(gate) * run.linear(n, p + "mlp.up_proj"), p + "mlp.down_proj")


def fused_mlp(run, n, p):
    gate, value = run.linear(n, p + "mlp.gate_up_proj").chunk(2, -1)
    return run.linear(silu(gate) * value, p + "mlp.down_proj")


MLP = {
    "llama": llama_mlp,
    "phi3": fused_mlp,
    "glm4": fused_mlp,
    "gpt2": gpt2_mlp,
    "gpt_neo": plain_mlp("mlp.c_fc", "mlp.c_proj", gelu_tanh),
    "gptj": plain_mlp("mlp.fc_in", "mlp.fc_out", gelu_tanh),
    "gpt_neox": plain_mlp("mlp.dense_h_to_4h", "mlp.dense_4h_to_h", gelu),
    "opt": plain_mlp("fc1", "fc2", torch.relu),
    "bloom": plain_mlp("mlp.dense_h_to_4h", "mlp.dense_4h_to_h", gelu_tanh),
    "falcon": plain_mlp("mlp.dense_h_to_4h", "mlp.dense_4h_to_h", gelu),
    "phi": plain_mlp("mlp.fc1", "mlp.fc2", gelu_tanh),
}


def head(run, x):
    return run.linear(x, "lm_head")


def capped(run, x):
    cap = run.config.final_logit_softcapping
    return head(run, x) if cap is None else cap * torch.tanh(head(run, x) / cap)


LOGITS = {
    "llama": head,
    "gemma2": capped,
    "granite": lambda run, x: head(run, x) / run.config.logits_scaling,
    "cohere": lambda run, x: head(run, x) * run.config.logit_scale,
}
