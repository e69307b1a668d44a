"""Certificates of theorem T1 in form "charts": second order around points that the training images give."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.proofs.certificates import Certificate, certify
from xtalk.proofs.t1.certificate import BITS, specification
from xtalk.proofs.t1.network import FiniteNetwork

_STEPS = 24  # of a neuron's reach on either side, at which its bend is evaluated
_RADII = 16  # that are tried for each chart


@dataclass(frozen=True)
class Charts:
    """M balls around points of the MLP's input, each for one label."""

    labels_M: Int[Tensor, "M"]
    points_MD: Float[Tensor, "M D"]
    radii_M: Float[Tensor, "M"]


def certify_by_charts(
    network: FiniteNetwork,
    charts: Charts,
    inputs_TI: Float[Tensor, "T I"],
    labels_T: Int[Tensor, "T"],
) -> Certificate:
    """The certificate that claims the most with these charts, each input in the one that suits it best.

    Errors: XtalkError where the checker refuses the certificate.
    """
    margins_TM = chart_margins(network, charts, network.embedded(inputs_TI), labels_T)
    units_M1D = torch.cat([charts.radii_M[:, None], charts.points_MD], 1).double() * 2.0**BITS
    rows = torch.cat([charts.labels_M[:, None], units_M1D.round().long()], 1)
    advice: dict[str, Any] = {
        "form": "charts",
        "bits": BITS,
        "charts": rows.tolist(),
        "codes": margins_TM.argmax(1).tolist(),
    }
    return certify(*specification(network, inputs_TI, labels_T), advice, len(labels_T))


@torch.no_grad()
def charts_of(
    network: FiniteNetwork,
    inputs_RI: Float[Tensor, "R I"],
    labels_R: Int[Tensor, "R"],
    per_label: int,
    seed: int = 0,
) -> Charts:
    """Around the means of clusters of each label's MLP inputs; each radius certifies the most of these.

    Errors: XtalkError for a label with fewer inputs than charts.
    """
    fewest = int(labels_R.bincount(minlength=network.sizes.classes).min())
    if fewest < per_label:
        raise XtalkError(f"{per_label} charts for each label; a label has {fewest} inputs; choose fewer")
    x_RD = network.embedded(inputs_RI).double()
    labels = torch.arange(network.sizes.classes).repeat_interleave(per_label)
    points = torch.cat(
        [
            torch.from_numpy(
                KMeans(per_label, random_state=seed).fit(x_RD[labels_R == label]).cluster_centers_
            )
            for label in range(network.sizes.classes)
        ]
    )
    best_M, most_M = torch.zeros(len(points)).double(), torch.full((len(points),), -1)
    for share in torch.linspace(1, 0, _RADII + 1)[:-1]:
        distance_MR = torch.cdist(points, x_RD).masked_fill(labels[:, None] != labels_R, torch.nan)
        radii_M = torch.nanquantile(distance_MR, float(share), dim=1)
        margins_RM = chart_margins(network, Charts(labels, points, radii_M), x_RD, labels_R)
        right_M = (margins_RM > 0).sum(0)
        better_M = right_M > most_M
        best_M, most_M = torch.where(better_M, radii_M, best_M), torch.where(better_M, right_M, most_M)
    return Charts(labels, points, best_M)


@torch.no_grad()
def chart_margins(
    network: FiniteNetwork,
    charts: Charts,
    x_TD: Float[Tensor, "T D"],
    labels_T: Int[Tensor, "T"],
) -> Float[Tensor, "T M"]:
    """In float64, what a chart proves of an input's least margin; -inf outside it or of another label.

    The range of a neuron's bend is that of its values at some steps, and so all but that of the theorem.
    """
    w_in, b_in = network.w_in.double(), network.b_in.double()
    w_out, unembed = network.w_out.double(), network.unembed.double()
    out_NC, phi, x_TD = w_out @ unembed, network.activation, x_TD.double()
    found_TM = torch.full((len(x_TD), len(charts.labels_M)), -torch.inf, dtype=torch.float64)
    steps_J = torch.linspace(-1, 1, 2 * _STEPS).double()  # an even number, so none is 0
    for chart, (label, point_D, radius) in enumerate(
        zip(charts.labels_M.tolist(), charts.points_MD.double(), charts.radii_M.tolist(), strict=True)
    ):
        e_TD = x_TD - point_D
        rows = ((labels_T == label) & (e_TD.norm(dim=1) <= radius)).nonzero()[:, 0]
        c_N, r_BN = point_D @ w_in + b_in, e_TD[rows] @ w_in
        slope_N = network.slope(c_N).detach()
        d_JN = steps_J[:, None] * radius * w_in.norm(dim=0) + 1e-12
        bend_JN = 2 * (phi(c_N + d_JN) - phi(c_N) - slope_N * d_JN) / d_JN.square()
        ahead_NC = out_NC[:, [label]] - out_NC
        ends_2NC = torch.stack([bend_JN.amin(0), bend_JN.amax(0)])[..., None] * ahead_NC
        direct_BC = (x_TD[rows] + network.b_out.double()) @ unembed + network.b_unembed.double()
        margins_BC = direct_BC[:, [label]] - direct_BC + (phi(c_N) + slope_N * r_BN) @ ahead_NC
        margins_BC += r_BN.square() @ ends_2NC.amin(0) / 2
        margins_BC[:, label] = torch.inf
        found_TM[rows, chart] = margins_BC.amin(1)
    return found_TM
