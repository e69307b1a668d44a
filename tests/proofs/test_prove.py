"""`xtalk prove`, from the network to the files and the words."""

import json
import re

import pytest
from runs.local_run import local_folder
from typer.testing import CliRunner

from xtalk.cli import app
from xtalk.errors import XtalkError
from xtalk.progress import silent
from xtalk.proofs.prove import ProveConfig, describe, prove, prove_config
from xtalk.reports.metrics import Certificate
from xtalk.runs.steps.prove import CERTIFICATES, prove_run
from xtalk.runs.workbench import Workbench

TINY = {
    "vocabulary": 12,
    "n": 3,
    "classes": 4,
    "dictionary": 4,
    "d_model": 12,
    "neurons": 16,
    "network_steps": 150,
    "aware_steps": 60,
    "crosscoder_steps": 40,
}


@pytest.mark.parametrize("post_hoc", [True, False])
def test_a_certificate_the_checker_accepts_and_the_figures_beside_it(tmp_path, post_hoc):
    row = prove(ProveConfig(**TINY, post_hoc=post_hoc), tmp_path)
    name = row["path"].removesuffix(".json")
    assert json.loads((tmp_path / f"{name}.figures.json").read_text()) == row
    files = [str(tmp_path / f"{name}{end}") for end in (".json", ".spec.json", ".weights")]
    result = CliRunner().invoke(app, ["check", files[0], "--spec", files[1], "--weights", files[2]])
    assert result.exit_code == 0 and "accepted" in result.output
    true = row["true"]
    assert true["exhaustive"] and true["inputs"] == row["claim"]["total"] == 12**3
    assert 0 < row["claim"]["certified"] <= true["right"]
    assert row["bound"] == row["claim"]["certified"] / 12**3
    assert row["break_even_inputs"] * 16 * (3 + 4) >= row["macs"]
    assert "slower" in row["against_brute_force"] and row["against_brute_force"] in describe(row)
    assert 0 < row["brute_force_cpu_seconds"] < row["check_cpu_seconds"] and not row["brute_force_estimated"]
    if post_hoc:
        assert row["unconstrained"] == true


def test_the_same_seed_makes_the_same_certificate(tmp_path):
    config = ProveConfig(**TINY, post_hoc=True)
    rows = [prove(config, tmp_path / place) for place in ("one", "two")]
    one, two = ((tmp_path / place / rows[0]["path"]).read_bytes() for place in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "max-4-of-64-aware"),
        ({"post_hoc": True, "network": "attention"}, "max-4-of-64-attention-post-hoc"),
        ({"task": "modular_addition", "n": 3}, "modular_addition-3-of-64-aware"),
        ({"seed": 3}, "max-4-of-64-aware-seed-3"),
        (
            {"activation": "gelu", "residual": False, "d_model": 8},
            "max-4-of-64-aware-gelu-no-residual-d_model-8",
        ),
        ({"penalties": {"b": 1.0, "a": 0.5}}, "max-4-of-64-aware-a-0.5-b-1.0"),
    ],
)
def test_a_certificate_is_named_after_what_is_not_default(given, name):
    assert ProveConfig(**given).name == name


def test_no_two_settings_share_a_name():
    changed: dict = {"network": "attention", "task": "min", "activation": "gelu", "residual": False}
    changed |= {"post_hoc": True, "penalties": {"sum_minus_max": 1.0}, "direct": 3.0000000001}
    changed |= {k: f.default + 1 for k, f in ProveConfig.model_fields.items() if k not in changed}
    configs = [ProveConfig(), *(ProveConfig(**{key: value}) for key, value in changed.items())]
    assert len({config.name for config in configs}) == len(ProveConfig.model_fields) + 1


