"""Figures that cannot be right are named; figures that can are left alone."""

from dataclasses import replace

import pytest
from evaluation.held_out import random_crosscoder
from evaluation.test_counted import evaluated, with_sink

from xtalk.data import ALL, Counted
from xtalk.evaluation.plausible import implausible
from xtalk.statistics.interval import Interval

AT = "blocks.1.ln2"


@pytest.fixture(scope="module")
def good():
    """An evaluation in which nothing is odd, and its crosscoder's config."""
    model = with_sink(times=1.0)
    crosscoder = random_crosscoder(model)
    evaluation, _ = evaluated(model, crosscoder, ALL)
    reconstruction = evaluation.reconstruction
    calm = dict.fromkeys(reconstruction.fvu_by_hookpoint, 0.2)
    fidelity = [
        replace(
            row, ablation=Interval(0.5, 0.4, 0.6), phi={name: Interval(0.8, 0.7, 0.9) for name in row.phi}
        )
        for row in evaluation.fidelity
    ]
    reconstruction = replace(reconstruction, fvu=0.2, fvu_by_hookpoint=calm, l0=4.0)
    return replace(evaluation, reconstruction=reconstruction, fidelity=tuple(fidelity)), crosscoder.config


def changed(evaluation, **figures):
    return replace(evaluation, reconstruction=replace(evaluation.reconstruction, **figures))


def test_nothing_is_said_of_figures_that_can_be_right(good):
    assert implausible(*good, positions=8) == []


def test_each_odd_figure_is_named(good):
    evaluation, config = good
    names = list(evaluation.reconstruction.fvu_by_hookpoint)
    one = {
        "335 at blocks.1.ln2": changed(evaluation, fvu_by_hookpoint={AT: 335.0}),
        "nan at all hookpoints": changed(evaluation, fvu=float("nan")),
        "blocks.1.ln2 has 90% of the variance of 13": changed(
            evaluation, variance_share={name: 0.9 if name == AT else 0.1 / 12 for name in names}
        ),
        "position 0 has 97% of the squared norms at blocks.1.ln2": changed(
            evaluation, position_share={AT: (0, 0.97)}
        ),
        "40.0 latents are active per token, and K is 4": changed(evaluation, l0=40.0),
        "0.5 latents are active": changed(evaluation, l0=0.5),
    }
    for words, odd in one.items():
        [sentence] = implausible(odd, config, positions=8)
        assert words in sentence
    assert (
        implausible(one["0.5 latents are active"], config.model_copy(update={"architecture": "relu"}), 8)
        == []
    )


def test_fidelity_that_is_absurd_or_noise_is_named(good):
    evaluation, config = good
    rows = [
        replace(row, phi={**row.phi, "full": Interval(-21.0, -30.0, -9.0)})
        if (row.block, row.resid_mid, row.baseline) == (2, "model", "mean")
        else replace(row, ablation=Interval(0.01, -0.02, 0.04)) if row.block == 1 else row
        for row in evaluation.fidelity
    ]  # fmt: skip
    absurd, noise = implausible(replace(evaluation, fidelity=tuple(rows)), config, positions=8)
    lost = next(r for r in rows if (r.block, r.resid_mid, r.baseline) == (2, "model", "mean")).lost["full"]
    assert "is -21 at block 2 (resid_mid of the model)" in absurd
    assert f"they lose {lost.value:.2g} nat, {lost.low:.2g} to {lost.high:.2g}" in absurd
    assert "ablating costs 0.5 nat, 0.4 to 0.6" in absurd
    assert "almost nothing at block 1 (0.01 nat, -0.02 to 0.04)" in noise


def test_all_blocks_at_once_are_named_in_words(good):
    evaluation, config = good
    rows = [
        replace(row, phi={**row.phi, "full": Interval(-2.0, -3.0, -1.0)}) if row.block == "all" else row
        for row in evaluation.fidelity
    ]
    [absurd] = implausible(replace(evaluation, fidelity=tuple(rows)), config, positions=8)
    assert "is -2 at all blocks but 0 at once (resid_mid of the model)" in absurd


def test_a_sink_is_noticed_and_skipping_it_mends_that():
    model = with_sink()
    crosscoder = random_crosscoder(model)
    said = [
        " ".join(implausible(evaluated(model, crosscoder, Counted(skip))[0], crosscoder.config, 8 - skip))
        for skip in (0, 1)
    ]
    assert "position 0 has" in said[0] and "an attention sink" in said[0]
    assert "an attention sink" not in said[1]


def test_the_weighed_mean_is_not_ruled_by_a_block_that_costs_nothing():
    model = with_sink(times=1.0)
    evaluation, _ = evaluated(model, random_crosscoder(model), ALL)
    rows = {r.block: r for r in evaluation.fidelity if (r.resid_mid, r.baseline) == ("model", "mean")}
    blocks = [rows[block] for block in evaluation.averaged]
    mean = rows["mean"]
    for scheme in ("full", "keep_1"):
        lost = sum(row.lost[scheme].value for row in blocks)
        ablation = sum(row.ablation.value for row in blocks)
        assert mean.weighed[scheme].value == pytest.approx(1 - lost / ablation)
        assert mean.phi[scheme].value == pytest.approx(
            sum(row.phi[scheme].value for row in blocks) / len(blocks)
        )
        assert mean.lost[scheme].value == pytest.approx(lost / len(blocks))
        assert mean.weighed[scheme].low <= mean.weighed[scheme].value <= mean.weighed[scheme].high
    assert mean.weighed["full"].value != pytest.approx(mean.phi["full"].value, rel=1e-3)
