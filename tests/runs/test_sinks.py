"""A run on a model with an attention sink leaves it out of everything, and says so."""

import logging
import shutil

import pytest
import yaml
from runs.local_run import local_config, local_folder
from safetensors.torch import load_file, save_file

from xtalk.errors import XtalkError
from xtalk.runs.config import changed
from xtalk.runs.folder import RunFolder
from xtalk.runs.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder, metrics.json and harvest.json of a run without the sink, and of one that keeps it."""
    made = {}
    for keep in (False, True):
        place = tmp_path_factory.mktemp("sink")
        local_config(place)
        file = place / "model/model.safetensors"
        tensors = load_file(file)
        tensors["transformer.wpe.weight"][0] *= 300
        save_file(tensors, file, {"format": "pt"})
        harvest = {"scaling_tokens": 512, "loss_metric_tokens": 64, "keep_sinks": keep}
        points = ["blocks.1.resid_pre", "blocks.1.resid_mid", "blocks.1.ln2"]
        folder = local_folder(place, harvest=harvest, hookpoints=points)
        Run(folder.path).evaluate()
        made[keep] = folder, folder.read_json("metrics.json"), folder.read_json("harvest.json")
    return made


def test_what_does_not_count_is_written_down(runs):
    _, metrics, harvest = runs[False]
    assert harvest["counted"] == {"skip_positions": 1, "skip_tokens": []}
    counted = metrics["counted"]
    assert counted["skip_positions"] == 1 and counted["skip_tokens"] == []
    assert counted["tokens"] - counted["counted"] == counted["first_positions"] > 0
    _, kept, _ = runs[True]
    assert kept["counted"]["counted"] == kept["counted"]["tokens"] == counted["tokens"]


def test_the_sinks_are_recorded_beside_the_configuration_and_change_nothing_of_it(runs):
    for keep, (folder, _, harvest) in runs.items():
        record = yaml.safe_load(folder.file("config.yaml").read_text())
        assert record["found_by_harvest"] == harvest["counted"]
        assert record["found_by_harvest"]["skip_positions"] == (0 if keep else 1)
        assert record["config"]["harvest"]["skip_positions"] == 0
        stamp = folder.file("harvest.json").stat().st_mtime_ns
        Run(folder.path, RunFolder.open(folder.path).config).harvest()
        assert folder.file("harvest.json").stat().st_mtime_ns == stamp
        with pytest.raises(XtalkError, match=r"harvest\.skip_positions was 0, is now 2"):
            RunFolder.create(folder.path, changed(folder.config, harvest={"skip_positions": 2}))


def test_the_record_stays_where_the_text_moved(runs, tmp_path):
    folder = RunFolder.open(shutil.copytree(runs[False][0].path, tmp_path / "run"))
    text = shutil.copy(folder.config.text, tmp_path / "elsewhere.jsonl")
    RunFolder.create(folder.path, changed(folder.config, text=str(text)))
    record = yaml.safe_load(folder.file("config.yaml").read_text())
    assert record["config"]["text"] == str(text)
    assert record["found_by_harvest"] == {"skip_positions": 1, "skip_tokens": []}


def test_the_sink_is_warned_about_where_it_is_kept(runs):
    said = {
        keep: " ".join(s for crosscoder in metrics["crosscoders"] for s in crosscoder["warnings"])
        for keep, (_, metrics, _) in runs.items()
    }
    assert "position 0 has" in said[True] and "an attention sink" in said[True]
    assert "an attention sink" not in said[False]


def test_a_harvest_says_in_one_line_what_it_leaves_out(tmp_path, caplog):
    local_config(tmp_path)
    file = tmp_path / "model/model.safetensors"
    tensors = load_file(file)
    tensors["transformer.wpe.weight"][0] *= 300
    save_file(tensors, file, {"format": "pt"})
    with caplog.at_level(logging.WARNING, "xtalk"):
        Run(local_folder(tmp_path).path).harvest()
    [line] = [r.getMessage() for r in caplog.records if "attention sinks" in r.getMessage()]
    assert "the first position of every sequence, with norms " in line
    assert line.endswith("harvest.keep_sinks=true counts them")