def test_seeds_do_not_overwrite_one_another(tmp_path):
    tiny = TINY | {"network_steps": 5, "crosscoder_steps": 5, "post_hoc": True}
    for seed in (0, 1):
        prove(ProveConfig(**tiny, seed=seed), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 * 4


def test_modular_addition_is_certified_post_hoc_only(tmp_path):
    sizes = TINY | {"task": "modular_addition", "vocabulary": 6, "classes": 3}
    row = prove(ProveConfig(**sizes, post_hoc=True), tmp_path)
    assert row["verdict"] == "accepted"
    with pytest.raises(XtalkError, match="no anchor"):
        prove(ProveConfig(**sizes), tmp_path)


def test_attention_is_certified_post_hoc_for_max_and_min(tmp_path):
    sizes = TINY | {"network": "attention"}
    row = prove(ProveConfig(**sizes, post_hoc=True), tmp_path)
    Certificate.model_validate(row)
    assert row["theorem"] == "T3 attention" and "attention" in row["what"] and "attention" in row["path"]
    assert row["bound"] > 0 and row["true"]["inputs"] == 100_000 and not row["true"]["exhaustive"]
    assert row["bound"] <= row["true"]["ci95"][1] and row["true"] == row["unconstrained"]
    assert row["brute_force_macs"] == 12 * (12 * 13 // 2) * 3 * 4
    assert (row["break_even_inputs"] - 1) * 3 * 4 < row["macs"] <= row["break_even_inputs"] * 3 * 4
    assert "without the layer" in describe(row) and "without the MLP" not in describe(row)
    with pytest.raises(XtalkError, match="expected --post-hoc"):
        prove(ProveConfig(**sizes), tmp_path)
    with pytest.raises(XtalkError, match="expected max or min"):
        prove(ProveConfig(**sizes | {"task": "majority"}, post_hoc=True), tmp_path)
    name = row["path"].removesuffix(".json")
    files = [str(tmp_path / f"{name}{end}") for end in (".json", ".spec.json", ".weights")]
    result = CliRunner().invoke(app, ["check", files[0], "--spec", files[1], "--weights", files[2]])
    assert result.exit_code == 0 and "T3 attention" in result.output


def test_attention_is_refused_an_activation(tmp_path):
    options = ("--network", "attention", "--post-hoc", "--activation", "relu", "--out", str(tmp_path / "x"))
    result = CliRunner().invoke(app, ["prove", *options])
    assert result.exit_code == 2 and not (tmp_path / "x").exists()
    assert result.stderr == (
        "xtalk: --activation relu is of --network mlp, and attention has none; leave it out\n"
    )


def test_words_say_when_the_bound_is_vacuous(tmp_path):
    row = prove(ProveConfig(**TINY | {"network_steps": 1}, post_hoc=True), tmp_path)
    assert row["vacuous"] and row["bound"] <= row["constant_answer"]
    assert re.search(r"^ +VACUOUS: a constant answer is right on 0\.\d{4}$", describe(row), re.MULTILINE)
    assert "VACUOUS" not in describe(row | {"vacuous": False})


def test_the_step_of_a_run_certifies_a_product_space_and_the_digits(tmp_path):
    wanted = TINY | {"post_hoc": True, "network_steps": 50}
    folder = local_folder(tmp_path, certificates=[wanted], seed=3)
    files = prove_run(Workbench(folder, "cpu"), silent)
    assert files[-1] == CERTIFICATES and all(folder.file(name).exists() for name in files)
    rows = folder.read_json(CERTIFICATES)
    assert [row["theorem"] for row in rows] == ["T3", "T1"]
    for row in rows:
        Certificate.model_validate(row)  # what the report reads
        stem = str(folder.file(row["path"])).removesuffix(".json")
        arguments = ["check", f"{stem}.json", "--spec", f"{stem}.spec.json", "--weights", f"{stem}.weights"]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        assert row["bound"] <= row["true"]["value"] and "slower" in row["against_brute_force"]


def test_a_run_may_have_no_certificates(tmp_path):
    folder = local_folder(tmp_path, certificates=[])
    assert prove_run(Workbench(folder, "cpu"), silent) == [CERTIFICATES]
    assert folder.read_json(CERTIFICATES) == []


def test_a_wrong_option_is_one_line(tmp_path):
    with pytest.raises(XtalkError, match=r"^n: .*--n$"):
        prove_config(n=1)
    result = CliRunner().invoke(app, ["prove", "--vocabulary", "10", "--out", str(tmp_path)])
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
