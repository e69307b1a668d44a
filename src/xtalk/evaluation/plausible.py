"""Figures that cannot be right, or say nothing: a sentence for each, to stand beside them."""

from collections.abc import Sequence

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.evaluation.evaluate import Evaluation
from xtalk.evaluation.fidelity import Fidelity
from xtalk.statistics.interval import Interval

MOST = 0.5  # of the variance, or of the squared norms
UNEVEN = 4.0  # times an even share, for one of few hookpoints or positions
FAR = 2.0  # times K, or less than K over it
LOWEST = -1.0  # fidelity of all contributions: twice as bad as the ablated MLP


def implausible(evaluation: Evaluation, config: CrosscoderConfig, positions: int) -> list[str]:
    """Warnings about an evaluation, each a sentence that names the figure, its place and what it may mean.

    FVU above 1; one hookpoint or position with most of the variance; L0 far from K; full fidelity below -1;
    an MLP whose ablation costs so little that its ratio is noise. positions: how many count of a sequence.
    """
    return [
        *_fvu(evaluation),
        *_shares(evaluation, positions),
        *_sparsity(evaluation, config),
        *odd_fidelities(evaluation.fidelity),
    ]


def _fvu(evaluation: Evaluation) -> list[str]:
    found = {"all hookpoints together": evaluation.reconstruction.fvu}
    found |= evaluation.reconstruction.fvu_by_hookpoint
    bad = [f"{fvu:.3g} at {where}" for where, fvu in found.items() if not fvu <= 1]
    if not bad:
        return []
    return [f"FVU above 1, worse than the mean activation: {', '.join(bad)}; train longer"]


def _shares(evaluation: Evaluation, positions: int) -> list[str]:
    reconstruction, said = evaluation.reconstruction, list[str]()
    hookpoints = len(reconstruction.variance_share)
    for name, share in reconstruction.variance_share.items():
        if share > max(MOST, UNEVEN / hookpoints):
            said.append(
                f"{name} has {share:.0%} of the variance of {hookpoints} hookpoints: recon and FVU are about "
                "it alone"
            )
    for name, (position, share) in reconstruction.position_share.items():
        if share > max(MOST, UNEVEN / positions):
            said.append(
                f"position {position} has {share:.0%} of the squared norms at {name}: an attention sink; "
                "figures are about it alone unless it is skipped"
            )
    return said


def _sparsity(evaluation: Evaluation, config: CrosscoderConfig) -> list[str]:
    l0, k, kind = evaluation.reconstruction.l0, config.k, nonlinearity(config.architecture)
    asked_for_k = (kind.infers_by_k or kind.infers_by_threshold) and k < config.d_sae  # else it is unknown
    if not asked_for_k or k / FAR <= l0 <= k * FAR:
        return []
    return [
        f"{l0:.1f} latents are active per token, and K is {k}: the threshold was calibrated on other "
        "activations"
    ]


def odd_fidelities(rows: Sequence[Fidelity]) -> list[str]:
    """Warnings about fidelities: far below that of no MLP, or a ratio to an ablation that costs nothing.

    Both with the nats, and their intervals.
    """
    said: list[str] = []
    blocks = [row for row in rows if row.block != "mean" and row.baseline == "mean"]
    for row in blocks:
        if row.phi["full"].value < LOWEST:
            said.append(
                f"fidelity of all contributions is {row.phi['full'].value:.3g} at {_where(row)} "
                f"(resid_mid of the {row.resid_mid}), far worse than no MLP: they lose "
                f"{_nats(row.lost['full'])}, and ablating costs {_nats(row.ablation)}"
            )
    costless = {
        _where(row): row.ablation for row in blocks if row.resid_mid == "model" and _noise(row.ablation)
    }
    if costless:
        listed = ", ".join(f"{where} ({_nats(cost)})" for where, cost in costless.items())
        said.append(
            f"ablating the MLP costs almost nothing at {listed}: its fidelity is a ratio to noise; "
            "read the nats, or the mean that is weighed by what ablation costs"
        )
    return said


def _where(row: Fidelity) -> str:
    names = {"all": "all blocks but 0 at once", "all_with_0": "all blocks at once"}
    return names.get(str(row.block), f"block {row.block}")


def _nats(loss: Interval) -> str:
    return f"{loss.value:.2g} nat, {loss.low:.2g} to {loss.high:.2g}"


def _noise(cost: Interval) -> bool:
    """Whether a cost is hardly told from nothing: less than three times half its interval."""
    return cost.value <= 1.5 * (cost.high - cost.low)
