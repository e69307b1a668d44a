"""Models of the Hugging Face hub: which files are downloaded, of which commit, and what is refused."""

import re
from pathlib import Path

import pytest
from hub_stand_in import TOKEN, Hub, in_place_of_the_hub
from models.folders import refusal
from reference.tiny_models import save_tiny

from xtalk.errors import XtalkError
from xtalk.models.language_model import load_model

NAME = "someone/a-model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch):
    with in_place_of_the_hub(tmp_path, monkeypatch) as made:
        yield made


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def downloaded(hub: Hub) -> set[str]:
    return {request.partition("/resolve/")[2].partition("/")[2] for request in hub.requests} - {""}


def test_the_files_that_are_read_are_downloaded_and_no_others(hub: Hub, saved: Path):
    extra = dict.fromkeys(
        ("README.md", "pytorch_model.bin", "onnx/model.onnx", "onnx/config.json", "evil.py"), b"0"
    )
    hub.add(NAME, files_of(saved) | extra)
    model = load_model(NAME)
    assert model.name == NAME and model.weights_hash == load_model(saved).weights_hash
    assert downloaded(hub) == set(files_of(saved))
    before = len(hub.requests)
    hub.refused = "."
    assert load_model(NAME).weights_hash == model.weights_hash  # of the cache
    assert len(hub.requests) > before


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, saved: Path, tmp_path: Path):
    first = hub.add(NAME, files_of(saved))
    save_tiny(tmp_path / "other", seed=1)
    hub.repositories[NAME].commit(files_of(tmp_path / "other"))
    hub.repositories[NAME].refs["v1"] = first
    newest, old = load_model(NAME), load_model(f"{NAME}@v1")
    assert newest.weights_hash != old.weights_hash == load_model(saved).weights_hash
    assert (old.name, load_model(NAME, revision=first).name) == (f"{NAME}@v1", f"{NAME}@{first}")
    assert load_model(NAME, revision="v1").weights_hash == old.weights_hash
    assert f"{NAME} on the Hugging Face hub has no revision v9" in refusal(f"{NAME}@v9")
    for source, revision, match in (
        (f"{NAME}@v1", "v2", "give one of them"),
        (saved, "v1", "is here, and has"),
    ):
        with pytest.raises(XtalkError, match=match):
            load_model(source, revision=revision)


def test_what_keeps_the_hub_from_answering_is_one_line(hub: Hub, saved: Path, monkeypatch):
    hub.add("someone/gated", files_of(saved), gated=True)
    assert "someone/gated is gated on the Hugging Face hub" in refusal("someone/gated")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load_model("someone/gated").n_blocks == 3
    assert "has no such repository for this user" in refusal("someone/nothing")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "gave no answer for it" in refusal("someone/other")


def test_a_download_that_is_cut_is_one_line_and_can_be_repeated(hub: Hub, saved: Path):
    hub.add(NAME, files_of(saved))
    hub.cut = "model.safetensors"
    assert "gave no answer for it" in refusal(NAME)
    hub.cut = None
    assert load_model(NAME).n_blocks == 3


def test_a_hub_that_takes_a_question_and_never_answers_is_one_line(hub: Hub, saved: Path, monkeypatch):
    hub.add(NAME, files_of(saved))
    monkeypatch.setattr("xtalk.hub._SECONDS", 0.2)
    hub.hangs = "api/models"
    assert re.search(r"gave no answer for it: .*(timed out|Timeout)", refusal(NAME))
    hub.hangs = None
    assert load_model(NAME).n_blocks == 3
    hub.hangs = "api/models"
    assert load_model(NAME).n_blocks == 3  # of the cache


def test_a_repository_without_weights_or_without_the_gguf_file(hub: Hub, saved: Path):
    hub.add(NAME, {name: content for name, content in files_of(saved).items() if "safetensors" not in name})
    assert "has no weights" in refusal(NAME)
    assert f"{NAME} on the Hugging Face hub has no file q4.gguf" in refusal(f"{NAME}:q4.gguf")
