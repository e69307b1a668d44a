"""The plan of a run: counted FLOPs against those that torch counts, and what is too long is refused."""

from dataclasses import replace
from functools import partial
from math import prod

import pytest
from reference.tiny_models import tiny_model, tiny_tokens
from runs.local_run import local_config, local_folder
from torch.utils.flop_counter import FlopCounterMode

from xtalk.errors import XtalkError
from xtalk.runs.costs import Costs, Passes
from xtalk.runs.folder import RunFolder
from xtalk.runs.plan import Plan, plan_run
from xtalk.runs.run import Run
from xtalk.runs.workbench import Workbench

KL = {"keep_one": 1.0, "keep_one_kl": 1.0}


def workbench(tmp_path, **changes) -> Workbench:
    return Workbench(RunFolder(tmp_path / "run", local_config(tmp_path, **changes)), "cpu")


@pytest.mark.parametrize("family", ["gpt_neo", "llama"])
def test_a_pass_is_counted_as_torch_counts_it(family: str):
    model, tokens = tiny_model(family), tiny_tokens(4)
    passes = Passes.of(model, tokens.shape[1])
    with FlopCounterMode(display=False) as counter:
        model.logits(tokens)
    counted = tokens.numel() * (passes.up_to(model.n_blocks - 1) + passes.head)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.1)
    assert passes.above(model.n_blocks - 1) == passes.head


def test_costs_follow_what_is_asked_for(tmp_path):
    few = {"hookpoints": ["blocks.1.ln2"]}
    specs = [{"name": "unpenalised", "penalties": {}}, {"name": "kl", "penalties": KL}]
    costs = Costs(workbench(tmp_path, crosscoders=specs))
    fewer = Costs(workbench(tmp_path, crosscoders=specs, **few))
    for step in ("harvest", "train/unpenalised", "train/kl", "baselines", "evaluate/kl"):
        assert 0 < fewer.of(step).flops < costs.of(step).flops
    assert costs.of("train/unpenalised").products == 0 < costs.of("train/kl").products
    assert costs.of("report").flops == 0
    sampled = Costs(workbench(tmp_path, crosscoders=specs, training={"sample_blocks": True}))
    longer = Costs(workbench(tmp_path, crosscoders=specs, training={"steps": 40}))
    assert sampled.of("train/kl").spliced < costs.of("train/kl").spliced
    assert longer.of("train/kl").spliced == pytest.approx(2 * costs.of("train/kl").spliced)
    assert costs.crosscoder_parameters > fewer.crosscoder_parameters
    assert costs.peak_bytes() > fewer.peak_bytes() and costs.disk_bytes() > fewer.disk_bytes()


@pytest.mark.parametrize(("batch_tokens", "skipped", "sequences"), [(76, 0, 4), (76, 1, 8), (38, 0, 4)])
def test_splices_run_on_whole_sequences(batch_tokens: int, skipped: int, sequences: int, tmp_path):
    """Batches that end with their buffer of 4 x 19 tokens, that nearly always span two, and halves of one."""
    harvest = {"buffer_sequences": 4, "skip_positions": skipped}
    bench = workbench(tmp_path, harvest=harvest, training={"batch_tokens": batch_tokens})
    assert bench.counted.skip_positions == skipped
    stream = bench.batches()
    touched = [len(next(stream).sequences.unique()) for _ in range(20)]
    assert Costs(bench).splice_tokens() == pytest.approx(19 * sequences, rel=0.05)
    assert sum(touched) / len(touched) == pytest.approx(sequences, rel=0.15)


def test_a_plan_writes_nothing_and_has_every_step_that_costs(tmp_path):
    bench = workbench(tmp_path)
    plan = plan_run(bench)
    assert not bench.folder.path.exists()
    assert {"harvest", "train/unpenalised", "train/sparse", "evaluate/sparse"} <= set(plan.seconds)
    assert all(seconds > 0 for seconds in plan.seconds.values())
    assert plan.crosscoder_parameters == sum(map(prod, bench.crosscoder_config.shapes.values()))
    words = "\n".join(plan.lines())
    assert "blocks.0.resid_pre" in words and "TFLOP" in words and "of memory" in words
    assert plan.data()["seconds"] == pytest.approx(sum(plan.seconds.values()))


def too_long(bench: Workbench) -> Plan:
    plan = plan_run(bench)
    return replace(plan, seconds=dict.fromkeys(plan.seconds, 3000.0))


def test_more_than_an_hour_is_refused_with_what_to_change(tmp_path):
    bench = workbench(tmp_path)
    plan_run(bench).check(yes=False)
    long = too_long(bench)
    long.check(yes=True)
    with pytest.raises(XtalkError, match=r"would take about .* h, most of it for .*--hookpoints .*--yes"):
        long.check(yes=False)


def test_a_run_that_is_not_approved_computes_nothing(tmp_path):
    run = Run(local_folder(tmp_path).path, device="cpu")

    def refuse(plan: Plan) -> None:
        raise XtalkError("no")

    with pytest.raises(XtalkError, match="no"):
        run.run(approve=refuse)
    assert not run.folder.file("harvest.json").exists()


def test_blocks_by_depth_are_those_of_the_model(tmp_path):
    by_depth = partial(workbench, tmp_path)
    names = [str(point) for point in by_depth(hookpoints=["early.ln2", "late.resid_mid"]).hookpoints]
    assert names == ["blocks.0.ln2", "blocks.2.resid_mid"]
    every = by_depth(hookpoints=[f"{depth}.ln2" for depth in ("early", "middle", "late")]).hookpoints
    assert list(map(str, every)) == ["blocks.0.ln2", "blocks.1.ln2", "blocks.2.ln2"]
