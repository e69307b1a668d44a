"""Certificates of theorem T2: regions around what a crosscoder makes of inputs, as large as they hold."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.proofs.certificates import Certificate, certify
from xtalk.proofs.t1.certificate import BITS, explanation, specification
from xtalk.proofs.t1.network import FiniteNetwork

_LARGEST_RADIUS, _HALVINGS, _SHAVED = 16.0, 14, 0.99
_MOST_CONCAVE = 0.1085  # of GELU, where |h| is about 2


@dataclass(frozen=True)
class Balls:
    """A region around each of R centres x: strengths of `support_RK` latents move by up to `ratio` radii."""

    centre_RD: Float[Tensor, "R D"]
    support_RK: Int[Tensor, "R K"]
    labels_R: Int[Tensor, "R"]
    ratio: float


def certify_regions(
    network: FiniteNetwork,
    crosscoder: Crosscoder,
    inputs_TI: Float[Tensor, "T I"],
    labels_T: Int[Tensor, "T"],
    *,
    support: int = 2,
    ratio: float = 1.0,
    regions: int | None = None,
) -> tuple[Certificate, Float[Tensor, "R"]]:
    """The certificate of the regions that hold the most inputs, chosen greedily, and their radii.

    Each region is centred on what codes rebuild of an input, and lets the strengths of its `support`
    strongest latents move, each by `ratio` radii. regions: their largest number; None: all that add an input.
    Errors: XtalkError for codes of fewer latents, and where the checker refuses the certificate.
    """
    advice = explanation(network, crosscoder, inputs_TI)
    features_LD = torch.tensor(advice["features"]).double() * 2.0**-BITS
    balls = _balls(network, advice, features_LD, labels_T, support, ratio)
    radius_R = _radii(network, features_LD, balls)
    x_TD = network.embedded(inputs_TI).double().detach()
    moves_RTK, inside_RT = _members(features_LD, balls, radius_R, x_TD)
    inside_RT &= balls.labels_R[:, None] == labels_T
    chosen, of_input = _cover(inside_RT, regions)
    advice["regions"] = [_region(advice["codes"][r], balls, radius_R, r) for r in chosen]
    codes = advice["codes"]
    advice["codes"] = [
        [] if r is None else _code(r, codes[chosen[r]], balls.support_RK[chosen[r]], moves_RTK[chosen[r], t])
        for t, r in enumerate(of_input)
    ]
    spec, weights = specification(network, inputs_TI, labels_T)
    return certify(spec | {"theorem": "T2"}, weights, advice, len(labels_T)), radius_R[chosen]


def _balls(
    network: FiniteNetwork,
    advice: dict[str, Any],
    features_LD: Float[Tensor, "L D"],
    labels_T: Int[Tensor, "T"],
    support: int,
    ratio: float,
) -> Balls:
    """One for every input: its code's centre, and its strongest latents (the first ones of short codes)."""
    centres: list[Tensor] = []
    supports: list[list[int]] = []
    base_D = torch.tensor(advice["base"]).double() * 2.0**-BITS
    for code in advice["codes"]:
        latents, strengths = code[::2], torch.tensor(code[1::2]).double() * 2.0**-BITS
        sizes = strengths.abs() * features_LD[latents].norm(dim=1)
        centres.append(base_D + strengths @ features_LD[latents])
        supports.append([latents[i] for i in sizes.argsort(descending=True)[:support].tolist()])
    if min(map(len, supports)) < support:
        raise XtalkError(
            f"a code has fewer than {support} latents; expected {support} or more; lower support"
        )
    return Balls(
        torch.stack(centres),
        torch.tensor(supports, dtype=torch.long).view(len(supports), support),
        labels_T,
        ratio,
    )


@torch.no_grad()
def _radii(network: FiniteNetwork, features_LD: Float[Tensor, "L D"], balls: Balls) -> Float[Tensor, "R"]:
    """The largest radius at which a region seems to hold, a little shaved; 0 where none does."""
    low_R = torch.zeros(len(balls.centre_RD), dtype=torch.float64)
    high_R = torch.full_like(low_R, _LARGEST_RADIUS)
    for _ in range(_HALVINGS):
        middle_R = (low_R + high_R) / 2
        holds_R = _least_margin(network, features_LD, balls, middle_R) > 0
        low_R, high_R = torch.where(holds_R, middle_R, low_R), torch.where(holds_R, high_R, middle_R)
    return low_R * _SHAVED


