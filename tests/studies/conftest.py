"""A folder of one's own with the page on proofs, for studies that write tables into it."""

from pathlib import Path

import pytest
import torch

MARKERS = (
    "speed speed-digits speed-language t1-budget t1-charts t1-language t1-language-limits "
    "t1-language-sampled t1-penalty t1-results t2-results t3-attention t3-curve t3-gross t3-results t3-seeds"
)


@pytest.fixture
def page(tmp_path: Path, monkeypatch) -> Path:
    """docs/proofs/results.md with all marks and nothing between them, in the folder that is now current."""
    threads = torch.get_num_threads()
    made = tmp_path / "docs" / "proofs" / "results.md"
    made.parent.mkdir(parents=True)
    made.write_text("\n".join(f"<!-- {marker} -->\n<!-- /{marker} -->" for marker in MARKERS.split()))
    monkeypatch.chdir(tmp_path)
    yield made
    torch.set_num_threads(threads)


@pytest.fixture
def between(page: Path):
    """What stands between two marks: its lines."""

    def lines(marker: str) -> list[str]:
        found = page.read_text().split(f"<!-- {marker} -->\n")[1].split(f"<!-- /{marker} -->")[0]
        return found.splitlines()

    return lines
