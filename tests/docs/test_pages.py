"""The pages of docs/: their code runs, their commands parse, every public name has its entry."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

import xtalk
from xtalk.cli import app
from xtalk.reports import Metrics, ReportData, Results, read_record
from xtalk.reports.page import write_report

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {"xtalk": typer.main.get_command(app)}


def blocks(page: Path, *languages: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [code for language, code in fenced if language in languages]


def commands() -> Iterator[tuple[str, str]]:
    """Each line of a shell block that calls xtalk, with its page."""
    for page in PAGES:
        for block in blocks(page, "sh", ""):
            for line in block.splitlines():
                for part in line.partition("  #")[0].split(";"):
                    if part.strip().startswith("xtalk "):
                        yield page.relative_to(ROOT).as_posix(), part.strip()


def parse(line: str) -> Any:
    """A command line as the command would read it; nothing runs."""
    words = shlex.split(line.partition(" > ")[0])
    command, context = COMMANDS[words[0]], None
    words = words[1:]
    while isinstance(command, TyperGroup):
        context = command.make_context(command.name, words[:1], parent=context)
        _name, command, _args = command.resolve_command(context, words[:1])
        words = words[1:]
    return command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_of_the_pages_parse(page: str, line: str):
    parse(line)


def test_a_command_with_an_option_that_is_not_there_does_not_parse():
    with pytest.raises(Exception, match="No such option"):
        parse("xtalk run --no-such-option 3")
    with pytest.raises(Exception, match="No such command"):
        parse("xtalk detect measures x")


@pytest.mark.parametrize("page", ["tutorial", "howto"])
def test_code_of_the_pages_runs(page: str, tmp_path: Path, monkeypatch, capsys):
    """In order and in one folder, as a reader would, with fewer steps and shorter texts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xtalk.training.config._CALIBRATION_TOKENS", 1024)
    monkeypatch.setattr("xtalk.training.quick._SCALING_TOKENS", 1024)
    code = blocks(ROOT / "docs" / f"{page}.md", "python")
    if page == "howto":
        xtalk.train("embedded", "embedded", hookpoints=["blocks.1.ln2"], d_sae=64, k=4, steps=5).save(
            "my-crosscoder"
        )
    names: dict[str, object] = {}
    for block in code:
        exec(block.replace("steps=200", "steps=5"), names)
    said = capsys.readouterr().out
    assert "keep_1" in said and "'interaction'" in said if page == "howto" else "one per neuron" in said


def test_every_public_name_has_its_entry_in_the_reference():
    page = (ROOT / "docs" / "reference.md").read_text()
    named = re.findall(r"^::: \S+\.(\w+)$", page, re.MULTILINE)
    assert sorted(named) == sorted(xtalk.__all__)


def test_every_page_is_in_the_menu():
    """mkdocs warns of this too; here it fails without mkdocs."""
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert re.search(
            rf"[ :]{re.escape(page.relative_to(ROOT / 'docs').as_posix())}$", menu, re.MULTILINE
        ), page


def test_the_example_report_can_still_be_drawn(tmp_path: Path):
    records = ROOT / "docs" / "example"
    data = read_record(records / "report_data.json", ReportData)
    write_report(Results(read_record(records / "metrics.json", Metrics), data), tmp_path / "a.html", tmp_path)
    assert data.headline in (tmp_path / "a.html").read_text()


def test_the_checkers_page_is_its_own_readme():
    readme = ROOT / "packages" / "xtalk-check" / "README.md"
    assert (ROOT / "docs" / "proofs" / "checker.md").read_text() == readme.read_text()
