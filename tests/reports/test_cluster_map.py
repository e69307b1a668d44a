"""The cluster map: what is refused, and that a browser shows it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from reports.browser import CHROMIUM, Browser, chromium, downloaded

from xtalk.errors import XtalkError
from xtalk.reports import read_record
from xtalk.reports.cluster_map import ClusterRecord, MapRecord, write_cluster_map

IN_A_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def write_run(folder: Path, features: int = 24, size: int = 4) -> None:
    """A made-up run with awkward tokens."""
    count = features // size
    context = {"tokens": [" a", "</script>", "\n", " dog"], "activations": [0.0, 2.0, 0.5, 0.0], "peak": 1}
    clusters = {
        "schema": "xtalk.clusters/1",
        "crosscoder": "sparse",
        "method": "spectral",
        "normaliser": "total",
        "count": count,
        "judge": "offline",
        "accuracy": {"any": {"interaction": [0.84, 0.8, 0.88]}},
        "clusters": [
            {"members": list(range(c * size, (c + 1) * size)), "accuracy": None if c else 0.75}
            for c in range(count)
        ],
    }
    shown = {
        "schema": "xtalk.cluster_map/1",
        "features": [
            {"latent": i, "cluster": i // size, "x": 5.0 * (i // size % 40) + i % size % 2,
             "y": 5.0 * (i // size // 40) + i % size // 2, "rate": 0.1, "tokens": [f" tok{i}", "<b>&"],
             "promoted": [f" up{i}"],
             "contexts": [context]}
            for i in range(features)
        ],
        "lines": [[i, i + 1, 0.5] for i in range(features - 1)],
        "pairs": [
            {"latents": [1, 2], "neurons": [{"block": 3, "neuron": 77, "part": 0.25}],
             "tokens": [{"before": "once upon a", "token": " time"}]}
        ],
    }  # fmt: skip
    (folder / "clusters.json").write_text(json.dumps(clusters))
    (folder / "cluster_map.json").write_text(json.dumps(shown))


def write_map(folder: Path) -> Path:
    """The page of both files."""
    clusters = read_record(folder / "clusters.json", ClusterRecord)
    shown = read_record(folder / "cluster_map.json", MapRecord)
    write_cluster_map(folder / "clusters.html", clusters, shown)
    return folder / "clusters.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@IN_A_BROWSER
@pytest.mark.parametrize(
    ("fragment", "expected", "absent"),
    [
        ("", ["6 clusters, 24 features", "3 · 4 features"], ["Neurons"]),
        (
            "cluster-0",
            [
                "Cluster 0: 4 features, the judge is right in 75 % of trials",
                "block 3, neuron 77",
                "</script>",
                "logits of ␣up3",
            ],
            ["tok4"],
        ),
        ("pair-1-2", ["Features 1 and 2", "neuron 77: 25.0 % of their interaction", "once upon a"], ["tok3"]),
        ("find-tok7", ["1 feature: tok7"], ["tok8"]),
        ("cluster-99", ["6 clusters"], []),
    ],
)
def test_a_browser_shows_clusters_pairs_and_what_is_searched(
    browser: Browser, tmp_path: Path, fragment, expected, absent
):
    write_run(tmp_path)
    page = browser.open(write_map(tmp_path), fragment)
    shown = page.text("#panel")
    assert page.faults() == []
    for text in expected:
        assert text in shown
    for text in absent:
        assert text not in shown


@IN_A_BROWSER
def test_a_hand_and_a_keyboard_find_their_way(browser: Browser, tmp_path: Path):
    write_run(tmp_path)
    shown = json.loads((tmp_path / "cluster_map.json").read_text())
    shown["features"].append(shown["features"][0] | {"latent": 24, "cluster": -1, "x": 14.0, "y": 9.0})
    (tmp_path / "cluster_map.json").write_text(json.dumps(shown))
    page = browser.open(write_map(tmp_path))

    def at(expression: str) -> None:
        """Clicks a point of the map."""
        box = "canvas.getBoundingClientRect()"
        page.click_at(*page.js(f"(([x, y]) => [{box}.x + x, {box}.y + y])({expression})"))

    def title() -> str:
        return page.text("#panel h2")

    def place(latent: int) -> str:
        return f"toScreen(byLatent.get({latent}).x, byLatent.get({latent}).y)"

    at("toScreen(discs[2].x, discs[2].y)")  # between the features
    assert title() == "Cluster 2: 4 features, not judged"
    page.key("Escape")
    page.settle()
    assert title() == "6 clusters, 25 features"
    at(place(5))
    assert title() == "Cluster 1: 4 features, not judged"
    at(f"((a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2])({place(1)}, {place(2)})")
    assert title() == "Features 1 and 2"
    at(place(24))
    assert title() == "Feature 24, in no cluster"
    page.js("search.focus()")
    page.type("tok2")
    assert title() == "5 features: tok2"  # tok2 and tok20 to tok23
    page.key("Enter")
    page.settle()
    assert title().startswith("Cluster 0: 4 features, the judge is right in 75 %")
    page.click("#panel button")  # the button goes with what it was in; the keyboard stays in the panel
    assert (title(), page.js("document.activeElement.tagName")) == ("6 clusters, 25 features", "H2")
    page.js("canvas.focus()")
    views = [page.js("({...view})")]
    for key in ("ArrowRight", "+", "-", "0"):
        page.key(key)
        views.append(page.js("({...view})"))
    assert views[1]["x"] > views[0]["x"] and views[2]["scale"] > views[1]["scale"] > 0
    assert views[3]["scale"] < views[2]["scale"] and page.js("view.scale") == views[4]["scale"]
    x, y = page.place("canvas")
    page.send("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-200)
    assert page.js("view.scale") > views[4]["scale"]
    page.click("[data-zoom='0']")
    assert page.js("view.scale") == views[4]["scale"]
    assert page.faults() == []


@IN_A_BROWSER
def test_texts_are_read_where_somebody_looks_and_lists_are_cut(browser: Browser, tmp_path: Path):
    write_run(tmp_path, features=2000, size=8)
    page = browser.open(write_map(tmp_path))
    assert page.js("[read.size, document.querySelectorAll('#panel li').length]") == [0, 201]
    assert page.text("#panel li:last-child") == "50 more"
    page.click("#panel li:last-child button")
    assert page.js("document.querySelectorAll('#panel li').length") == 250
    page.js("location.hash = 'cluster-3'")
    page.settle()
    assert page.js("read.size") == 1
    assert "raises the logits of ␣up31" in page.text("#panel")


@IN_A_BROWSER
def test_the_map_is_exported_and_goes_dark(browser: Browser, tmp_path: Path):
    write_run(tmp_path)
    page = browser.open(write_map(tmp_path))
    page.click(".theme")
    assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 22)"
    assert downloaded(browser, page, "#png", tmp_path / "clusters.png").startswith(b"\x89PNG")


def test_the_page_holds_everything_it_shows(tmp_path: Path):
    write_run(tmp_path, features=2000, size=8)
    html = write_map(tmp_path).read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", html)
    assert html.count("</script>") == 3 + 250  # none of them from a token
    assert "finds the held-out member in 84 %" in html
    assert len(html) < 2_000_000


def test_what_is_missing_or_does_not_agree_is_refused(tmp_path: Path):
    with pytest.raises(XtalkError, match=r"clusters\.json is missing"):
        write_map(tmp_path)
    write_run(tmp_path)
    shown = json.loads((tmp_path / "cluster_map.json").read_text())
    shown["lines"].append([0, 99, 1.0])
    (tmp_path / "cluster_map.json").write_text(json.dumps(shown))
    with pytest.raises(XtalkError, match="feature 99, which is not on the map"):
        write_map(tmp_path)
    shown["lines"].pop()
    shown["features"][0]["cluster"] = 6
    (tmp_path / "cluster_map.json").write_text(json.dumps(shown))
    with pytest.raises(XtalkError, match="names a cluster that"):
        write_map(tmp_path)
