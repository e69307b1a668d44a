"""The cluster map: what is refused, and that a browser shows it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xtalk.errors import XtalkError
from xtalk.reports import read_record
from xtalk.reports.cluster_map import ClusterRecord, MapRecord, write_cluster_map

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"
)


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


def panel(page: Path, fragment: str, profile: Path) -> str:
    """What the browser shows beside the map, as text."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", f"{page.as_uri()}#{fragment}"]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    match = re.search(r'<aside[^>]*id="panel"[^>]*>(.*?)</aside>', dom, re.DOTALL)
    assert match is not None, dom[-500:]
    return re.sub(r"<[^>]+>", "|", match.group(1))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("fragment", "expected", "absent"),
    [
        ("", ["6 clusters, 24 features", "3 · 4 features"], ["Neurons"]),
        (
            "cluster-0",
            [
                "Cluster 0: 4 features, the judge is right in 75 % of trials",
                "block 3, neuron 77",
                "&lt;/script&gt;",
                "logits of ␣up3",
            ],
            ["tok4"],
        ),
        ("pair-1-2", ["Features 1 and 2", "neuron 77: 25.0 % of their interaction", "once upon a"], ["tok3"]),
        ("find-tok7", ["1 feature: tok7"], ["tok8"]),
        ("cluster-99", ["6 clusters"], []),
    ],
)
def test_a_browser_shows_clusters_pairs_and_what_is_searched(tmp_path: Path, fragment, expected, absent):
    write_run(tmp_path)
    shown = panel(write_map(tmp_path), fragment, tmp_path / "profile")
    for text in expected:
        assert text in shown
    for text in absent:
        assert text not in shown


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_hand_and_a_keyboard_find_their_way(tmp_path: Path):
    write_run(tmp_path)
    shown = json.loads((tmp_path / "cluster_map.json").read_text())
    shown["features"].append(shown["features"][0] | {"latent": 24, "cluster": -1, "x": 14.0, "y": 9.0})
    (tmp_path / "cluster_map.json").write_text(json.dumps(shown))
    page = write_map(tmp_path)
    hand = Path(__file__).with_name("hand.js").read_text()
    page.write_text(page.read_text().replace("</body>", f"<script>{hand}</script></body>"))
    told = [line for line in panel(page, "", tmp_path / "profile").split("|") if line.strip()]
    assert told == [
        "Cluster 2: 4 features, not judged",  # its disc, between the features
        "6 clusters, 25 features",  # Escape
        "Cluster 1: 4 features, not judged",  # a feature of it
        "Features 1 and 2",  # the line between them
        "Feature 24, in no cluster",
        "5 features: tok2",  # tok2 and tok20 to tok23
        "Cluster 0: 4 features, the judge is right in 75 % of trials",  # Enter: the first of them
        "6 clusters, 25 features",  # a button of the panel, which goes with what it was in
        "H2",  # the keyboard stays in the panel
        "true",
        "true",
    ]


def test_the_page_holds_everything_it_shows(tmp_path: Path):
    write_run(tmp_path, features=2000, size=8)
    html = write_map(tmp_path).read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", html)
    assert html.count("</script>") == 2  # none of them from a token
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
