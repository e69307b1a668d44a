"""Every reader of files against a few attacks of `python -m audit.fuzz_files`, which sees a failure."""

from pathlib import Path

import pytest

from audit.fuzz_files import Target, attacks, targets

TARGETS = {target.name: target for target in targets()}


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_or_refused_in_one_line(name: str):
    assert attacks(TARGETS[name], range(4 if name == "model" else 12)) == []


def test_what_is_no_refusal_is_noticed(tmp_path: Path):
    def read(folder: Path) -> None:
        if (folder / "a.json").read_bytes() != b"{}":
            raise ValueError("a traceback")

    made = Target("mine", lambda folder: (folder / "a.json").write_bytes(b"{}"), read)
    found = attacks(made, range(5), tmp_path)
    assert found and "ValueError: a traceback" in found[0].what
    assert (tmp_path / f"mine-{found[0].seed}" / "a.json").exists()
