"""The training loss from dense codes and autograd alone: slow, obvious, differentiable."""

import torch
from torch import Tensor
from torch.nn import functional as F

from xtalk.crosscoder.crosscoder import Crosscoder

BANDWIDTH, LEAK = 0.05, 0.1  # of JumpReLU's pseudo-derivative; of the auxiliary loss


def gates(crosscoder: Crosscoder, pre_BL: Tensor) -> Tensor:
    """(B, L): 1 where a latent is active, 0 elsewhere; with JumpReLU's gradient to the threshold."""
    k, threshold_L = crosscoder.config.k, crosscoder.threshold
    if crosscoder.config.architecture == "relu":
        return (pre_BL > 0).float()
    if crosscoder.config.architecture == "topk":
        return (pre_BL >= pre_BL.sort(dim=1, descending=True).values[:, k - 1 : k]).float()
    if crosscoder.config.architecture == "batchtopk":
        return (pre_BL > pre_BL.flatten().sort(descending=True).values[k * len(pre_BL)]).float()
    near_BL = ((pre_BL - threshold_L).abs() < BANDWIDTH / 2) & (pre_BL > 0)
    pseudo_BL = -near_BL.float() * threshold_L / BANDWIDTH
    return ((pre_BL > threshold_L) & (pre_BL > 0)).float() + pseudo_BL - pseudo_BL.detach()


def dense_loss(
    crosscoder: Crosscoder, x_BPD: Tensor, dead_L: Tensor, aux: float, sparsity: float
) -> tuple[Tensor, Tensor]:
    """Reconstruction, auxiliary and sparsity loss, weighted and added up; and the codes (B, L)."""
    pre_BL = torch.einsum("bpd,pdl->bl", x_BPD, crosscoder.W_enc) + crosscoder.b_enc
    gate_BL = gates(crosscoder, pre_BL.detach())
    f_BL = pre_BL.relu() * gate_BL
    error_BPD = x_BPD - torch.einsum("bl,lpd->bpd", f_BL, crosscoder.W_dec) - crosscoder.b_dec
    loss = error_BPD.square().sum((1, 2)).mean()
    if aux and len(dead_L):
        k = min(len(dead_L), 2 * crosscoder.config.k)
        chosen_BK = dead_L[pre_BL[:, dead_L].topk(k, dim=1).indices]
        leaky_BL = F.leaky_relu(pre_BL, LEAK) * torch.zeros_like(pre_BL).scatter(1, chosen_BK, 1.0)
        left_BPD = error_BPD.detach() - torch.einsum("bl,lpd->bpd", leaky_BL, crosscoder.W_dec)
        loss = loss + aux * left_BPD.square().sum((1, 2)).mean()
    if sparsity and crosscoder.config.architecture == "jumprelu":
        loss = loss + sparsity * (gate_BL.sum(1).mean() / crosscoder.config.k - 1).square()
    elif sparsity:
        loss = loss + sparsity * (f_BL * crosscoder.W_dec.flatten(1).norm(dim=1)).sum(1).mean()
    return loss, f_BL
