"""Certificates of theorem T1: codes as advice, refitted and rounded, and what the checker makes of them."""

import hashlib
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.codes import Codes
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.proofs.certificates import Certificate, certify, container
from xtalk.proofs.t1.network import FiniteNetwork
from xtalk.proofs.t1.training import activations

Form = Literal["exact", "tables"]
BITS = 20  # after the binary point, of features and codes
_FIT_STEPS, _FIT_RATE = 300, 0.05  # of Adam, and of the strengths' standard deviation


def certify_accuracy(
    network: FiniteNetwork,
    crosscoder: Crosscoder,
    inputs_TI: Float[Tensor, "T I"],
    labels_T: Int[Tensor, "T"],
    form: Form = "tables",
    *,
    entries: int = 16,
) -> Certificate:
    """The certificate that the network is right on as many of the inputs as can be proven in this form.

    entries: of the table of a feature's effects, for "tables", in the mean: more are longer and tighter.
    """
    if form == "exact":
        return certify_exactly(network, inputs_TI, labels_T)
    advice: dict[str, Any] = {"form": form}
    advice |= explanation(network, crosscoder, inputs_TI, tight=True)
    advice["steps"] = _steps(network, advice, entries)
    return certify(*specification(network, inputs_TI, labels_T), advice, len(labels_T))


def certify_exactly(
    network: FiniteNetwork,
    inputs_TI: Float[Tensor, "T I"],
    labels_T: Int[Tensor, "T"],
) -> Certificate:
    """The certificate that runs the network on every input: brute force."""
    return certify(*specification(network, inputs_TI, labels_T), {"form": "exact"}, len(labels_T))


def specification(
    network: FiniteNetwork,
    inputs_TI: Float[Tensor, "T I"],
    labels_T: Int[Tensor, "T"],
) -> tuple[dict[str, Any], bytes]:
    """What a verifier asks (labels, and the inputs' hash), and the container of weights and inputs."""
    weights = container({**network.state_dict(), "data.inputs": inputs_TI})
    values = inputs_TI.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4").tobytes()
    task = {
        "data": hashlib.sha256(values).hexdigest(),
        "labels": labels_T.tolist(),
        "activation": network.activation.name,
        "residual": True,
        "arithmetic": "float32",
    }
    digest = hashlib.sha256(weights).hexdigest()
    return {"format": "xtalk.spec/1", "theorem": "T1", "weights": digest, "task": task}, weights


@torch.no_grad()
def explanation(
    network: FiniteNetwork, crosscoder: Crosscoder, inputs_TI: Float[Tensor, "T I"], *, tight: bool = False
) -> dict[str, Any]:
    """Base, features and codes as integers: the crosscoder's choice of latents, with strengths fitted anew.

    The fit minimises the size of the residual that the theorem charges for, sum_k spread_k (w_k.e)^2; or, if
    `tight`, what form "tables" charges for the residual and for pairs together.
    """
    unit = 2.0**-BITS
    x_TD, codes = (
        network.embedded(inputs_TI).double(),
        crosscoder.encode_sparse(activations(network, inputs_TI)),
    )
    features_LD = (crosscoder.W_dec[:, 0].double() / unit).round()
    base_D = (crosscoder.b_dec[0].double() / unit).round()
    strengths_TK = _refitted(network, codes, x_TD - base_D * unit, features_LD * unit)
    if tight:
        strengths_TK = _tightened(network, codes, strengths_TK, x_TD - base_D * unit, features_LD * unit)
    used = (codes.values > 0).tolist()
    return {
        "bits": BITS,
        "base": base_D.long().tolist(),
        "features": features_LD.long().tolist(),
        "codes": [
            [entry for i, s, active in zip(latents, row, actives, strict=True) if active for entry in (i, s)]
            for latents, row, actives in zip(
                codes.latents.tolist(), (strengths_TK / unit).round().long().tolist(), used, strict=True
            )
        ],
    }


def _refitted(
    network: FiniteNetwork,
    codes: Codes,
    target_TD: Float[Tensor, "T D"],
    features_LD: Float[Tensor, "L D"],
) -> Float[Tensor, "T K"]:
    """Strengths of the active latents that bring their sum closest to the target, in the theorem's norm."""
    metric_DN = network.w_in.double() * _spread(network).sqrt()
    active_TK1 = (codes.values > 0)[..., None]
    images_TKN = features_LD[codes.latents] @ metric_DN * active_TK1
    # A little weight on staying small keeps twin latents apart; inactive ones stay 0.
    gram_TKK = images_TKN @ images_TKN.mT
    gram_TKK = gram_TKK + 1e-9 * torch.eye(gram_TKK.shape[1], dtype=torch.float64) * (
        1 + gram_TKK.abs().amax()
    )
    return torch.linalg.solve(gram_TKK, images_TKN @ (target_TD @ metric_DN)[..., None])[..., 0]