def _least_margin(
    network: FiniteNetwork, features_LD: Float[Tensor, "L D"], balls: Balls, radius_R: Float[Tensor, "R"]
) -> Float[Tensor, "R"]:
    """The checker's bound in float64: tangents at the centres, and curvature over what is in reach."""
    w_in_DN, w_out_ND, unembed_DC = network.w_in.double(), network.w_out.double(), network.unembed.double()
    out_NC, span_RKD = w_out_ND @ unembed_DC, features_LD[balls.support_RK] * balls.ratio
    h_RN = balls.centre_RD @ w_in_DN + network.b_in.double()
    reach_RN = ((span_RKD @ w_in_DN).abs().sum(1) + w_in_DN.norm(dim=0)) * radius_R[:, None]
    nearest_RN = (h_RN.abs() - reach_RN).clamp(min=0)
    bend_RN = _curvature(network, nearest_RN).clamp(min=0) * reach_RN.square() / 2
    dent_RN = -_MOST_CONCAVE * reach_RN.square() / 2
    y_RD = balls.centre_RD + network.activation(h_RN) @ w_out_ND + network.b_out.double()
    logits_RC = y_RD @ unembed_DC + network.b_unembed.double()
    slope_RN = network.slope(h_RN).detach()
    linear_RDC = unembed_DC + torch.einsum("dn,rn,nc->rdc", w_in_DN, slope_RN, out_NC)
    rows = torch.arange(len(h_RN))
    ahead_RC = logits_RC[rows, balls.labels_R][:, None] - logits_RC
    ahead_RDC = linear_RDC[rows, :, balls.labels_R][..., None] - linear_RDC
    weight_RNC = out_NC.T[balls.labels_R][..., None] - out_NC
    curved_RC = torch.einsum("rnc,rn->rc", weight_RNC.clamp(min=0), dent_RN) + torch.einsum(
        "rnc,rn->rc", weight_RNC.clamp(max=0), bend_RN
    )
    swing_RC = torch.einsum("rkd,rdc->rkc", span_RKD, ahead_RDC).abs().sum(1) + ahead_RDC.norm(dim=1)
    margins_RC = ahead_RC + curved_RC - swing_RC * radius_R[:, None]
    return margins_RC.scatter(1, balls.labels_R[:, None], torch.inf).amin(1)


def _curvature(network: FiniteNetwork, h: Float[Tensor, "R N"]) -> Float[Tensor, "R N"]:
    with torch.enable_grad():
        h = h.detach().requires_grad_()
        return torch.autograd.grad(network.slope(h).sum(), h)[0]


def _members(
    features_LD: Float[Tensor, "L D"],
    balls: Balls,
    radius_R: Float[Tensor, "R"],
    x_TD: Float[Tensor, "T D"],
) -> tuple[Float[Tensor, "R T K"], Bool[Tensor, "R T"]]:
    """How far each input's strengths are from each centre's, kept in the box, and whether it is inside."""
    span_RKD = features_LD[balls.support_RK]
    away_RTD = x_TD - balls.centre_RD[:, None]
    limit_R11 = (radius_R * balls.ratio)[:, None, None]
    moves_RTK = (away_RTD @ torch.linalg.pinv(span_RKD)).clamp(-limit_R11, limit_R11)
    left_RT = (away_RTD - moves_RTK @ span_RKD).norm(dim=2)
    return moves_RTK, left_RT < radius_R[:, None] * _SHAVED


def _cover(inside_RT: Bool[Tensor, "R T"], regions: int | None) -> tuple[list[int], list[int | None]]:
    """Regions chosen one by one, each for the inputs that it adds; and the place of each input's region."""
    chosen: list[int] = []
    of_input: list[int | None] = [None] * inside_RT.shape[1]
    open_T = torch.ones(inside_RT.shape[1], dtype=torch.bool)
    while regions is None or len(chosen) < regions:
        added_R = (inside_RT & open_T).sum(1)
        best = int(added_R.argmax())
        if not added_R[best]:
            break
        for t in (inside_RT[best] & open_T).nonzero()[:, 0].tolist():
            of_input[t] = len(chosen)
        open_T &= ~inside_RT[best]
        chosen.append(best)
    return chosen, of_input


def _region(code: list[int], balls: Balls, radius_R: Float[Tensor, "R"], r: int) -> list[int]:
    """A label, a radius, and each latent of the code with the ends of its strength."""
    radius, moving = float(radius_R[r]), balls.support_RK[r].tolist()
    half = int(radius * balls.ratio * 2**BITS)
    row = [int(balls.labels_R[r]), int(radius * 2**BITS)]
    for latent, strength in zip(code[::2], code[1::2], strict=True):
        width = half if latent in moving else 0
        row += [latent, strength - width, strength + width]
    return row


def _code(
    region: int, code: list[int], support_K: Int[Tensor, "K"], moves_K: Float[Tensor, "K"]
) -> list[int]:
    """A region, and strengths of its latents: the centre's, moved."""
    moves = dict(zip(support_K.tolist(), (moves_K * 2**BITS).tolist(), strict=True))
    pairs = zip(code[::2], code[1::2], strict=True)
    return [region, *(strength + int(moves.get(latent, 0)) for latent, strength in pairs)]
