"""How much latents interact at one MLP: dominant and few-hot shares, the interaction T, and its bound.

docs/method.md; paper section 3. A token without an active latent has no interaction: shares 1, T 0.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.interactions.contributions import MlpContributions

_NEGLIGIBLE = 1e-8  # a sum of contributions below this counts as none: keeps the share's gradient finite


def _score(mlp: MlpContributions, sizes: Iterable[Float[Tensor, "B N"]]) -> Float[Tensor, "B N"]:
    """The dominance score of contributions of these sizes, one per path."""
    if mlp.gate is None:
        return next(iter(sizes))
    value_BN, gate_BN = (weight * size for weight, size in zip(mlp.path_weights(), sizes, strict=True))
    return value_BN + gate_BN


def _share(kept_BN: Tensor, total_BN: Tensor) -> Tensor:
    return 1 - (total_BN - kept_BN).clamp(min=0) / total_BN.clamp(min=_NEGLIGIBLE)


def dominant_share(mlp: MlpContributions) -> Float[Tensor, "B N"]:
    """The dominant latent's part of each neuron's contributions, max_i |p_ki| / sum_i |p_ki|, in (0, 1].

    Gated MLPs: the same of the dominance scores. 1 where nothing contributes. Differentiable in the
    contributions, with the dominant latent and the scores' weights held fixed.
    """
    total_BN = _score(mlp, (path.total_abs() for path in mlp.paths))
    return _share(_score(mlp, (p_BN.abs() for p_BN in mlp.dominant)), total_BN)


@torch.no_grad()
def few_hot_shares(
    mlp: MlpContributions, sizes: Sequence[int] = (1, 2, 4, 8)
) -> dict[int, Float[Tensor, "B N"]]:
    """The part of each neuron's contributions that its m largest make up, for each m in `sizes`.

    Never falls as m grows, and is 1 from m = K on. Errors: XtalkError for an m below 1.
    """
    total_BN = _score(mlp, (path.total_abs() for path in mlp.paths))
    slots_BmN = mlp.top_slots(max(sizes)) if min(sizes) > 0 else mlp.top_slots(min(sizes))
    kept_BN, shares = torch.zeros_like(total_BN), dict[int, Tensor]()
    for rank, slots_BN in enumerate(slots_BmN.unbind(1), start=1):
        kept_BN = kept_BN + _score(mlp, (path.at(slots_BN).abs() for path in mlp.paths))
        shares[rank] = _share(kept_BN, total_BN)
    return {m: shares[min(m, len(shares))] for m in sizes}


@torch.no_grad()
def interaction_weights(mlp: MlpContributions) -> tuple[Float[Tensor, "B N"], ...]:
    """What the interaction T charges, on each path, for a unit of another than the dominant contribution.

    Ordinary MLP: ||W_out[k]||. Gated: ||W_out[k]|| |phi(G_k)| on the value path, ||W_out[k]|| Lip(phi) |u*_k|
    on the gate path (`interaction`).
    """
    norm_BN = mlp.output_norm_BN
    if mlp.gate is None:
        return (norm_BN,)
    gate_BN = mlp.mlp.activation(mlp.gate.base_BN + mlp.totals[1])
    dominant_value_BN = mlp.value.base_BN + mlp.dominant[0]
    lipschitz = mlp.mlp.activation.lipschitz
    return norm_BN * gate_BN.abs(), norm_BN * lipschitz * dominant_value_BN.abs()


@torch.no_grad()
def interaction(mlp: MlpContributions) -> Float[Tensor, "B"]:
    """The interaction T of each token: what the latents that do not dominate could do to the MLP's output.

    Ordinary MLP: T = sum_k ||W_out[k]|| sum_{j != i*} |p_kj|.

    Gated MLP: neuron k is phi(G) U, with G and U the sums of base and all contributions, and phi(g*) u* with
    base and dominant contribution alone. Then
    phi(G) U - phi(g*) u* = phi(G) (U - u*) + (phi(G) - phi(g*)) u*, at most
    |phi(G)| |U - u*| + Lip(phi) |G - g*| |u*|, and the triangle inequality over j != i* gives

        T = sum_k ||W_out[k]|| sum_{j != i*} (|phi(G_k)| |u_kj| + Lip(phi) |u*_k| |g_kj|),

    a bound already, with Lip(phi) inside, and a sum over the others, so that it splits into pairs.
    Units: of the MLP's output; with a post-norm, of what it makes of a change at the token's scale, and
    ||W_out[k]|| is that of the neuron's direction behind it. Source: arXiv 2606.09940, section 3; gated MLPs
    and post-norms are xtalk's own.

    >>> relu = xtalk.activation_function("relu")
    >>> mlp = xtalk.MlpWeights(torch.ones(2, 1), torch.zeros(1), 2 * torch.ones(1, 2), torch.zeros(2), relu)
    >>> codes = xtalk.Codes(torch.tensor([[0, 1]]), torch.tensor([[3.0, 1.0]]), n_latents=2)
    >>> p = xtalk.MlpContributions(torch.eye(2), torch.zeros(2), codes, mlp)  # p_0 = 3, p_1 = 1
    >>> xtalk.interaction(p)  # |(2, 2)| times 1, that of the latent that does not dominate
    tensor([2.8284])
    """
    by_path = [
        ((path.total_abs() - dominant_BN.abs()).clamp(min=0) * weight_BN).sum(1)
        for path, dominant_BN, weight_BN in zip(
            mlp.paths, mlp.dominant, interaction_weights(mlp), strict=True
        )
    ]
    return torch.stack(by_path).sum(0)


def sound_bound(mlp: MlpContributions) -> Float[Tensor, "B"]:
    """At least ||MLP(n^) - MLP_dominant(n^)||, up to rounding: Lip(phi) T, or T of a gated MLP.

    With a post-norm, of the change behind it at the token's own scale (`MlpContributions.moved`).
    """
    T_B = interaction(mlp)
    return T_B if mlp.gate is not None else mlp.mlp.activation.lipschitz * T_B
