"""What comes beside the steps of a run: validation by interventions, and pairs in attention and norms."""

import json

import numpy as np
import pytest
from runs.local_run import local_folder

import xtalk.evaluation.validation as evaluation
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix, combine
from xtalk.runs.folder import RunFolder
from xtalk.runs.run import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RunFolder:
    folder = local_folder(
        tmp_path_factory.mktemp("trained"), crosscoders=[{"name": "unpenalised", "penalties": {}}]
    )
    Run(folder.path).interact()
    return folder


def test_sites_beside_the_mlps(trained: RunFolder):
    files = [str(path.relative_to(trained.path)) for path in Run(trained.path).interact(["norm", "qk", "qk"])]
    assert files == [
        "interactions/unpenalised.qk.safetensors",
        "interactions/unpenalised.qk.strongest.json",
        "interactions/unpenalised.norm.safetensors",
        "interactions/unpenalised.norm.strongest.json",
        "interactions/unpenalised.attention.json",
    ]
    assert 0 < trained.read_json(files[-1])["coverage"] <= 1
    paths = {
        site: trained.file(f"interactions/unpenalised.{site}.safetensors") for site in ("mlp", "qk", "norm")
    }
    matrices = {site: PairMatrix.load(path) for site, path in paths.items()}
    assert len({matrix.source for matrix in matrices.values()}) == 1
    assert 0 < combine(matrices).total() < 3
    shown = trained.read_json(files[1])["matrix"]
    relative = matrices["qk"].interactions("sum", "relative").toarray()
    assert shown["site"] == "qk"
    assert len(shown["latents"]) == len(shown["labels"]) == 24
    np.testing.assert_allclose(shown["values"], relative[shown["latents"]][:, shown["latents"]])
    totals = matrices["qk"].row_totals() + matrices["qk"].column_totals()
    assert shown["latents"][0] == totals.argmax()
    with pytest.raises(XtalkError, match="no site 'mlp' to add; expected some of qk, ov, norm"):
        Run(trained.path).interact(["mlp"])
    with pytest.raises(XtalkError, match="no site 'attention'"):
        Run(trained.path).interact(["attention"])


def test_validation_is_kept(trained: RunFolder, monkeypatch):
    monkeypatch.setattr(evaluation, "FEWEST", 2)
    monkeypatch.setattr(evaluation, "FEWEST_PAIRS", 5)
    [file] = Run(trained.path).validate(tokens=400)
    record = json.loads(file.read_text())
    assert record["crosscoder"] == "unpenalised"
    assert {row["measure"] for row in record["rows"]} == set(evaluation.MEASURES)

    def never(*args, **kwargs):
        raise AssertionError("validated again")

    monkeypatch.setattr("xtalk.runs.steps.validate.validate_interactions", never)
    assert Run(trained.path).validate(crosscoders=["unpenalised"], tokens=400) == [file]
    with pytest.raises(AssertionError, match="again"):
        Run(trained.path).validate(tokens=200)
    with pytest.raises(XtalkError, match="no crosscoder 'sparse'"):
        Run(trained.path).validate(crosscoders=["sparse"])


def test_what_other_commands_left_is_in_the_results_until_the_weights_change(trained: RunFolder, monkeypatch):
    monkeypatch.setattr(evaluation, "FEWEST", 2)
    monkeypatch.setattr(evaluation, "FEWEST_PAIRS", 5)
    for left in (*trained.path.glob("validation/*"), *trained.path.glob("interactions/*.norm.*")):
        left.unlink()  # by another test
    Run(trained.path).evaluate()
    assert not trained.read_json("metrics.json")["validation"]
    Run(trained.path).interact(["qk"])
    Run(trained.path).validate(tokens=400)
    Run(trained.path).evaluate()
    data, metrics = trained.read_json("report_data.json"), trained.read_json("metrics.json")
    assert [m["site"] for m in data["interaction_matrices"]] == ["mlp", "qk"]
    rows = trained.read_json("validation/unpenalised.json")["rows"]
    assert len(data["validation"]) == len(rows)
    [found] = metrics["validation"]
    assert set(found["rho"]) == {
        "output_per_occurrence", "output_per_text", "loss_per_occurrence", "loss_per_text"
    }  # fmt: skip
    [mean] = [r for r in rows if (r["block"], r["measure"], r["effect"], r["weighting"])
              == ("mean", "decoder", "loss", "text")]  # fmt: skip
    assert found["rho"]["loss_per_text"]["decoder"] == mean["rho"]
    for name in ("validation/unpenalised.json", "interactions/unpenalised.qk.strongest.json"):
        trained.write_json(name, trained.read_json(name) | {"source": "of other weights"})
    Run(trained.path).evaluate()
    assert not trained.read_json("metrics.json")["validation"]
    assert len(trained.read_json("report_data.json")["interaction_matrices"]) == 1
