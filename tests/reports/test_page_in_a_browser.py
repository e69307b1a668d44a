"""The report as somebody uses it: sorts, filters, points, zooms, saves, prints, by day and by night."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from reports.browser import CHROMIUM, Browser, Page, chromium, downloaded
from reports.synthetic import later_data, later_sections, results, rewrite, write_run

from xtalk.reports.page import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PAPER, DARK = "rgb(251, 250, 248)", "rgb(21, 24, 28)"
NASTY = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every section, of a model and a crosscoder with hostile names."""
    folder = tmp_path_factory.mktemp("run")
    metrics, data = write_run(folder)
    metrics["model"]["name"] = NASTY
    text = json.dumps([metrics | later_sections(), data | later_data()])
    rewrite(folder, *json.loads(text.replace("relative-keep-one", json.dumps(NASTY)[1:-1])))
    write_report(results(folder), folder / "report.html", folder / "figures")
    return folder / "report.html"


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    opened = browser.open(report)
    yield opened
    assert opened.faults() == []


def column(page: Page, table: str, place: int) -> list[str]:
    rows = f"document.querySelectorAll('#{table} tbody tr')"
    return page.js(f"[...{rows}].filter(r => !r.hidden).map(r => r.cells[{place}].innerText)")


def test_hostile_text_is_text(page: Page):
    assert page.js("[document.scripts.length, document.querySelectorAll('img[src=x]').length]") == [2, 0]
    assert page.text("h1") == NASTY
    shown = page.js("document.querySelector('.features').innerText")
    assert "⟨U+202E⟩turned" in shown and "nul⟨U+0000⟩and⟨U+001B⟩escape" in shown
    assert page.js(
        "document.documentElement.scrollWidth <= innerWidth"
    )  # the long one makes the page no wider


def test_what_a_policy_forbids_does_not_run(browser: Browser, report: Path, tmp_path: Path):
    hostile = tmp_path / "hostile.html"
    hostile.write_text(
        report.read_text().replace("<main>", "<main><script>document.title = 'mine'</script>", 1)
    )
    opened = browser.open(hostile)
    assert opened.js("document.title") != "mine"
    assert any("Content Security Policy" in fault for fault in opened.faults())


def test_tables_sort_by_number_both_ways_and_back(page: Page):
    before = column(page, "headline", 8)
    keep_1 = "#headline thead tr:nth-child(2) th:nth-child(8) .sort"
    assert page.text(keep_1) == "keep 1"
    page.click(keep_1)
    values = [
        float(text.split()[0].lstrip("▾").replace("\N{MINUS SIGN}", "-"))
        for text in column(page, "headline", 8)
    ]
    assert values == sorted(values, reverse=True)
    assert page.js("document.querySelector('#headline [aria-sort]').ariaSort") == "descending"
    page.js(f"document.querySelector({json.dumps(keep_1)}).focus()")
    page.key("Enter")
    assert column(page, "headline", 8)[0] == before[3]  # the lowest
    page.key("Enter")
    assert column(page, "headline", 8) == before
    assert page.js("document.querySelectorAll('[aria-sort]').length") == 0


def test_tables_sort_by_words_with_what_is_missing_last(page: Page):
    page.click("#validation-table th:nth-child(1) .sort")
    assert [text.split("\n")[0] for text in column(page, "validation-table", 0)] == [
        "co-activation, cosine",
        "true interaction",
    ]
    for _ in range(2):
        page.click("#validation-table th:nth-child(5) .sort")
        assert column(page, "validation-table", 4)[-1] == "\N{EN DASH}"


def test_tables_filter(page: Page):
    page.click("#nats-note + .filter input")
    page.type("LAMBDA-300 keep")
    assert len(column(page, "nats", 0)) == 1
    assert page.text("#nats-note + .filter [role=status]") == "1 of 9 rows"
    page.js("document.activeElement.select()")
    page.key("Escape")
    page.js("document.activeElement.dispatchEvent(new Event('input'))")
    assert len(column(page, "nats", 0)) == 9


