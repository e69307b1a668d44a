"""Several processes give what one gives; each test starts two or three, which exchange through gloo."""

import json
from pathlib import Path

import pytest
import torch
from runs.local_run import local_config
from safetensors.torch import load_file
from together import together

from xtalk.runs.run import Run


def ran(*given: str, world: int = 2) -> list[str]:
    """What every rank printed, once all ended well."""
    found = together("shared_work", *given, world=world)
    assert [code for code, _, _ in found] == [0] * world, "\n".join(err for _, _, err in found)
    return [out for _, out, _ in found]


def test_what_ranks_exchange():
    found = [json.loads(line) for line in ran("exchange", world=3)]
    assert found[0] == found[1] == found[2]
    assert found[0] == {
        "each": [{"rank": r, "text": "a\nb" * r} for r in range(3)],
        "from_first": [0, None],
        "total": 33,
        "summed": [3.0, 3.0],
        "largest": [2, 0],
        "gathered": [0.0, 0.0, 1.0],
        "different": "the processes have different seeds; start all of them with the same command",
        "alone": [1, 5, [1.0, 1.0]],
    }


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path.with_suffix(".safetensors"))


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5 * float(tensor.abs().max()))


@pytest.mark.parametrize("architecture", ["batchtopk", "topk"])
def test_two_processes_train_what_one_trains(architecture: str, tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    ran("train", str(one), architecture, world=1)
    ran("train", str(two), architecture)
    assert_near(weights(two), weights(one))
    logs = [json.loads(path.with_suffix(".json").read_text())["log"] for path in (one, two)]
    for alone, shared in zip(*logs, strict=True):
        assert alone.keys() == shared.keys()
        for key in alone.keys() - {"tokens_per_second"}:
            assert shared[key] == pytest.approx(alone[key], rel=1e-5), key
    assert "aux" in logs[0][0]  # the auxiliary loss took part


@pytest.mark.parametrize(("first", "then"), [(2, 3), (1, 2)])
def test_a_training_goes_on_with_another_number_of_processes(first: int, then: int, tmp_path: Path):
    whole, out, folder = tmp_path / "whole", tmp_path / "out", tmp_path / "checkpoint"
    ran("train", str(whole), "batchtopk", world=1)
    ran("train", str(out), "batchtopk", "47", str(folder), world=first)
    assert not out.with_suffix(".json").exists() and list(folder.iterdir())
    ran("train", str(out), "batchtopk", "", str(folder), world=then)
    assert_near(weights(out), weights(whole))


@pytest.mark.parametrize("world", [2, 4])
def test_what_a_step_exchanges_is_what_the_plan_says(world: int, tmp_path: Path):
    """The gradient of every weight, and when each latent fired; however many processes (docs/scale.md)."""
    ran("train", str(tmp_path / "two"), "topk", world=world)
    P, D, L = 9, 12, 128
    plan = 4 * (2 * P * D * L + L + P * D) + 8 * L
    found = json.loads((tmp_path / "two.json").read_text())["bytes"]
    assert plan <= found < 1.01 * plan


def test_more_processes_than_sequences_and_what_trains_on_one_are_refused():
    assert all("3 processes share 1 sequences at a time" in line for line in ran("too_many", world=3))
    assert all("a jumprelu crosscoder trains on one process" in line for line in ran("jumprelu"))


def test_a_run_of_two_processes_is_that_of_one(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    for place in (one, two):
        place.mkdir()
    expected = Run(one / "run", local_config(one), device="cpu")
    expected.evaluate()
    ran("run", str(two))
    for name in ("unpenalised", "paper-300", "sparse"):
        path = f"run/crosscoders/{name}/sae_weights.safetensors"
        for key, tensor in load_file(one / path).items():
            atol = 1e-3 * float(tensor.abs().max())  # rounding decides which of two near equals is kept
            torch.testing.assert_close(load_file(two / path)[key], tensor, rtol=1e-3, atol=atol)
    events = [json.loads(line) for line in (two / "run/log.jsonl").read_text().splitlines()]
    complete = [event["step"] for event in events if event["event"] == "complete"]
    assert len(complete) == len(set(complete)) and "evaluate" in complete


def test_processes_with_different_configurations_are_refused(tmp_path: Path):
    local_config(tmp_path)  # writes model and text, which both would write
    found = together("shared_work", "run", str(tmp_path), "", "1")
    assert [code for code, _, _ in found] == [2, 2]
    assert all("different configurations" in out for _, out, _ in found)
    assert not (tmp_path / "run").exists()


def test_a_process_that_dies_stops_the_others_and_the_run_goes_on(tmp_path: Path):
    local_config(tmp_path)
    found = together("shared_work", "run", str(tmp_path), "1")
    assert [code for code, _, _ in found] == [2, 9]
    assert "process 0 of 2 lost the others" in found[0][1]
    assert "go on with the same command" in found[0][1]
    ran("run", str(tmp_path))
    assert (tmp_path / "run/metrics.json").exists()
