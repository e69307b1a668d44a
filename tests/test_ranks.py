"""Several processes give what one gives. To start them is what costs: each group does several things."""

import json
from pathlib import Path
from typing import Any

import pytest
import shared_work
import torch
from runs.local_run import local_config
from safetensors.torch import load_file
from together import together

from xtalk.runs.run import Run

BYTES = (["exchanged", 128, False], ["exchanged", 512, False], ["exchanged", 512, True])


def ran(*work: list[Any], world: int) -> list[list[Any]]:
    """What came of each piece of work, by rank, once all ended well."""
    found = together("shared_work", "jobs", json.dumps(work), world=world)
    assert [code for code, _, _ in found] == [0] * world, "\n".join(err for _, _, err in found)
    return [json.loads(out) for _, out, _ in found]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path.with_suffix(".safetensors"))


def record(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())


def assert_near(path: Path, expected: Path) -> None:
    for name, tensor in weights(expected).items():
        torch.testing.assert_close(
            weights(path)[name], tensor, rtol=1e-5, atol=1e-5 * float(tensor.abs().max())
        )


def assert_same_log(path: Path, expected: Path) -> None:
    for alone, shared in zip(record(expected)["log"], record(path)["log"], strict=True):
        assert alone.keys() == shared.keys() and {"aux", "sparsity"} & alone.keys()
        for key in alone.keys() - {"tokens_per_second"}:
            assert shared[key] == pytest.approx(alone[key], rel=1e-5), key


def assert_bytes_as_planned(world: int, small: float, large: float, penalised: float) -> None:
    """Of crosscoders with 128 and 512 latents, and of the larger one under penalty (docs/scale.md)."""
    P, D, L, B, k, weights = 9, 12, 512, 64, 2, 9 * 12 * 2 * 128 * 4
    tokens = 4 * P * D * (B + 2 * B / world) + 4 * P * D
    assert tokens <= small < 1.1 * tokens < weights
    assert large == pytest.approx(small, rel=0.02)
    decoders = 4 * 2 * D * (L / world + L)
    codes = B * k * (12 + 4 * world)
    assert decoders < penalised - large < decoders + 2 * codes


def one_process(folder: Path, architecture: str) -> Path:
    shared_work.train(str(folder / f"one-{architecture}"), architecture)
    return folder / f"one-{architecture}"


def test_two_processes_train_and_run_what_one_does(tmp_path: Path):
    """Alike in all architectures, gone on from one process, refused where it must be, and a whole run."""
    whole = {name: one_process(tmp_path, name) for name in ("batchtopk", "topk", "relu")}
    shared_work.train("", "batchtopk", 47, str(tmp_path / "of one"))
    short = None, None, 33, 32  # every 33rd batch is one sequence, so that the second rank has no token
    places = tmp_path / "one", tmp_path / "two", tmp_path / "different"
    for place in places:
        place.mkdir()
        shared_work.float32_config(place)  # writes model and text, which both would write
    found = ran(
        ["train", str(tmp_path / "batchtopk"), "batchtopk"],
        ["train", str(tmp_path / "topk"), "topk"],
        ["train", str(tmp_path / "relu"), "relu"],
        ["train", str(tmp_path / "gone on"), "batchtopk", None, str(tmp_path / "of one")],
        ["train", str(tmp_path / "short"), "topk", *short],
        ["jumprelu"],
        *BYTES,
        ["run", str(places[2]), None, 1],
        ["run", str(places[1])],
        world=2,
    )
    for name, expected in whole.items():
        assert_near(tmp_path / name, expected)
        assert_same_log(tmp_path / name, expected)
    assert_bytes_as_planned(2, *found[0][6:9])
    assert_near(tmp_path / "gone on", whole["batchtopk"])
    shared_work.train(str(tmp_path / "short of one"), "topk", *short)
    assert_near(tmp_path / "short", tmp_path / "short of one")
    assert all("a jumprelu crosscoder trains on one process" in done[5] for done in found)
    assert all("different configurations" in done[9] for done in found)
    assert not (places[2] / "run").exists()
    Run(places[0] / "run", shared_work.float32_config(places[0]), device="cpu").evaluate()
    assert_same_run(*(place / "run" for place in places[:2]))


def assert_same_run(one: Path, two: Path) -> None:
    for name in ("unpenalised", "paper-300", "sparse"):
        path = f"crosscoders/{name}/sae_weights.safetensors"
        for key, tensor in load_file(one / path).items():
            atol = 1e-4 * float(tensor.abs().max())  # rounding decides which of two near equals is kept
            torch.testing.assert_close(load_file(two / path)[key], tensor, rtol=1e-4, atol=atol)
    events = [json.loads(line) for line in (two / "log.jsonl").read_text().splitlines()]
    complete = [event["step"] for event in events if event["event"] == "complete"]
    assert len(complete) == len(set(complete)) and "evaluate" in complete


def test_three_processes_exchange_and_go_on_where_two_were_stopped(tmp_path: Path):
    stopped = tmp_path / "checkpoint"
    ran(["train", str(tmp_path / "out"), "batchtopk", 47, str(stopped)], world=2)
    assert not (tmp_path / "out.json").exists() and list(stopped.iterdir())
    work = ["train", str(tmp_path / "out"), "batchtopk", None, str(stopped)]
    found = ran(["exchange"], ["too_many"], work, ["too_few"], world=3)
    assert found[0][0] == found[1][0] == found[2][0]
    assert found[0][0] == {
        "each": [{"rank": r, "text": "a\nb" * r} for r in range(3)],
        "from_first": [0, None],
        "total": 33,
        "summed": [3.0, 3.0],
        "gathered": [0.0, 0.0, 1.0],
        "columns": [[1, 2, 2], [1, 2, 2]],
        "own columns": True,
        "own of sum": True,
        "different": "the processes have different seeds; start all of them with the same command",
        "alone": [1, 5, [1.0, 1.0]],
    }
    assert all("3 processes share 1 sequences at a time" in done[1] for done in found)
    assert all("3 processes share 2 latents; start fewer" in done[3] for done in found)
    assert_near(tmp_path / "out", one_process(tmp_path, "batchtopk"))


def test_four_processes_exchange_what_the_plan_says(tmp_path: Path):
    assert_bytes_as_planned(4, *ran(*BYTES, world=4)[0])


def test_a_process_that_dies_stops_the_others_and_the_run_goes_on(tmp_path: Path):
    local_config(tmp_path)
    found = together("shared_work", "jobs", json.dumps([["run", str(tmp_path), 1]]))
    assert [code for code, _, _ in found] == [0, 9]
    [error] = json.loads(found[0][1])
    assert "process 0 of 2 lost the others" in error and "go on with the same command" in error
    shared_work.run(str(tmp_path))
    assert (tmp_path / "run/metrics.json").exists()
