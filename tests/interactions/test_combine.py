"""Matrices of several sites in one: against sums of dense relative matrices."""

import dataclasses

import numpy as np
import pytest

from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix, combine
from xtalk.interactions.pairs import PairInteractions
from xtalk.selftest.cases import ACTIVATIONS, L, contributions, random_case


def site(seed: int, parts: tuple[str, ...], top: int | None, n_latents: int = L) -> PairMatrix:
    """A matrix of three documents, its own pairs and units."""
    pairs = PairInteractions(n_latents, parts)
    for number in range(3):
        cases = (random_case(ACTIVATIONS[1], False, 10 * seed + number) for _ in parts)
        cases = (case._replace(latents_BK=case.latents_BK % n_latents) for case in cases)
        made = {part: contributions(case) for part, case in zip(parts, cases, strict=True)}
        pairs.add(made, np.full(4, number))
    return pairs.result(top)


@pytest.fixture
def sites() -> dict[str, PairMatrix]:
    return {"mlp": site(0, ("blocks.0", "blocks.1"), top=2), "qk": site(1, ("blocks.0",), top=1)}


def test_relative_interactions_add_up(sites):
    both = combine(sites)
    assert both.parts == ("mlp", "qk")
    relative = {name: m.interactions("sum", "relative").toarray() for name, m in sites.items()}
    for name, expected in relative.items():
        np.testing.assert_allclose(both.interactions(name).toarray(), expected, rtol=1e-12)
        np.testing.assert_allclose(both.interactions(name, "relative").toarray(), expected, rtol=1e-12)
    summed = relative["mlp"] + relative["qk"]
    np.testing.assert_allclose(both.interactions().toarray(), summed, rtol=1e-12)
    np.testing.assert_allclose(both.interactions("sum", "relative").toarray(), summed / 2, rtol=1e-12)
    listed = {name: m.interactions().toarray() > 0 for name, m in sites.items()}
    assert (listed["mlp"] & ~listed["qk"]).any()
    assert (listed["qk"] & ~listed["mlp"]).any()
    counts = sum(m.co_active().toarray() for m in sites.values())
    np.testing.assert_array_equal(both.co_active().toarray(), counts)


def test_totals_and_errors_are_those_of_the_sites(sites):
    both = combine(sites)
    whole = {name: float(m.totals_P.sum()) / m.tokens for name, m in sites.items()}
    for totals in ("row_totals", "column_totals"):
        expected = sum(getattr(m, totals)() / whole[name] for name, m in sites.items())
        np.testing.assert_allclose(getattr(both, totals)(), expected, rtol=1e-12)
    errors = [m.standard_errors("sum", "relative").toarray() for m in sites.values()]
    np.testing.assert_allclose(both.standard_errors("qk").toarray(), errors[1], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(both.standard_errors().toarray(), sum(errors), rtol=1e-5, atol=1e-12)
    assert errors[0].max() > 0
    np.testing.assert_array_equal(both.active_L, sites["mlp"].active_L)


def test_a_combined_matrix_is_saved_like_any_other(sites, tmp_path):
    both = combine({name: dataclasses.replace(m, source="abc") for name, m in sites.items()})
    both.save(tmp_path / "both.safetensors")
    loaded = PairMatrix.load(tmp_path / "both.safetensors", "abc")
    np.testing.assert_array_equal(loaded.interactions().toarray(), both.interactions().toarray())


def test_sites_of_different_crosscoders_or_texts_do_not_combine(sites):
    for other in (
        site(1, ("blocks.0",), top=None, n_latents=5),
        dataclasses.replace(sites["qk"], source="abd"),
        dataclasses.replace(sites["qk"], tokens=13),
    ):
        with pytest.raises(XtalkError, match="not of one crosscoder and text"):
            combine({"mlp": sites["mlp"], "qk": other})
    with pytest.raises(XtalkError, match="0 sites"):
        combine({})
