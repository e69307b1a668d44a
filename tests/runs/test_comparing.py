"""Two folders of results beside each other."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports.synthetic import rewrite, write_run

import xtalk
from xtalk.errors import XtalkError
from xtalk.records.comparison import Comparison, difference
from xtalk.reports.comparison import ComparisonRecord
from xtalk.reports.html import ShownFigure
from xtalk.runs.folder import RunFolder
from xtalk.statistics.interval import Interval


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path, dict[str, Any], dict[str, Any]]:
    """Two folders with the same results, and what the second holds."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write_run(tmp_path / "a")
    metrics, data = write_run(tmp_path / "b")
    return tmp_path / "a", tmp_path / "b", deepcopy(metrics), deepcopy(data)


def row(found: Comparison, **wanted: Any) -> dict[str, Any]:
    [one] = [r for r in found.rows() if wanted.items() <= r.items()]
    return one


def test_every_figure_stands_beside_the_others_and_its_difference(two):
    a, b, metrics, data = two
    metrics["crosscoders"][0] |= {"fvu": 0.25, "dead": 7}
    fidelity = metrics["crosscoders"][0]["fidelity"][4]
    assert (fidelity["block"], fidelity["resid_mid"], fidelity["baseline"]) == (1, "model", "mean")
    fidelity |= {"keep_1": 0.5, "ci95": fidelity["ci95"] | {"keep_1": [0.4, 0.7]}}
    rewrite(b, metrics, data)
    found, before = xtalk.compare(a, b), json.loads((a / "metrics.json").read_text())["crosscoders"][0]
    one = row(found, crosscoder_a="unpenalised", figure="fvu")
    assert (one["a"], one["b"], one["difference"]) == (before["fvu"], 0.25, 0.25 - before["fvu"])
    assert one["difference_low"] is None
    assert row(found, crosscoder_a="unpenalised", figure="dead")["difference"] == 7
    old = before["fidelity"][4]
    one = row(found, crosscoder_a="unpenalised", figure="phi", block=1, scheme="keep_1", resid_mid="model")
    assert (one["a"], one["a_low"], one["a_high"]) == (old["keep_1"], *old["ci95"]["keep_1"])
    assert (one["b"], one["b_low"], one["b_high"]) == (0.5, 0.4, 0.7)
    down = np.hypot(0.1, old["ci95"]["keep_1"][1] - old["keep_1"])
    assert one["difference_low"] == pytest.approx(0.5 - old["keep_1"] - down)
    assert all(r["difference"] == 0 for r in found.rows() if r["crosscoder_a"] == "lambda-30")


def test_intervals_of_differences_cover_as_often_as_they_should():
    """Two skewed means, whose true difference is 1; intervals by resampling."""
    rng, covered, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        sides: list[Interval] = []
        for scale in (1.0, 2.0):
            values = rng.exponential(scale, 100)
            means = values[rng.integers(0, 100, (400, 100))].mean(1)
            sides.append(Interval(values.mean(), *np.percentile(means, [2.5, 97.5])))
        apart = difference(*sides)
        assert isinstance(apart, Interval)
        covered += apart.low <= 1 <= apart.high
    assert 0.91 < covered / trials < 0.98


def test_what_was_chosen_otherwise_is_named(two):
    a, b, metrics, data = two
    data["provenance"] |= {"text_hash": "cd34" * 16, "blocks_averaged": [1, 2]}
    metrics["model"]["name"] = "another"
    metrics["crosscoders"][1]["warnings"] = ["FVU above 1"]
    rewrite(b, metrics, data)
    for folder, steps in ((a, 10), (b, 20)):
        config = xtalk.preset("quick")
        training = config.training.model_copy(update={"steps": steps})
        RunFolder(folder, config.model_copy(update={"training": training}))._write_config()
    found = xtalk.compare(a, b)
    assert {one.key for one in found.record.settings} == {"model", "text hash", "config: training.steps"}
    said = str(found)
    for words in (
        "the models differ",
        "the texts differ",
        "means are over blocks [1, 2, 3] in A and [1, 2] in B",
        "B, lambda-30: FVU above 1",
        "config: training.steps: 10 | 20",
    ):
        assert words in said


def test_crosscoders_of_other_names_are_paired_where_it_is_said(two):
    a, b, metrics, data = two
    text = json.dumps([metrics, data]).replace('"lambda-', '"weight-').replace('"unpenalised"', '"mine"')
    renamed = json.loads(text)
    renamed[1]["unpenalised"] = renamed[1].pop("mine")  # the key, not the name
    rewrite(b, *renamed)
    found = xtalk.compare(a, b, {"unpenalised": "mine"})
    assert [(pair.a, pair.b) for pair in found.record.pairs] == [("unpenalised", "mine")]
    assert "weight-30" in found.record.b.alone and "mine" not in found.record.b.alone
    assert "unpenalised (A) and mine (B)" in str(found)
    with pytest.raises(XtalkError, match=r"b has no crosscoder 'his'; expected one of mine, weight-30"):
        xtalk.compare(a, b, {"unpenalised": "his"})


def test_without_report_data_the_figures_of_metrics_are_compared(two):
    a, b, metrics, _ = two
    (b / "report_data.json").unlink()
    for one, name in zip(metrics["crosscoders"], "abcdefgh", strict=True):
        one["name"] = name
    (b / "metrics.json").write_text(json.dumps(metrics | {"crosscoders": metrics["crosscoders"][:1]}))
    with pytest.raises(XtalkError, match=r"no crosscoder has the same name.*--pair unpenalised=a"):
        xtalk.compare(a, b)
    found = xtalk.compare(b, b)
    assert "whether both are of one text is not recorded" in str(found)
    assert row(found, figure="share")["m"] == 1
    with pytest.raises(XtalkError, match=r"has no metrics\.json; expected a run's folder"):
        xtalk.compare(a, b.parent)


def test_the_page_has_both_and_fetches_nothing(two, monkeypatch):
    a, b, metrics, data = two
    metrics["model"]["name"] = "<img src=x onerror=alert(1)>"
    rewrite(b, metrics, data)
    figure = ShownFigure("data:,", [(0.5, 0.5, "one")])
    monkeypatch.setattr(
        "xtalk.reports.page.figures_of", lambda _: dict.fromkeys(("sweep", "few_hot"), figure)
    )
    found = xtalk.compare(a, b)
    html = found.save(a / "compared.html").read_text(encoding="utf-8")
    assert html.count('<img src="data:,') == 4
    assert "&lt;img src=x onerror" in html and "<img src=x" not in html
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", html)
    assert len(re.findall('<tr><th scope="row">', html)) == len(found.rows()) + len(found.record.settings)


def test_the_record_survives_json(two):
    record = xtalk.compare(two[0], two[1]).record
    assert ComparisonRecord.model_validate_json(record.model_dump_json()) == record