def test_a_figure_says_what_is_pointed_at_and_goes_through_its_values_by_keyboard(page: Page):
    plate = ".few_hot .plate, .few .plate"
    spots = json.loads(page.js(f"document.querySelector('{plate}').dataset.spots"))
    page.move(*page.place(plate, *spots[5][:2]))
    page.settle()
    assert page.text(f":is({plate}) .tip") in [words for *_, words in spots]
    page.move(1, 1)
    page.js(f"document.querySelector('{plate}').focus()")
    page.key("ArrowRight")
    page.key("ArrowRight")
    assert page.text(f":is({plate}) .tip") == spots[1][2]
    assert page.js(f"document.querySelector(':is({plate}) ~ [role=status]').textContent") == spots[1][2]
    page.key("ArrowLeft")
    page.key("ArrowLeft")
    assert page.text(f":is({plate}) .tip") == spots[-1][2]
    page.key("Escape")
    assert page.js(f"document.querySelector(':is({plate}) .tip').hidden")
    assert "arrow keys" in page.js(f"document.querySelector('{plate}').ariaLabel")


def test_a_figure_zooms_and_is_whole_again(page: Page):
    sheet = "document.querySelector('.ablations .sheet').getBoundingClientRect().width"
    whole = page.js(sheet)
    page.click(".ablations .tools button:nth-child(1)")
    assert page.js(sheet) == pytest.approx(1.5 * whole)
    page.js("document.querySelector('.ablations .plate').focus()")
    page.key("+")
    assert page.js(sheet) == pytest.approx(2.25 * whole)
    page.key("ArrowLeft")  # the last value, which comes into view
    inside = "(r => r.x > p.x && r.right < p.right && r.y > p.y && r.bottom < p.bottom)"
    box = "p => " + inside + "(document.querySelector('.ablations .ring').getBoundingClientRect())"
    assert page.js(f"({box})(document.querySelector('.ablations .plate').getBoundingClientRect())")
    page.key("0")
    assert page.js(sheet) == pytest.approx(whole)


def test_figures_are_saved(browser: Browser, page: Page, report: Path, tmp_path: Path):
    svg = downloaded(browser, page, ".ablations .tools button:nth-child(4)", tmp_path / "ablations.svg")
    assert svg == (report.parent / "figures" / "ablations.svg").read_bytes()
    png = downloaded(browser, page, ".ablations .tools button:nth-child(5)", tmp_path / "ablations.png")
    assert png.startswith(b"\x89PNG") and len(png) > 20_000


def test_dark_is_what_the_reader_prefers_until_the_switch_says_otherwise(browser: Browser, report: Path):
    background = "getComputedStyle(document.body).backgroundColor"
    page = browser.open(report, dark=True)
    filtered = "getComputedStyle(document.querySelector('.card img')).filter"
    assert (page.js(background), page.js(filtered) != "none") == (DARK, True)
    page.click(".theme")
    assert (page.js(background), page.js(filtered)) == (PAPER, "none")
    again = browser.open(report, dark=True)
    assert again.js(background) == PAPER
    again.click(".theme")
    assert (again.js(background), again.text(".theme")) == (DARK, "Light")
    again.js("localStorage.clear()")


def test_on_paper_everything_is_open_and_light(page: Page):
    page.media("print", dark=True)
    shown = "selector => getComputedStyle(document.querySelector(selector)).display"
    assert {page.js(f"({shown})('{gone}')") for gone in ("nav", ".tools", ".filter")} == {"none"}
    assert page.js("getComputedStyle(document.documentElement).colorScheme") == "light"
    page.js("dispatchEvent(new Event('beforeprint'))")
    assert page.js("document.querySelectorAll('details:not([open])').length") == 0
    page.js("dispatchEvent(new Event('afterprint'))")
    assert page.js("document.querySelectorAll('details[open]').length") == 0


def test_everything_that_does_something_is_reached_by_tab_and_has_a_name(page: Page):
    names = page.js(
        "[...document.querySelectorAll('button, input, [tabindex]')].map(e =>"
        " e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())"
    )
    assert len(names) > 40 and all(names)
    page.key("Tab")
    assert page.js("document.activeElement.textContent") == "Skip to the summary"
