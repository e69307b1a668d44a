"""Figures of a crosscoder in a Llama-like model, from transformers' own model and torch: nothing of xtalk.

The crosscoder reads and writes the MLP inputs of some blocks: W_enc (P, D, L), W_dec (L, P, D), the K largest
pre-activations of a token. Positions before `skip` are left out by hand.
"""

import math
from contextlib import contextmanager

import torch
from torch.nn import functional as F

LIPSCHITZ = 1.0998393194  # the largest slope of SiLU, at x = 2.3994


@contextmanager
def hooked(*pairs):
    """Forward hooks on modules for a while; each gets the module's output, and may give another."""
    handles = [
        module.register_forward_hook(lambda _, given, out, hook=hook: hook(out)) for module, hook in pairs
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def activations(hf, tokens_mS, blocks):
    """The MLP inputs of some blocks (m, S, P, D), those MLPs' own outputs by block, and the logits."""
    inputs, outputs = {}, {}
    pairs = []
    for block in blocks:
        layer = hf.model.layers[block]
        pairs.append((layer.post_attention_layernorm, lambda out, b=block: inputs.update({b: out})))
        pairs.append((layer.mlp, lambda out, b=block: outputs.update({b: out})))
    with hooked(*pairs):
        logits = hf(input_ids=tokens_mS, use_cache=False).logits
    return torch.stack([inputs[b] for b in blocks], dim=2), outputs, logits


def loss(logits_mSV, tokens_mS, skip):
    """Mean cross-entropy of the tokens after a position that counts, nat."""
    logits, targets = logits_mSV[:, skip:-1], tokens_mS[:, skip + 1 :]
    rows = zip(logits.double(), targets, strict=True)
    parts = [F.cross_entropy(row, t, reduction="sum").item() for row, t in rows]
    return math.fsum(parts) / targets.numel()


@torch.no_grad()
def codes(x_mSPD, W_enc, b_enc, k):
    """Dense codes (m, S, L): the K largest pre-activations, where they are positive."""
    pre = torch.einsum("mspd,pdl->msl", x_mSPD, W_enc) + b_enc
    values, latents = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, latents, values.clamp(min=0))


@torch.no_grad()
def fvu(x_mSPD, f_mSL, W_dec, b_dec, skip):
    """The squared error over the variance about the mean, by hookpoint, float64."""
    y = torch.einsum("msl,lpd->mspd", f_mSL, W_dec) + b_dec
    x, y = x_mSPD[:, skip:].double(), y[:, skip:].double()
    variance_P = (x - x.mean((0, 1))).square().sum((0, 1, 3))
    return ((x - y).square().sum((0, 1, 3)) / variance_P).tolist()


@torch.no_grad()
def one_token(f_L, d_LD, bias_D, mlp):
    """T and dominant share of one token at a gated MLP, and its neurons with all and with one latent.

    A latent i adds g_ki to neuron k's gate and u_ki to its value; G_k and U_k are the sums with the bases.
    The neuron is phi(G_k) U_k. To first order latent i moves it by at most
    Lip |U_k| |g_ki| + |phi(G_k)| |u_ki|: the dominant latent has the largest of these, and the dominant share
    is its part of their sum. With g*, u* of base and dominant latent alone,
    phi(G) U - phi(g*) u* = phi(G) (U - u*) + (phi(G) - phi(g*)) u*, which
    T = sum_k |W_out[k]| sum_{j not dominant} (|phi(G_k)| |u_kj| + Lip |u*_k| |g_kj|) bounds.
    """
    active = f_L.nonzero()[:, 0]
    parts_KD = f_L[active, None] * d_LD[active]
    g_KN, u_KN = parts_KD @ mlp.gate_proj.weight.T, parts_KD @ mlp.up_proj.weight.T
    g_base_N, u_base_N = bias_D @ mlp.gate_proj.weight.T, bias_D @ mlp.up_proj.weight.T
    G_N, U_N = g_base_N + g_KN.sum(0), u_base_N + u_KN.sum(0)
    effect_KN = LIPSCHITZ * U_N.abs() * g_KN.abs() + F.silu(G_N).abs() * u_KN.abs()
    best_N = effect_KN.argmax(0)
    g_best_N, u_best_N = (p_KN.gather(0, best_N[None])[0] for p_KN in (g_KN, u_KN))
    share = (effect_KN.max(0).values / effect_KN.sum(0)).mean()
    u_star_N = u_base_N + u_best_N
    others_N = F.silu(G_N).abs() * (u_KN.abs().sum(0) - u_best_N.abs())
    others_N += LIPSCHITZ * u_star_N.abs() * (g_KN.abs().sum(0) - g_best_N.abs())
    T = (mlp.down_proj.weight.norm(dim=0) * others_N).sum()
    return T, share, F.silu(G_N) * U_N, F.silu(g_base_N + g_best_N) * u_star_N


@torch.no_grad()
def interaction(f_mSL, d_LD, bias_D, mlp, skip):
    """T and share, means over tokens that count, and the MLP outputs (m, S - skip, D) of both schemes."""
    Ts, shares, full, kept = zip(
        *(one_token(f_L, d_LD, bias_D, mlp) for f_SL in f_mSL for f_L in f_SL[skip:]), strict=True
    )
    outputs = {
        name: mlp.down_proj(torch.stack(neurons)).view(len(f_mSL), -1, d_LD.shape[1])
        for name, neurons in (("full", full), ("keep_1", kept))
    }
    return torch.stack(Ts).double().mean().item(), torch.stack(shares).double().mean().item(), outputs


@torch.no_grad()
def loss_with(hf, tokens_mS, block, output_mTD, skip):
    """The loss where the MLP of a block puts out something else, but at the first `skip` positions."""

    def spliced(own_mSD):
        return torch.cat([own_mSD[:, :skip], output_mTD], dim=1)

    with hooked((hf.model.layers[block].mlp, spliced)):
        return loss(hf(input_ids=tokens_mS, use_cache=False).logits, tokens_mS, skip)
