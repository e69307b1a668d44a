"""`xtalk.measure`: its figures are those of the rooms below, for dictionaries at every place."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import xtalk
from xtalk.api.inputs import sequences_of
from xtalk.cli import app
from xtalk.crosscoder.provenance import Provenance
from xtalk.data import Counted, read_documents
from xtalk.evaluation.baselines import mean_mlp_outputs, measure_baselines
from xtalk.evaluation.evaluate import evaluate_crosscoder
from xtalk.evaluation.validation import ValidationConfig
from xtalk.reading.pairs import measure_pairs
from xtalk.reports.metrics import Metrics

L, K = 48, 6
QUICK = {"tokens": 1024, "sequence_length": 64, "resamples": 50}


@pytest.fixture(scope="module")
def model():
    return xtalk.load_model("embedded")


@pytest.fixture(scope="module")
def texts():
    return [text[:300] for text in read_documents("embedded", 100_000)[:96]]


def dictionary(model, texts, name: str, seed: int = 0) -> xtalk.Crosscoder:
    """A dictionary whose directions are activations."""
    x_BD = model.capture(
        torch.from_numpy(sequences_of(model, texts, tokens=4096).tokens).long(), [model.hookpoint(name)]
    )[:, :, 0].flatten(0, 1)
    D = model.d_model
    cc = xtalk.Crosscoder.from_tensors(
        W_enc=torch.zeros(D, L), W_dec=torch.zeros(L, D), b_enc=torch.zeros(L), b_dec=torch.zeros(D),
        hook_names=name, architecture="topk", k=K,
    )  # fmt: skip
    chosen = torch.randperm(len(x_BD), generator=torch.Generator().manual_seed(seed))[:L]
    cc.initialise(x_BD.mean(0)[None], (x_BD[chosen] - x_BD.mean(0))[:, None])
    return cc.requires_grad_(False)


@pytest.mark.parametrize("site", ["ln2", "resid_mid", "resid_pre"])
def test_figures_are_those_of_the_rooms_below(site: str, model, texts):
    cc = dictionary(model, texts, f"blocks.2.{site}")
    measured = xtalk.measure(model, cc, texts, **QUICK)
    text = sequences_of(model, texts, tokens=1024, length=64)
    means = mean_mlp_outputs(model, text, 1024, (2,), Counted(1))
    baselines = measure_baselines(model, text, means, counted=Counted(1))
    factor_P = torch.ones(1)
    evaluation = evaluate_crosscoder(
        model, cc, factor_P, text, baselines, resamples=50, seed=0, keep_error=True
    )
    [found] = measured.metrics.crosscoders
    assert found.fvu == pytest.approx(evaluation.reconstruction.fvu, rel=1e-5)
    assert (found.l0, found.dead) == (evaluation.reconstruction.l0, evaluation.reconstruction.dead)
    [at_block, _] = evaluation.interaction
    assert found.interaction == pytest.approx(at_block.T.value)
    assert found.dominant_share == pytest.approx(at_block.dominant_share.value)
    for rows, expected in (
        (found.fidelity, evaluation.fidelity),
        (found.fidelity_error_kept, evaluation.error_kept),
    ):
        by_key = {(r.block, r.resid_mid, r.baseline): r for r in expected}
        for row in rows:
            row_expected = by_key[row.block, row.resid_mid, row.baseline]
            assert row.keep_1 == pytest.approx(row_expected.phi["keep_1"].value)
            assert row.full == pytest.approx(row_expected.phi["full"].value)
    kept = [row for row in found.fidelity_error_kept if row.baseline == "mean"]
    assert [row.full for row in kept] == pytest.approx(
        [1.0], abs=1e-4
    )  # all features and the error: the model
    assert kept[0].ce["full"] == pytest.approx(measured.metrics.model.ce, abs=1e-5)
    pairs = measure_pairs(model, cc, text, counted=Counted(1)).matrices["mlp"]
    np.testing.assert_allclose(measured.pairs["dictionary"].total(), pairs.total())
    ablated = measured.metrics.model.ce_mlp_mean_ablated
    assert [value is not None for value in ablated] == [False, False, True, False]


def test_several_dictionaries_are_each_as_if_alone(model, texts):
    several = {
        "mid": dictionary(model, texts, "blocks.2.resid_mid"),
        "input": dictionary(model, texts, "blocks.1.ln2"),
    }
    together = xtalk.measure(model, several, texts, **QUICK)
    for row in together.metrics.crosscoders:
        [alone] = xtalk.measure(model, {row.name: several[row.name]}, texts, **QUICK).metrics.crosscoders
        assert alone == row
    assert [row.name for row in together.metrics.crosscoders] == ["mid", "input"]
    assert "mid: blocks.2.resid_mid, read at the MLP of block 2, through its norm" in str(together)


def test_names_are_of_the_folders_and_each_its_own(model, texts, tmp_path: Path):
    paths = [tmp_path / "a" / "sae", tmp_path / "b" / "sae", tmp_path / "c" / "other"]
    for path in paths:
        dictionary(model, texts, "blocks.1.ln2").save(path)
    found = xtalk.measure(model, paths, texts, **QUICK).metrics.crosscoders
    assert [row.name for row in found] == ["sae-1", "sae-2", "other"]


def test_validation_and_clusters_on_request(model, texts, tmp_path: Path, monkeypatch):
    few = ValidationConfig(pairs=20, loss_pairs=5, occurrences=2, loss_occurrences=1, resamples=20)
    monkeypatch.setattr("xtalk.api.measured._VALIDATION", few)
    cc = dictionary(model, texts, "blocks.2.resid_mid")
    measured = xtalk.measure(model, {"sae": cc}, texts, validate=True, clusters=True, **QUICK)
    [validation] = measured.metrics.validation
    assert -1 <= validation.rho["output_per_occurrence"]["interaction"][0] <= 1
    assert measured.metrics.clusters is not None and measured.metrics.clusters.count > 0
    report = measured.save(tmp_path / "out")
    page = report.read_text()
    assert "With the error node" in page and "Validation" in page and 'id="sweep"' not in page
    assert (tmp_path / "out" / "clusters.html").exists()
    on_disk = Metrics.model_validate_json((tmp_path / "out" / "metrics.json").read_bytes())
    assert on_disk == measured.metrics
    with pytest.raises(xtalk.XtalkError, match="clusters of 2 dictionaries"):
        xtalk.measure(model, {"a": cc, "b": cc}, texts, clusters=True)


def test_sinks_do_not_count_unless_asked_for(model, texts, monkeypatch):
    from xtalk.reading.sinks import Sinks

    cc = dictionary(model, texts, "blocks.1.resid_mid")
    found = Sinks(3, 9.0, {7: 30.0}, model.hookpoint("blocks.1.resid_mid"))
    monkeypatch.setattr("xtalk.api.measuring.find_sinks", lambda *args: found)
    counted = xtalk.measure(model, cc, texts, **QUICK).metrics.counted
    assert counted is not None and counted.skip_positions == 3 and len(counted.skip_tokens) == 1
    everything = xtalk.measure(model, cc, texts, keep_sinks=True, **QUICK).metrics.counted
    assert everything is not None and (everything.skip_positions, everything.skip_tokens) == (1, ())


@pytest.fixture
def files(model, texts, tmp_path: Path) -> dict[str, Path]:
    """Dictionaries and a text as files."""
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "empty.txt").write_text("\n\n")
    good = dictionary(model, texts, "blocks.2.resid_mid")
    good.save(tmp_path / "good")
    good.save(tmp_path / "other-model", Provenance(model_name="somebody", model_weights_hash="0" * 64))
    tensors = {name: getattr(good, name) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
    how = {"architecture": "topk", "k": K}
    xtalk.Crosscoder.from_tensors(**tensors, hook_names="blocks.9.ln2", **how).save(tmp_path / "block-9")
    xtalk.Crosscoder.from_tensors(**tensors, hook_names="blocks.3.resid_post", **how).save(tmp_path / "last")
    xtalk.Crosscoder.from_tensors(
        **tensors, hook_names="blocks.1.ln2", hook_names_out="blocks.1.hook_mlp_out", **how
    ).save(tmp_path / "transcoder")
    narrow = tensors | {
        "W_enc": good.W_enc[:, :64],
        "W_dec": good.W_dec[:, :, :64],
        "b_dec": good.b_dec[:, :64],
    }
    xtalk.Crosscoder.from_tensors(**narrow, hook_names="blocks.1.ln2", **how).save(tmp_path / "narrow")
    return {path.name: path for path in tmp_path.iterdir()}


def command(
    files: dict[str, Path], *dictionaries: str, text: str = "text.jsonl", options: tuple[str, ...] = ()
):
    paths = [str(files[name]) for name in dictionaries]
    size = ("--tokens", "1024", "--length", "64")
    return CliRunner().invoke(
        app, ["measure", *paths, "--model", "embedded", "--text", str(files.get(text, text)), *size, *options]
    )


def test_the_command_says_its_plan_and_leaves_report_and_metrics(files, tmp_path: Path):
    out = tmp_path / "out"
    result = command(files, "good", options=("--out", str(out), "--json"))
    assert result.exit_code == 0, result.stderr
    metrics = json.loads(result.stdout)
    assert metrics["crosscoders"][0]["name"] == "good"
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert {"report.html", "metrics.json", "report_data.json"} <= {path.name for path in out.iterdir()}
    assert "1024 tokens of" in result.stderr and "about" in result.stderr
    assert "good: 48 latents; blocks.2.resid_mid, read at the MLP of block 2" in result.stderr


def test_the_command_takes_several_as_one(files, model, texts, tmp_path: Path):
    for block in (1, 2):
        cc = dictionary(model, texts, f"blocks.{block}.ln2", seed=block)
        tensors = {name: getattr(cc, name) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
        own = {"hook_names": f"blocks.{block}.ln2", "architecture": "jumprelu", "threshold": 0.5}
        xtalk.Crosscoder.from_tensors(**tensors, **own).save(tmp_path / f"sae-{block}")
        files[f"sae-{block}"] = tmp_path / f"sae-{block}"
    alone = json.loads(command(files, "sae-1", "sae-2", options=("--quiet", "--json")).stdout)
    result = command(files, "sae-1", "sae-2", options=("--quiet", "--json", "--together"))
    [one] = json.loads(result.stdout)["crosscoders"]
    assert one["name"] == "together"
    [at_once] = [row for row in one["fidelity"] if row["block"] == "all"]
    assert at_once["ce"]["full"] > 0
    for crosscoder in alone["crosscoders"]:
        block = crosscoder["fidelity"][0]["block"]
        rows = [row for row in one["fidelity"] if row["block"] == block and row["baseline"] == "mean"]
        assert rows[0]["ce"]["keep_1"] == pytest.approx(crosscoder["fidelity"][0]["ce"]["keep_1"], rel=1e-6)
    refused = command(files, "sae-1", "sae-1", options=("--quiet", "--together"))
    assert refused.exit_code == 2 and "two of the dictionaries are at blocks.1.ln2" in refused.stderr


def test_of_a_transcoder_the_output_is_measured(files):
    result = command(files, "transcoder", options=("--quiet", "--json"))
    assert result.exit_code == 0, result.stderr
    [row] = json.loads(result.stdout)
    assert row["block"] == 1 and row["lost"][1] <= row["lost"][0] <= row["lost"][2]
    words = command(files, "transcoder", options=("--quiet",)).stdout
    assert words.startswith("block 1: Phi_mean")


BAD = {
    "width": (("narrow",), {}, "d_in is 64, and the model embedded has d_model 128"),
    "hookpoint": (("block-9",), {}, "no hookpoint 'blocks.9.ln2'"),
    "no MLP": (("last",), {}, "no hookpoint in front of an MLP"),
    "transcoder and more": (("transcoder", "good"), {}, "a transcoder from blocks.1.ln2"),
    "transcoder": (("transcoder",), {}, "have no meaning for a transcoder"),
    "second": (("good", "narrow"), {}, "d_in is 64"),
    "empty text": (("good",), {"text": "empty.txt"}, "no text"),
    "missing text": (("good",), {"text": "./nowhere.jsonl"}, "nowhere"),
    "no folder": (("empty.txt",), {}, "empty.txt"),
    "clusters of two": (("good", "other-model"), {"options": ("--clusters",)}, "clusters of 2 dictionaries"),
    "positions": (("good",), {"options": ("--skip-positions", "64")}, "skip fewer"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case: str, files, tmp_path: Path):
    names, how, said = BAD[case]
    out = tmp_path / "out"
    how = {**how, "options": (*how.get("options", ()), "--out", str(out), "--quiet")}
    result = command(files, *names, **how)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert said in result.stderr
    assert not out.exists()


def test_another_models_dictionary_is_measured_with_a_warning(files, model, caplog):
    with caplog.at_level(logging.WARNING, "xtalk"):
        result = command(files, "other-model", options=("--quiet",))
    assert result.exit_code == 0
    assert "trained on somebody (weights 000000000000); it is read in embedded (weights " in caplog.text


def test_the_command_reads_a_column_of_a_table_and_data_sets_by_name(files, texts, monkeypatch):
    rows = [{"story": text} for text in texts]
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: iter(rows))
    plain = command(files, "good", options=("--json",))
    named = command(files, "good", text="someone/stories", options=("--column", "story", "--json"))
    assert plain.exit_code == named.exit_code == 0, named.stderr
    one, other = (json.loads(result.stdout)["crosscoders"] for result in (plain, named))
    assert one == other
    missing = command(files, "good", text="someone/stories")
    assert missing.exit_code == 2 and "give --column" in missing.stderr