def _tightened(
    network: FiniteNetwork,
    codes: Codes,
    strengths_TK: Float[Tensor, "T K"],
    target_TD: Float[Tensor, "T D"],
    features_LD: Float[Tensor, "L D"],
) -> Float[Tensor, "T K"]:
    """Strengths of the active latents that are charged less than the given ones, in form "tables".

    The best of Adam's steps for each input, the given strengths among them. Cost of a step: T K (K + D).
    """
    w_in_DN, spread_N, active_TK = network.w_in.double(), _spread(network), codes.values > 0
    square_DD, size_LN = w_in_DN * spread_N @ w_in_DN.T, (features_LD @ w_in_DN).abs()
    pairs_LL = size_LN * spread_N @ size_LN.T
    own_TK = pairs_LL.diagonal()[codes.latents]
    pairs_TKK = pairs_LL[codes.latents[:, :, None], codes.latents[:, None, :]]

    def charge(strengths_TK: Float[Tensor, "T K"]) -> Float[Tensor, "T"]:
        e_TD = target_TD - torch.einsum("tk,tkd->td", strengths_TK, features_LD[codes.latents])
        size_T = ((e_TD @ square_DD * e_TD).sum(1) + 1e-12).sqrt()
        magnitude_TK = strengths_TK.abs()
        twice_T = torch.einsum("tk,tkj,tj->t", magnitude_TK, pairs_TKK, magnitude_TK)
        crosstalk_T = (twice_T - (magnitude_TK.square() * own_TK).sum(1)) / 2
        return crosstalk_T + size_T * (magnitude_TK * own_TK.sqrt()).sum(1) + size_T.square() / 2

    best_TK, least_T = strengths_TK * active_TK, charge(strengths_TK * active_TK)
    moving_TK, rate = best_TK.clone().requires_grad_(), _FIT_RATE * float(best_TK.std())
    optimiser = torch.optim.Adam([moving_TK], lr=rate)
    for step in range(_FIT_STEPS):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / _FIT_STEPS)
        with torch.enable_grad():
            charge_T = charge(moving_TK * active_TK)
            (moving_TK.grad,) = torch.autograd.grad(charge_T.sum(), moving_TK)
        better_T = charge_T.detach() < least_T
        best_TK = torch.where(better_T[:, None], moving_TK.detach() * active_TK, best_TK)
        least_T = torch.where(better_T, charge_T.detach(), least_T)
        optimiser.step()
    return best_TK


def _steps(network: FiniteNetwork, advice: dict[str, Any], entries: int) -> list[int]:
    """For each latent the distance of its table's entries, of which there are `entries` in the mean.

    Interpolation is charged A_i step_i^2 for latent i, which has range_i / step_i entries; the sum of the
    charges is least, for a given number of entries, where step_i goes with the cube root of range_i / A_i.
    """
    features_LD = torch.tensor(advice["features"], dtype=torch.float64) * 2.0**-BITS
    charge_L = (features_LD @ network.w_in.detach().double()).square() @ _spread(network)
    ends_L2 = torch.zeros(len(features_LD), 2, dtype=torch.float64)
    for code in advice["codes"]:
        for i, strength in zip(code[::2], code[1::2], strict=True):
            ends_L2[i, 0], ends_L2[i, 1] = min(ends_L2[i, 0], strength), max(ends_L2[i, 1], strength)
    range_L = ends_L2[:, 1] - ends_L2[:, 0]
    step_L = (range_L / charge_L.clamp(min=1e-9)).pow(1 / 3).clamp(min=1e-9)
    scale = (range_L / step_L).sum() / (entries * (range_L > 0).sum()).clamp(min=1)
    return (step_L * scale).round().clamp(min=1).long().tolist()


def _spread(network: FiniteNetwork) -> Float[Tensor, "N"]:
    """The largest difference between a neuron's weights on two logits."""
    out_NC = (network.w_out @ network.unembed).detach().double()
    return out_NC.amax(1) - out_NC.amin(1)
