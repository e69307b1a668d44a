"""Every family's forward pass written out in plain tensor maths: the slow twin of capture.

Reads a state dict and a configuration, calls no Hugging Face module, and names what it computes as the
hookpoints do, plus `blocks.I.mlp_out` (in front of a norm of its own) and `logits`. Works in float64.
"""

from reference.hand_layers import ATTENTION, EMBED, LOGITS, MLP, NAMES, norm
from torch import Tensor

PARALLEL = ("gptj", "phi", "cohere", "falcon")


def hand_forward(state, config, tokens, replace=None) -> dict[str, Tensor]:
    """All activations of a model, by name; those named in `replace` are replaced as they are computed."""
    run = Run({name: value.double() for name, value in state.items()}, config, replace or {})
    run.forward(tokens)
    return run.seen


class Run:
    """A pass: weights by name, configuration, and what was seen."""

    def __init__(self, weights, config, replace):
        self.w, self.config, self.replace, self.seen = weights, config, replace, {}
        self.kind = config.model_type
        self.names = NAMES[variant(config)]

    def note(self, name, value):
        value = self.replace[name].double() if name in self.replace else value
        self.seen[name] = value
        return value

    def forward(self, tokens):
        names, c = self.names, self.config
        multiplier = getattr(c, "residual_multiplier", 1.0)
        x = EMBED.get(self.kind, EMBED["llama"])(self, tokens)
        for i in range(c.num_hidden_layers):
            p = f"{names['blocks']}.{i}."
            x = self.note(f"blocks.{i}.resid_pre", x)
            n = self.note(f"blocks.{i}.ln1", self.norm_at(x, p, "norm1"))
            out = ATTENTION.get(self.kind, ATTENTION["llama"])(self, n, p, i)
            mid = self.note(f"blocks.{i}.resid_mid", x + multiplier * self.norm_at(out, p, "post1"))
            n = self.note(f"blocks.{i}.ln2", self.norm_at(x if self.parallel else mid, p, "norm2"))
            out = multiplier * MLP.get(self.kind, MLP["llama"])(self, n, p)
            out = self.note(f"blocks.{i}.mlp_out", out)
            x = self.note(f"blocks.{i}.resid_post", mid + self.norm_at(out, p, "post2"))
        x = norm(self, x, names["final"])
        self.note("logits", LOGITS.get(self.kind, LOGITS["llama"])(self, x))

    def norm_at(self, x, p, place):
        """The norm at a place of a block, where its architecture has one."""
        name = self.names[place]
        return x if name is None else norm(self, x, p + name)

    @property
    def parallel(self):
        c = self.config
        if self.kind in ("gpt_neox", "stablelm"):
            return c.use_parallel_residual
        return self.kind in PARALLEL and getattr(c, "parallel_attn", True)

    def linear(self, x, name):
        out = x @ self.w[name + ".weight"].T
        return out + self.w[name + ".bias"] if name + ".bias" in self.w else out

    def conv1d(self, x, name):
        return x @ self.w[name + ".weight"] + self.w[name + ".bias"]


def variant(c):
    """The kind whose norms a configuration asks for."""
    if c.model_type == "stablelm" and c.use_parallel_residual:
        return "stablelm-parallel"
    if c.model_type != "falcon" or (c.parallel_attn and not c.new_decoder_architecture):
        return c.model_type
    return "falcon-new" if c.new_decoder_architecture else "falcon-sequential"
