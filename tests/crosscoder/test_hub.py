"""Crosscoders on the Hugging Face hub: a stand-in of its interface, and the client's own requests to it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from crosscoder.small import HOOKS, small_crosscoder
from hub_stand_in import TOKEN, Hub, in_place_of_the_hub, serving

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.provenance import Provenance
from xtalk.crosscoder.saving import CFG, WEIGHTS
from xtalk.errors import XtalkError

NAME = "someone/a-crosscoder"
PROVENANCE = Provenance(
    model_name="owner/model", model_weights_hash="ab" * 32, seed=3, penalties={"keep_one": 4.0}
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch):
    with in_place_of_the_hub(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def crosscoder() -> Crosscoder:
    made = small_crosscoder()
    made.provenance = PROVENANCE
    return made


def files_of(crosscoder: Crosscoder, folder: Path) -> dict[str, bytes]:
    crosscoder.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(*source: str, **how: str) -> str:
    with pytest.raises(XtalkError) as caught:
        Crosscoder.load(*source, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_pushed_is_loaded(hub: Hub, crosscoder: Crosscoder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    source = crosscoder.push_to_hub(NAME)
    repository = hub.repositories[NAME]
    assert source == f"{NAME}@{repository.refs['main']}" and not repository.private
    assert len(repository.commits) == 2  # the hub's own first, and one of ours
    assert set(repository.commits[repository.refs["main"]]) == {CFG, WEIGHTS, "README.md", ".gitattributes"}
    for name in (NAME, source):
        loaded = Crosscoder.load(name)
        assert loaded.config == crosscoder.config
        assert loaded.provenance == PROVENANCE.model_copy(update={"source": source})
        for own, read in zip(crosscoder.parameters(), loaded.parameters(), strict=True):
            assert torch.equal(own, read)


def test_only_the_files_needed_are_downloaded(hub: Hub, crosscoder: Crosscoder, tmp_path: Path):
    files = files_of(crosscoder, tmp_path / "own")
    hub.add(NAME, files | {"README.md": b"#", "checkpoint.bin": b"0" * 99, "sub/cfg.json": b"{}"})
    Crosscoder.load(NAME)
    read = {request.rpartition("/")[2] for request in hub.requests if request.startswith("GET /someone")}
    assert read == {CFG, WEIGHTS}


def test_a_revision_is_pinned_and_recorded(hub: Hub, crosscoder: Crosscoder, tmp_path: Path):
    first = hub.add(NAME, files_of(crosscoder, tmp_path / "first"))
    hub.repositories[NAME].refs["v1"] = first
    second = hub.repositories[NAME].commit(files_of(small_crosscoder("topk"), tmp_path / "second"))
    for revision, commit, architecture in (
        (None, second, "topk"), ("v1", first, "batchtopk"), (first, first, "batchtopk")
    ):  # fmt: skip
        loaded = Crosscoder.load(NAME, revision=revision)
        assert loaded.config.architecture == architecture
        assert loaded.provenance.source == f"{NAME}@{commit}"
    loaded = Crosscoder.load(f"{NAME}@v1")
    loaded.save(tmp_path / "kept")
    assert Crosscoder.load(tmp_path / "kept").provenance.source == f"{NAME}@{first}"
    assert "has no revision v9" in refusal(NAME, revision="v9")
    assert "give one of them" in refusal(f"{NAME}@v1", revision="v2")
    assert "which has no revision v1" in refusal(str(tmp_path / "kept"), revision="v1")


def test_a_folder_of_a_repository(hub: Hub, crosscoder: Crosscoder, tmp_path: Path):
    files = files_of(crosscoder, tmp_path / "own")
    commit = hub.add(NAME, {f"many/small/{name}": content for name, content in files.items()})
    assert f"{NAME} on the Hugging Face hub has no file" in refusal(NAME)
    assert Crosscoder.load(f"{NAME}:many/small").provenance.source == f"{NAME}:many/small@{commit}"
    assert f"{NAME}:many/large on the Hugging Face hub has no file" in refusal(f"{NAME}:many/large")


def test_one_file_of_a_repository(hub: Hub):
    """A transcoder of one layer, in a folder of many, is downloaded with the configuration beside it."""
    layer = Path(__file__).parent / "formats/files/circuit_tracer/jumprelu"
    files = {path.name: path.read_bytes() for path in layer.iterdir()}
    hub.add(NAME, files | {"layer_4.safetensors": b"", "README.md": b""})
    assert Crosscoder.load(f"{NAME}:layer_3.safetensors").config.written == ("blocks.3.hook_mlp_out",)
    read = {request.rpartition("/")[2] for request in hub.requests if request.startswith("GET /someone")}
    assert read == {"layer_3.safetensors", "config.yaml"}
    assert "has no file of a crosscoder's" in refusal(f"{NAME}:layer_5.safetensors")


def test_what_is_here_comes_first(hub: Hub, crosscoder: Crosscoder, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (NAME, f"{NAME}@v1"):
        crosscoder.save(name)
        assert Crosscoder.load(name).provenance.source is None
    assert not hub.requests


def test_names_that_are_none():
    for source in ("nowhere", "a/b/c", "./a/b", "a b/c", "a/b@", "a/b:../c", "a/b:c/../../d"):
        assert "expected the folder of a crosscoder, or a hub name" in refusal(source)


def test_a_gated_repository_needs_a_token(hub: Hub, crosscoder: Crosscoder, tmp_path: Path, monkeypatch):
    hub.add(NAME, files_of(crosscoder, tmp_path / "own"), gated=True)
    assert f"{NAME} is gated on the Hugging Face hub" in (message := refusal(NAME))
    assert "HF_TOKEN" in message
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert Crosscoder.load(NAME).config == crosscoder.config


def test_a_repository_that_is_not_there(hub: Hub, tmp_path: Path):
    hub.add("someone/private", {}, private=True)
    for name in ("someone/nothing", "someone/private"):
        assert f"no folder '{name}', and the Hugging Face hub has no such repository" in refusal(name)
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_no_network(hub: Hub, crosscoder: Crosscoder, tmp_path: Path, monkeypatch):
    hub.add(NAME, files_of(crosscoder, tmp_path / "own"))
    Crosscoder.load(NAME)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert Crosscoder.load(NAME).config == crosscoder.config  # what was downloaded is there
    assert "gave no answer for it" in (message := refusal("someone/other"))
    assert "check the network" in message
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(XtalkError, match="gave no answer for it") as caught:
        crosscoder.push_to_hub(NAME)
    assert "\n" not in str(caught.value)


def test_a_download_that_is_cut_leaves_nothing_half_written(hub: Hub, crosscoder: Crosscoder, tmp_path: Path):
    hub.add(NAME, files_of(crosscoder, tmp_path / "own"))
    hub.cut = WEIGHTS
    assert "gave no answer for it" in refusal(NAME)
    assert not list((tmp_path / "cache").rglob(WEIGHTS))
    hub.cut = None
    assert Crosscoder.load(NAME).config == crosscoder.config


@pytest.mark.parametrize("call", ["repos/create", "preupload", "objects/batch", "/commit/"])
def test_a_push_that_fails_leaves_no_part(hub: Hub, crosscoder: Crosscoder, monkeypatch, call: str):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refused = call
    with pytest.raises(XtalkError, match=f"the Hugging Face hub refused {NAME}: the hub is unwell") as caught:
        crosscoder.push_to_hub(NAME)
    assert "\n" not in str(caught.value)
    repository = hub.repositories.get(NAME)
    assert repository is None or set(repository.commits[repository.refs["main"]]) == {".gitattributes"}


def test_a_push_without_a_token(hub: Hub, crosscoder: Crosscoder):
    with pytest.raises(XtalkError, match=r"the Hugging Face hub refused|has no such repository") as caught:
        crosscoder.push_to_hub(NAME)
    assert "\n" not in str(caught.value) and "token" in str(caught.value).lower()
    with pytest.raises(XtalkError, match="no repository can be called 'just-a-name'; expected OWNER/NAME"):
        crosscoder.push_to_hub("just-a-name")
    assert not hub.repositories


METRICS = {
    "schema": "xtalk.metrics/1",
    "model": {"name": "owner/model", "ce": 2.25, "n_params": 7},
    "crosscoders": [
        {
            "name": "first",
            "l0": 7.5,
            "dead": 3,
            "fvu": 0.125,
            "fvu_by_hookpoint": {HOOKS[0]: 0.5},
            "spliced": {HOOKS[0]: {"ce": 2.5, "kl": 0.1}},
            "fidelity": [
                {"block": 0, "resid_mid": "model", "baseline": "mean", "full": 0.875, "keep_1": 0.25,
                 "ci95": {"full": [0.75, 0.9]}},
                {"block": 0, "resid_mid": "model", "baseline": "zero", "full": 0.111, "keep_1": 0.0},
            ],
            "warnings": ["a figure that cannot be right"],
        },
        {"name": "second"},
    ],
    "certificates": [{"theorem": "T3", "what": "a small network", "bound": 0.75, "unit": "accuracy",
                      "verdict": "valid"}],
}  # fmt: skip


def card(hub: Hub) -> str:
    repository = hub.repositories[NAME]
    return repository.commits[repository.refs["main"]]["README.md"].decode()


def test_the_card_says_what_is_known(hub: Hub, crosscoder: Crosscoder, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps(METRICS))
    crosscoder.push_to_hub(NAME, metrics=metrics, crosscoder="first", private=True)
    assert hub.repositories[NAME].private
    lines = card(hub).splitlines()
    assert lines[:2] == ["---", "library_name: xtalk"] and "base_model: owner/model" in lines
    for row in (
        f"| reads | {', '.join(f'`{hook}`' for hook in HOOKS)} |",
        "| d_sae | 16 |",
        "| L0, active latents per token | 7.5 |",
        f"| FVU at `{HOOKS[0]}` | 0.5 |",
        "| cross-entropy of the model, nat per token | 2.25 |",
        f"| the same with `{HOOKS[0]}` from the crosscoder | 2.5 |",
        "| 0 | model | 0.875 (0.750 to 0.900) | 0.250 |",
        "- a figure that cannot be right",
        "| T3 | a small network | 0.75 accuracy | valid |",
        "| penalties | keep_one 4 |",
        "Unknown: text hash, scaling factors, training tokens, train batch size tokens.",
        f'cc = xtalk.Crosscoder.load("{NAME}")',
    ):
        assert row in lines
    assert "0.111" not in card(hub) and "dominant share" not in card(hub)


def test_the_card_of_a_crosscoder_of_which_nothing_is_known(hub: Hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    small_crosscoder("topk").push_to_hub(NAME)
    text = card(hub)
    assert "None were given when it was uploaded." in text and "| k | 4 |" in text
    assert "Unknown: model name" in text and "None |" not in text and "base_model" not in text


def test_figures_that_cannot_be_shown_are_refused_before_anything_is_sent(hub, crosscoder, tmp_path):
    metrics = tmp_path / "metrics.json"
    for content, name, match in (
        (None, None, "is missing, or no JSON"),
        ("{", None, "is missing, or no JSON"),
        ('{"crosscoders": 3}', None, "crosscoders"),
        (json.dumps(METRICS), "third", "it has first, second"),
        (json.dumps(METRICS), None, "it has first, second"),
    ):
        if content is not None:
            metrics.write_text(content)
        with pytest.raises(XtalkError, match=match):
            crosscoder.push_to_hub(NAME, metrics=metrics, crosscoder=name)
    assert not hub.requests


SESSION = """
import sys
from xtalk.cli import main
for words in ({push}, ["inspect", {name!r}, "--json"], ["inspect", "someone/nothing"]):
    sys.argv = ["xtalk", *words]
    try:
        main()
    except SystemExit as end:
        print("exit code", end.code or 0, flush=True)
"""


def test_the_commands(crosscoder: Crosscoder, tmp_path: Path):
    """Push and inspect through HF_ENDPOINT, as a user has it, in a process of its own."""
    folder = tmp_path / "run/crosscoders/first"
    crosscoder.save(folder)
    (tmp_path / "run/metrics.json").write_text(json.dumps(METRICS))
    with serving() as hub:
        environment = {
            **os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }  # fmt: skip
        session = SESSION.format(push=["push", str(folder), NAME], name=NAME)
        found = subprocess.run(
            [sys.executable, "-c", session], env=environment, capture_output=True, text=True, check=True
        )
        assert "| L0, active latents per token | 7.5 |" in card(hub)
        pushed, about, last = found.stdout.split("exit code 0\n")
        assert pushed == f"{NAME}@{hub.repositories[NAME].refs['main']}\n"
        assert json.loads(about)["hook_names"] == list(HOOKS)
        assert last == "exit code 2\n"
        assert re.fullmatch(r"xtalk: no folder 'someone/nothing', [^\n]*\n", found.stderr)
