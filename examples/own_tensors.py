"""Interaction from tensors alone: an MLP's weights, a decoder at its input, and codes."""

import torch

import xtalk
from xtalk.interactions import dominant_share, sound_bound

torch.manual_seed(0)
B, D, L, N = 200, 16, 64, 48  # tokens, width, latents, neurons
W_in, W_out = torch.randn(D, N) / D**0.5, torch.randn(N, D) / N**0.5
mlp = xtalk.MlpWeights(W_in, torch.zeros(N), W_out, torch.zeros(D), xtalk.activation_function("gelu"))
decoder = torch.nn.functional.normalize(torch.randn(L, D), dim=-1)
f = torch.relu(torch.randn(B, L) - 1.5)  # codes: about 4 of 64 are active

p = xtalk.MlpContributions(decoder, torch.zeros(D), xtalk.Codes.from_dense(f), mlp)
lost = (p.output(p.totals) - p.output(p.keep(1))).norm(dim=-1)  # by keeping one contribution per neuron
print(f"T {xtalk.interaction(p).mean():.3f}, dominant share {dominant_share(p).mean():.3f}")
print(f"lost {lost.mean():.3f}, bound {sound_bound(p).mean():.3f}")
assert (lost <= sound_bound(p) + 1e-5).all()  # rounding
