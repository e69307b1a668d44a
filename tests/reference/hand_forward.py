"""Every family's forward pass written out in plain tensor maths: the slow twin of capture.

Reads a state dict and a configuration, calls no Hugging Face module, and names what it computes as the
hookpoints do, plus `blocks.I.mlp_out` and `logits`. Works in float64.
"""

import math

import torch
from torch import Tensor


def hand_forward(state, config, tokens, replace=None) -> dict[str, Tensor]:
    """All activations of a model, by name; those named in `replace` are replaced as they are computed."""
    run = _Run({name: value.double() for name, value in state.items()}, config, replace or {})
    run.forward(tokens)
    return run.seen


class _Run:
    def __init__(self, weights, config, replace):
        self.w, self.config, self.replace, self.seen = weights, config, replace, {}

    def note(self, name, value):
        value = self.replace[name].double() if name in self.replace else value
        self.seen[name] = value
        return value

    def forward(self, tokens):
        kind, c = self.config.model_type, self.config
        blocks = {"gpt_neo": "transformer.h", "gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}
        x = self.embed(tokens)
        for i in range(c.num_hidden_layers):
            p = f"{blocks.get(kind, 'model.layers')}.{i}."
            norm1, norm2 = ("ln_1", "ln_2") if kind in ("gpt_neo", "gpt2") else LLAMA_NORMS
            x = self.note(f"blocks.{i}.resid_pre", x)
            n = self.note(f"blocks.{i}.ln1", self.norm(x, p + norm1))
            mid = self.note(f"blocks.{i}.resid_mid", x + ATTENTION.get(kind, llama_attention)(self, n, p, i))
            before_mlp = x if kind == "gpt_neox" and c.use_parallel_residual else mid
            n = self.note(f"blocks.{i}.ln2", self.norm(before_mlp, p + norm2))
            out = self.note(f"blocks.{i}.mlp_out", MLP.get(kind, llama_mlp)(self, n, p + "mlp."))
            x = self.note(f"blocks.{i}.resid_post", mid + out)
        final = {"gpt_neo": "transformer.ln_f", "gpt2": "transformer.ln_f", "gpt_neox": FINAL_NEOX}
        x = self.norm(x, final.get(kind, "model.norm"))
        self.note("logits", x @ self.w["lm_head.weight"].T)

    def embed(self, tokens):
        kind, w = self.config.model_type, self.w
        if kind in ("gpt_neo", "gpt2"):
            return w["transformer.wte.weight"][tokens] + w["transformer.wpe.weight"][: tokens.shape[1]]
        if kind == "gpt_neox":
            return w["gpt_neox.embed_in.weight"][tokens]
        x = w["model.embed_tokens.weight"][tokens]
        return x * math.sqrt(self.config.hidden_size) if kind == "gemma" else x

    def norm(self, x, name):
        weight, bias = self.w[name + ".weight"], self.w.get(name + ".bias")
        if bias is not None:
            eps = getattr(self.config, "layer_norm_epsilon", None) or self.config.layer_norm_eps
            x = x - x.mean(-1, keepdim=True)
            return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight + bias
        weight = 1 + weight if self.config.model_type == "gemma" else weight
        return x / (x.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps).sqrt() * weight

    def linear(self, x, name):
        out = x @ self.w[name + ".weight"].T
        return out + self.w[name + ".bias"] if name + ".bias" in self.w else out

    def conv1d(self, x, name):
        return x @ self.w[name + ".weight"] + self.w[name + ".bias"]


LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")
FINAL_NEOX = "gpt_neox.final_layer_norm"


def attend(q, k, v, scale, window=None):
    """Causal attention, token by token; each sees the last `window` tokens, itself included."""
    batch, length, heads, _ = q.shape
    group = heads // k.shape[2]
    out = torch.zeros(batch, length, heads, v.shape[3], dtype=q.dtype)
    for b in range(batch):
        for t in range(length):
            first = 0 if window is None else max(0, t - window + 1)
            for h in range(heads):
                keys, values = k[b, first : t + 1, h // group], v[b, first : t + 1, h // group]
                pattern = torch.softmax(scale * keys @ q[b, t, h], dim=0)
                out[b, t, h] = pattern @ values
    return out.flatten(2)


def rotate(x, theta, width):
    """Rotary positions on each head's first `width` coordinates, i paired with i + width/2."""
    length, half = x.shape[1], width // 2
    out = x.clone()
    for t in range(length):
        for i in range(half):
            angle = t * theta ** (-2 * i / width)
            a, b = x[:, t, :, i], x[:, t, :, i + half]
            out[:, t, :, i] = a * math.cos(angle) - b * math.sin(angle)
            out[:, t, :, i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def heads_of(x, heads):
    return x.unflatten(-1, (heads, -1))


def gpt_neo_attention(run, n, p, block):
    heads, c = run.config.num_heads, run.config
    q, k, v = (heads_of(run.linear(n, f"{p}attn.attention.{x}_proj"), heads) for x in "qkv")
    window = c.window_size if c.attention_layers[block] == "local" else None
    return run.linear(attend(q, k, v, 1.0, window), p + "attn.attention.out_proj")


def gpt2_attention(run, n, p, block):
    q, k, v = (heads_of(x, run.config.n_head) for x in run.conv1d(n, p + "attn.c_attn").chunk(3, -1))
    return run.conv1d(attend(q, k, v, q.shape[-1] ** -0.5), p + "attn.c_proj")


def gpt_neox_attention(run, n, p, block):
    c = run.config
    q, k, v = heads_of(run.linear(n, p + "attention.query_key_value"), c.num_attention_heads).chunk(3, -1)
    theta, width = (
        c.rope_parameters["rope_theta"],
        int(q.shape[-1] * c.rope_parameters["partial_rotary_factor"]),
    )
    out = attend(rotate(q, theta, width), rotate(k, theta, width), v, q.shape[-1] ** -0.5)
    return run.linear(out, p + "attention.dense")


def llama_attention(run, n, p, block):
    c, p = run.config, p + "self_attn."
    q = heads_of(run.linear(n, p + "q_proj"), c.num_attention_heads)
    k, v = (heads_of(run.linear(n, p + x), c.num_key_value_heads) for x in ("k_proj", "v_proj"))
    if c.model_type == "qwen3":
        q, k = run.norm(q, p + "q_norm"), run.norm(k, p + "k_norm")
    theta, width = c.rope_parameters["rope_theta"], q.shape[-1]
    layers = getattr(c, "layer_types", None)
    windowed = c.model_type == "mistral" or (layers is not None and layers[block] == "sliding_attention")
    window = c.sliding_window if windowed else None
    out = attend(rotate(q, theta, width), rotate(k, theta, width), v, width**-0.5, window)
    return run.linear(out, p + "o_proj")


def gelu_tanh(h):
    return 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))


def gpt_neo_mlp(run, n, p):
    return run.linear(gelu_tanh(run.linear(n, p + "c_fc")), p + "c_proj")


def gpt2_mlp(run, n, p):
    return run.conv1d(gelu_tanh(run.conv1d(n, p + "c_fc")), p + "c_proj")


def gpt_neox_mlp(run, n, p):
    h = run.linear(n, p + "dense_h_to_4h")
    return run.linear(h * (1 + torch.erf(h / math.sqrt(2))) / 2, p + "dense_4h_to_h")


def llama_mlp(run, n, p):
    gate = run.linear(n, p + "gate_proj")
    gate = gelu_tanh(gate) if run.config.model_type == "gemma" else gate / (1 + torch.exp(-gate))
    return run.linear(gate * run.linear(n, p + "up_proj"), p + "down_proj")


ATTENTION = {"gpt_neo": gpt_neo_attention, "gpt2": gpt2_attention, "gpt_neox": gpt_neox_attention}
MLP = {"gpt_neo": gpt_neo_mlp, "gpt2": gpt2_mlp, "gpt_neox": gpt_neox_mlp}
