"""Files of dictionaries, changed at random: each is refused in one line, or read with finite outputs."""

import hashlib
import json
import os
import resource
import shutil
import struct
from pathlib import Path

import pytest
import torch
from crosscoder.formats.test_hostile import CASES, FILES
from crosscoder.small import small_crosscoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.formats.registry import FORMATS
from xtalk.crosscoder.inspection import inspected
from xtalk.crosscoder.saving import CFG, WEIGHTS
from xtalk.errors import XtalkError

WITH_HEADERS = ["xtalk", *(case for case, names in CASES.items() if names[-1].endswith("safetensors"))]
WITH_JSON = ["xtalk", *(case for case, names in CASES.items() if names[0].endswith("json"))]
MEMORY = 200_000  # kB that a hostile file may make the process grow by
quick = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "crosscoder"
    small_crosscoder().save(folder)
    return folder


def original(case: str, own: Path) -> tuple[Path, tuple[str, ...]]:
    return (own, (CFG, WEIGHTS)) if case == "xtalk" else (FILES / case, CASES[case])


def read(folder: Path) -> None:
    """Load and inspect: what fails fails in one line, and what loads computes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for what in (Crosscoder.load, inspected):
        try:
            made = what(folder)
        except XtalkError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            continue
        if isinstance(made, Crosscoder):
            P, D = len(made.config.hook_names), made.config.d_in
            assert made(torch.zeros(1, D) if P == 1 else torch.zeros(1, P, D)).isfinite().all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def settle(folder: Path) -> None:
    """Let a cfg.json of xtalk's have the hash of the weights beside it, so that these are read."""
    try:
        content = json.loads((folder / CFG).read_text())
    except (OSError, ValueError):
        return
    if isinstance(content, dict) and "sae_weights_sha256" in content:
        content["sae_weights_sha256"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        (folder / CFG).write_text(json.dumps(content))


edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12)), min_size=1, max_size=4
)


@pytest.mark.parametrize("case", ["xtalk", *CASES])
def test_bytes_changed_at_random(case: str, own: Path, tmp_path: Path):
    source, names = original(case, own)

    @quick
    @given(number=st.integers(0, len(names) - 1), changes=edits)
    def attack(number: int, changes: list[tuple[float, int, bytes]]) -> None:
        folder = tmp_path / source.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        content = bytearray((folder / names[number]).read_bytes())
        for place, length, put in changes:  # headers and directories are at the ends
            at = int(place**3 * len(content)) if len(put) % 2 else int((1 - place**3) * len(content))
            content[at : at + length] = put
        (folder / names[number]).write_bytes(content)
        settle(folder)
        read(folder)

    attack()


sizes = st.one_of(st.integers(-2, 20), st.sampled_from([1 << 31, 1 << 60, (1 << 64) - 1, 1 << 70]))
headers = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", "I8", "U64", "BOOL", "C64", "F8_E4M3", "X", 3]),
        "shape": st.one_of(st.lists(sizes, max_size=4), sizes),
        "data_offsets": st.one_of(st.lists(sizes, max_size=3), st.none()),
    }
)


@pytest.mark.parametrize(
    "case", ["xtalk", *(c for c, names in CASES.items() if names[-1].endswith("safetensors"))]
)
def test_headers_of_safetensors_made_at_random(case: str, own: Path, tmp_path: Path):
    source, names = original(case, own)
    whole = (source / names[-1]).read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])

    @quick
    @given(name=st.sampled_from(sorted(set(header) - {"__metadata__"})), value=headers)
    def attack(name: str, value: dict[str, object]) -> None:
        folder = tmp_path / source.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        again = json.dumps(header | {name: value}).encode()
        (folder / names[-1]).write_bytes(struct.pack("<Q", len(again)) + again + whole[8 + length :])
        settle(folder)
        read(folder)

    attack()


plain = st.one_of(
    st.none(), st.booleans(), sizes, st.floats(), st.text(max_size=5), st.sampled_from(["../..", "/etc"])
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("case", WITH_JSON)
def test_configurations_made_at_random(case: str, own: Path, tmp_path: Path):
    source, names = original(case, own)
    content = json.loads((source / names[0]).read_text())

    @quick
    @given(changes=st.dictionaries(st.sampled_from(sorted(content)), values, min_size=1, max_size=3))
    def attack(changes: dict[str, object]) -> None:
        folder = tmp_path / source.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        (folder / names[0]).write_text(json.dumps(content | changes))
        read(folder)

    attack()


@pytest.mark.parametrize("case", ["xtalk", *CASES])
@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "loop", "nothing"])
def test_files_that_are_none(case: str, kind: str, own: Path, tmp_path: Path):
    """A device has no end, and a pipe waits for ever: neither is opened."""
    source, names = original(case, own)
    for name in names:
        folder = tmp_path / name / source.name
        shutil.copytree(source, folder)
        (folder / name).unlink()
        if kind == "device":
            (folder / name).symlink_to("/dev/zero")
        elif kind == "pipe":
            os.mkfifo(folder / name)
        elif kind == "folder":
            (folder / name).mkdir()
        else:
            (folder / name).symlink_to(name if kind == "loop" else "nowhere")
        read(folder)


def test_names_of_files_are_in_the_folder():
    """No format reads a name that a file gives it."""
    for one in FORMATS:
        for name in (*one.files, *one.more):
            assert ".." not in Path(name).parts and not Path(name).is_absolute()
