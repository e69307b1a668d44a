"""`xtalk inspect`: what a dictionary is, in words and as JSON."""

import json
from pathlib import Path

import pytest
from crosscoder.small import small_crosscoder
from typer.testing import CliRunner

from xtalk.cli import app
from xtalk.crosscoder.inspection import inspected
from xtalk.crosscoder.provenance import Provenance

FILES = Path(__file__).parent / "formats" / "files"


def run(*args: str):
    return CliRunner().invoke(app, ["inspect", *args])


def test_a_crosscoder_of_ours(tmp_path: Path):
    small_crosscoder().save(tmp_path, Provenance(model_name="tiny", seed=3))
    about = inspected(tmp_path)
    assert (about["format"], about["readable"], about["architecture"]) == ("xtalk", True, "batchtopk")
    assert (about["d_in"], about["d_sae"], about["hook_names"][2]) == (5, 16, "blocks.1.resid_post")
    assert 0 <= about["thresholds"]["min"] < about["thresholds"]["median"] < about["thresholds"]["max"] < 1
    assert about["provenance"] == {"model_name": "tiny", "seed": 3}
    assert "text_hash" in about["unknown"] and "seed" not in about["unknown"]
    assert about["can"][-1] == "measure interactions and fidelity at the MLPs of the blocks 0, 1"
    assert about["cannot"] == []


def test_words_and_json_say_the_same():
    folder = str(FILES / "saelens" / "gated")
    words, data = run(folder), run(folder, "--json")
    assert words.exit_code == data.exit_code == 0
    about = json.loads(data.stdout)
    assert about["format"] == "SAELens"
    for said in (*about["notes"], *about["can"], *about["cannot"], "model_name gpt2", "blocks.1.resid_pre"):
        assert said in words.stdout
    assert "b_dec is subtracted from what is read: folded into b_enc" in about["notes"]
    assert any("gated" in note for note in about["notes"])
    assert about["can"][-1].startswith("measure interactions and fidelity at the MLPs of the blocks 1, where")
    assert about["cannot"] == []


@pytest.mark.parametrize(
    ("case", "cannot"),
    [
        (
            "saelens/skip_transcoder",
            "a transcoder from blocks.1.ln2.hook_normalized to blocks.1.hook_mlp_out does not decode",
        ),
        ("llamascopium/crosscoder_jumprelu", "have gates of their own"),
        ("paper/topk", "which name no hookpoint of xtalk's; give hook_names="),
        ("saelens/hook_z", "blocks.1.attn.hook_z, which name no hookpoint"),
    ],
)
def test_what_cannot_be_done_is_said(case: str, cannot: str):
    assert cannot in " ".join(inspected(FILES / case)["cannot"])


def test_what_is_known_but_not_read_is_said_and_no_failure():
    result = run(str(FILES / "crosslayer_transcoder" / "topk-clt-toy"))
    assert result.exit_code == 0
    assert "in the format of crosslayer-transcoder" in result.stdout
    assert "a cross-layer transcoder of 2 layers, width 110, 20 latents each" in result.stdout
    assert inspected(FILES / "crosslayer_transcoder" / "topk-clt-toy")["readable"] is False


def test_a_folder_of_nothing_known_fails_in_one_line(tmp_path: Path):
    result = run(str(tmp_path))
    assert result.exit_code == 2
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1
