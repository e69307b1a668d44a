"""Certificates of theorem T1 for a language model: features as advice, and what the checker makes of them."""

import hashlib
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.models.mlp import MlpWeights
from xtalk.proofs.certificates import Certificate, certify_claim, container
from xtalk.proofs.t1_language.tail import MILLION, LanguageTail
from xtalk.proofs.t1_language.training import FeatureMlp

BITS = 32  # after the binary point, of directions, gains and knots
_WORST = 1 << 50  # micronats that every proof stays below, or the checker refuses it
_BINS = 400  # of a feature's readings, when knots are laid
_DIFFERENCE = 1e-3  # for second derivatives, in float64


def certify_loss(
    tail: LanguageTail,
    mlp: FeatureMlp | None,
    x_TD: Float[Tensor, "T D"],
    targets_T: Int[Tensor, "T"],
    *,
    network: MlpWeights | None = None,
    knots: int = 128,
) -> Certificate:
    """The certificate of the least cross-entropy that can be proven of the tail on these activations.

    mlp: the features in whose terms it is proven, and, unless `network` is another, the MLP that it is about;
    None proves it by running the tail. knots: for each feature's table, in the mean; more are longer and
    tighter.
    """
    weights = network or (tail.mlp if mlp is None else mlp.weights())
    spec, content = specification(tail, weights, x_TD, targets_T)
    advice: dict[str, Any] = {"form": "exact"}
    if mlp is not None:
        advice = {"form": "features"} | explanation(mlp, tail.to(torch.float64).norm_in(x_TD.double()), knots)
    total = len(targets_T)
    return certify_claim(
        spec,
        content,
        advice,
        {"micronats": _WORST, "tokens": total},
        lambda proven: {"micronats": proven["micronats"], "tokens": total},
    )


def specification(
    tail: LanguageTail, mlp: MlpWeights, x_TD: Float[Tensor, "T D"], targets_T: Int[Tensor, "T"]
) -> tuple[dict[str, Any], bytes]:
    """What a verifier asks (targets and the activations' hash), and the container of weights and data."""
    content = container(
        {
            "data.resid_mid": x_TD,
            "norm_in.weight": tail.norm_in.weight,
            "norm_in.bias": tail.norm_in.bias,
            "w_in": mlp.W_in,
            "b_in": mlp.b_in,
            "w_out": mlp.W_out,
            "b_out": mlp.b_out,
            "norm_out.weight": tail.norm_out.weight,
            "norm_out.bias": tail.norm_out.bias,
            "unembed": tail.unembed,
        }
    )
    values = x_TD.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").tobytes()
    task = {
        "data": hashlib.sha256(values).hexdigest(),
        "targets": targets_T.tolist(),
        "activation": mlp.activation.name,
        "epsilon": round(tail.norm_in.eps * MILLION),
    }
    digest = hashlib.sha256(content).hexdigest()
    return {"format": "xtalk.spec/1", "theorem": "T1 language", "weights": digest, "task": task}, content


@torch.no_grad()
def explanation(mlp: FeatureMlp, n_TD: Float[Tensor, "T D"], knots: int) -> dict[str, Any]:
    """Directions, gains and knots as integers; knots hold all readings of the inputs `n_TD`.

    What interpolation is charged is the integral of tokens x curvature / density of knots^2, and a knot costs
    as many products as its feature has neurons, so that the density goes with the cube root of
    tokens x curvature / neurons.
    """
    unit = 2.0**-BITS
    directions_FD = (mlp.directions.double() / unit).round()
    gains_N = (mlp.gains.double() / unit).round()
    readings_TF = n_TD.double() @ (directions_FD * unit).T
    low_F, high_F = readings_TF.amin(0) - 1e-6, readings_TF.amax(0) + 1e-6
    shares_B = (torch.arange(_BINS, dtype=torch.float64) + 0.5) / _BINS
    sizes_N = mlp.w_out.double().norm(dim=1)
    densities: list[Tensor] = []
    for i, (low, high) in enumerate(zip(low_F, high_F, strict=True)):
        own = mlp.features == i
        gain_M = gains_N[own] * unit
        h_BM = (low + (high - low) * shares_B)[:, None] * gain_M + mlp.b_in.double()[own]
        here, ahead, behind = (mlp.activation(h_BM + move) for move in (0, _DIFFERENCE, -_DIFFERENCE))
        bend_BM = ((ahead + behind - 2 * here) / _DIFFERENCE**2).abs()
        bend_B = bend_BM @ (sizes_N[own] * gain_M.square())
        tokens_B = torch.histc(readings_TF[:, i], _BINS, float(low), float(high)) + 1
        per_length = tokens_B * _BINS / (high - low)
        densities.append((per_length * bend_B / own.sum()).pow(1 / 3) * (high - low) / _BINS + 1e-9)
    total = torch.stack(densities).sum()
    laid: list[list[int]] = []
    for low, high, density_B in zip(low_F, high_F, densities, strict=True):
        passed_B = torch.cat([torch.zeros(1), density_B.cumsum(0)]).double() / density_B.sum()
        count = max(2, round(float(density_B.sum() / total) * knots * len(densities)))
        wanted = torch.linspace(0, 1, count, dtype=torch.float64)
        place = torch.searchsorted(passed_B, wanted).clamp(1, _BINS)
        part = (wanted - passed_B[place - 1]) / (passed_B[place] - passed_B[place - 1])
        position = (low + (high - low) * (place - 1 + part) / _BINS) / unit
        laid.append(sorted(set(position.round().long().tolist())))
    return {
        "bits": BITS,
        "directions": directions_FD.long().tolist(),
        "features": mlp.features.tolist(),
        "gains": gains_N.long().tolist(),
        "knots": laid,
    }
