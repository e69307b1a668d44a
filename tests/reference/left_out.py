"""Figures of a crosscoder with first positions left out by hand: torch alone, no batches, no masks."""

import torch
from torch.nn import functional as F

from xtalk.models.hookpoints import Hookpoint


@torch.no_grad()
def read(model, crosscoder, tokens_mS):
    """Activations (m, S, P, D), dense codes (m, S, L), and their reconstruction."""
    points = list(map(model.hookpoint, crosscoder.config.hook_names))
    x = model.capture(tokens_mS, points).float()
    pre = torch.einsum("mspd,pdl->msl", x, crosscoder.W_enc) + crosscoder.b_enc
    f = torch.where((pre > crosscoder.threshold) & (pre > 0), pre, 0)
    return x, f, torch.einsum("msl,lpd->mspd", f, crosscoder.W_dec) + crosscoder.b_dec


@torch.no_grad()
def figures(model, crosscoder, tokens_mS, mean_D, block, skip):
    """FVU by hookpoint, T, dominant share, NMSE and fidelity of the full sum and of keep one, nats of both.

    An ordinary MLP. Positions before `skip` keep the model's own MLP output, and their losses do not count.
    """
    x, f, y = read(model, crosscoder, tokens_mS)
    x_left, y_left = x[:, skip:], y[:, skip:]
    squares = (x_left - x_left.mean((0, 1))).square().sum((0, 1, 3))
    fvu = (x_left - y_left).square().sum((0, 1, 3)) / squares

    ln2 = list(crosscoder.config.hook_names).index(f"blocks.{block}.ln2")
    mlp = model.mlp_weights(block)
    p = f[..., None] * (crosscoder.W_dec[:, ln2] @ mlp.W_in)  # (m, S, L, N)
    base = mlp.b_in + crosscoder.b_dec[ln2] @ mlp.W_in
    largest = p.abs().max(2)
    T = ((p.abs().sum(2) - largest.values) * mlp.W_out.norm(dim=1)).sum(2)[:, skip:].mean()
    share = (largest.values / p.abs().sum(2))[:, skip:].mean()

    own = mlp(model.capture(tokens_mS, [Hookpoint(block, "ln2")])[:, :, 0])
    kept = {"full": p.sum(2), "keep_1": p.gather(2, largest.indices[:, :, None])[:, :, 0]}
    rebuilt = {name: mlp.activation(base + sums) @ mlp.W_out + mlp.b_out for name, sums in kept.items()}
    variance = (own[:, skip:] - mean_D).square().sum()

    def loss(output):
        spliced = torch.cat([own[:, :skip], output[:, skip:]], dim=1)
        logits = model.logits_with_mlp_output(block, spliced, tokens_mS)[:, skip:-1]
        return F.cross_entropy(logits.double().flatten(0, 1), tokens_mS[:, skip + 1 :].flatten()).item()

    ce, ce_mean = loss(own), loss(mean_D.expand_as(own))
    lost = {name: loss(output) - ce for name, output in rebuilt.items()}
    return {
        "fvu": fvu.tolist(),
        "T": T.item(),
        "share": share.item(),
        "nmse": {n: ((o - own)[:, skip:].square().sum() / variance).item() for n, o in rebuilt.items()},
        "lost": lost,
        "ablation": ce_mean - ce,
        "phi": {name: 1 - value / (ce_mean - ce) for name, value in lost.items()},
    }
