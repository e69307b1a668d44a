"""docs/performance.md is written from what was measured, and what is measured has the form that it reads."""

import json
import sys

import pytest

from benchmarks import page, parts
from benchmarks.commands import Command
from benchmarks.step_inputs import SMALL_ONE
from xtalk.errors import XtalkError

RESULT = {
    "name": "step.paper",
    "against": "dense",
    "ratio": [3.5, 3.0, 4.0],
    "cpu_ratio": [3.25, 3.0, 4.0],
    "seconds": 0.125,
    "tokens_per_second": 2048.0,
    "peak_bytes": 2**30,
    "peak_ratio": 1.5,
    "floor_fraction": 0.5,
}
RUN = {
    "seconds": 0.2,
    "cpu_seconds": 0.1,
    "tokens_per_second": 5120.0,
    "peak_bytes": 2**21,
    "parts": {"Adam": 0.025, "the rest": 0.075},
}
MARKS = ("machine", "compared", "commands", "headline", "latents", "active", "parts")
MACHINE = {"processor": "A", "cores": 2, "system": "Linux", "python": "3", "torch": "2", "load": 0.5}


def test_the_page_shows_what_was_measured(tmp_path, monkeypatch):
    marks = MARKS
    file, data = tmp_path / "performance.md", tmp_path / "performance.json"
    file.write_text("".join(f"<!-- {mark} -->\n<!-- /{mark} -->\n" for mark in marks))
    found = {"machine": MACHINE, "threads": 2, "results": [RESULT]}
    found["commands"] = {"import": RUN, "demo": RUN | {"seconds": 212.4, "cpu_seconds": 300.2}}
    found["headline"] = {
        "seconds": {"before": [900.0, 1000.0], "today": [300.0, 250.0]},
        "ratio": [3.5, 3.0, 4.0],
    }
    found |= {f"latents {n}": RUN for n in page.LATENTS} | {f"active {k}": RUN for k in page.ACTIVE}
    data.write_text(json.dumps(found | {f"shape {name}": RUN for name in page.PROFILED}))
    monkeypatch.setattr(page, "PAGE", file)
    monkeypatch.setattr(page, "DATA", data)
    monkeypatch.setattr(sys, "argv", ["page", "--tables"])
    page.main()
    text = file.read_text()
    assert (
        "| step.paper | dense | 3 | 3.50 [3.00, 4.00] | 3.25 | 0.125 | 2,048 | 1,024 | 1.50 | 0.50 |" in text
    )
    assert "| import | 1.5 | 0.20 | 0.10 | 2 |" in text
    assert "| demo | 240 | 212 | 300 | 2 |" in text
    assert "before 900 and 1,000 s, today 300 and 250 s: 3.50 [3.00, 4.00] times as fast" in text
    assert "| 65,536 | 200 | 100 | 5,120 | 2 |" in text
    assert "| paper | 100 | 25 % | 75 % |" in text
    assert "A, 2 cores, Linux" in text


def test_the_page_that_ships_has_its_marks():
    text = page.PAGE.read_text()
    for mark in MARKS:
        assert text.count(f"<!-- {mark} -->") == text.count(f"<!-- /{mark} -->") == 1


def test_a_command_is_measured_and_a_failing_one_named():
    found = Command((sys.executable, "-c", "x = b'x' * 300_000_000"), 1.0, 2).measure()
    assert found["cpu_seconds"] > 0 and 300_000_000 < found["peak_bytes"] < 600_000_000
    with pytest.raises(XtalkError, match="ended with code 3"):
        Command((sys.executable, "-c", "raise SystemExit(3)"), 1.0).measure()


@pytest.fixture(autouse=True)
def _untimed_again(monkeypatch):
    """`measure` wraps functions in its process, which tests share."""
    for functions in parts.PARTS.values():
        for home, name in functions:
            monkeypatch.setattr(home, name, getattr(home, name))


def test_parts_add_up_and_each_is_found():
    found = parts.measure(SMALL_ONE, bfloat16=True)
    assert sum(found["parts"].values()) == pytest.approx(found["cpu_seconds"])
    assert all(seconds > 0 for part, seconds in found["parts"].items() if part != "the rest")
