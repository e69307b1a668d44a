"""`xtalk prove`, from the network to the files and the words."""

import json
import re

import pytest
from runs.local_run import local_folder
from typer.testing import CliRunner

from xtalk.cli import app
from xtalk.cli.proving import APPLY
from xtalk.errors import XtalkError
from xtalk.progress import silent
from xtalk.proofs.config import (
    ChartsConfig,
    DigitsConfig,
    LanguageConfig,
    PositionsConfig,
    ProveConfig,
    prove_config,
)
from xtalk.proofs.prove import THEOREMS, prove
from xtalk.proofs.row import CertificateRow
from xtalk.proofs.t1_language.certificate import certify_loss
from xtalk.proofs.t1_language.prove import read_places
from xtalk.proofs.words import describe
from xtalk.runs.layout import CERTIFICATES
from xtalk.runs.pipeline import Pipeline
from xtalk.runs.steps.prove import prove_run
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


ARITHMETIC = {"arithmetic", "certified_in_real_numbers"}
FIGURES = {"bound", "vacuous", "true", "mlp_ablated", "unconstrained", "constant_answer"}
COSTS = {"macs", "evaluations", "reads", "brute_force_macs", "break_even_inputs", "against_brute_force"}
SECONDS = {"check_seconds", "check_cpu_seconds", "brute_force_cpu_seconds", "brute_force_estimated"}
KEYS = {"path", "theorem", "what", "claim", "verdict"} | FIGURES | ARITHMETIC | COSTS | SECONDS
"""Of a row in metrics.json, whatever its theorem."""
OF_SEQUENCES = {"network", "task", "post_hoc", "vocabulary", "features", "columns"}


def checked(folder, row):
    """What `xtalk check` makes of a row's files."""
    stem = str(folder / row.path).removesuffix(".json")
    arguments = ["check", f"{stem}.json", "--spec", f"{stem}.spec.json", "--weights", f"{stem}.weights"]
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("post_hoc", [True, False])
def test_a_certificate_the_checker_accepts_and_the_figures_beside_it(tmp_path, post_hoc):
    row = prove(ProveConfig(**TINY, post_hoc=post_hoc), tmp_path)
    name = row.path.removesuffix(".json")
    kept = json.loads((tmp_path / f"{name}.figures.json").read_text())
    assert kept == row.as_json() and CertificateRow.model_validate(kept) == row
    assert kept.keys() == KEYS | OF_SEQUENCES
    assert kept["true"].keys() == {"value", "ci95", "right", "inputs", "exhaustive"}
    result = checked(tmp_path, row)
    assert result.exit_code == 0 and "accepted" in result.output
    assert row.true.exhaustive and row.true.inputs == row.claim["total"] == 12**3
    assert 0 < row.claim["certified"] <= row.certified_in_real_numbers <= row.true.right
    assert row.arithmetic == "float32" and "float32: the network is a deployed one" in result.output
    assert f"of the real-valued network {row.certified_in_real_numbers:,} inputs" in describe(row)
    assert row.bound == row.claim["certified"] / 12**3
    assert row.break_even_inputs * 16 * (3 + 4) >= row.macs
    assert "slower" in row.against_brute_force and row.against_brute_force in describe(row)
    assert 0 < row.brute_force_cpu_seconds < row.check_cpu_seconds and not row.brute_force_estimated
    if post_hoc:
        assert row.unconstrained == row.true


def test_the_same_seed_makes_the_same_certificate(tmp_path):
    config = ProveConfig(**TINY, post_hoc=True)
    rows = [prove(config, tmp_path / place) for place in ("one", "two")]
    one, two = ((tmp_path / place / rows[0].path).read_bytes() for place in ("one", "two"))
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
    assert row.verdict == "accepted"
    with pytest.raises(XtalkError, match="no anchor"):
        prove(ProveConfig(**sizes), tmp_path)


def test_attention_is_certified_post_hoc_for_max_and_min(tmp_path):
    sizes = TINY | {"network": "attention"}
    row = prove(ProveConfig(**sizes, post_hoc=True), tmp_path)
    assert row.arithmetic == "float32" and row.certified_in_real_numbers >= row.claim["certified"]
    assert row.theorem == "T3 attention" and "attention" in row.what and "attention" in row.path
    assert row.bound > 0 and row.true.inputs == 100_000 and not row.true.exhaustive
    assert row.bound <= row.true.ci95[1] and row.true == row.unconstrained
    assert row.brute_force_macs == 12 * (12 * 13 // 2) * 3 * 4
    assert (row.break_even_inputs - 1) * 3 * 4 < row.macs <= row.break_even_inputs * 3 * 4
    assert "without the layer" in describe(row) and "without the MLP" not in describe(row)
    with pytest.raises(XtalkError, match="expected --post-hoc"):
        prove(ProveConfig(**sizes), tmp_path)
    with pytest.raises(XtalkError, match="expected max or min"):
        prove(ProveConfig(**sizes | {"task": "majority"}, post_hoc=True), tmp_path)
    result = checked(tmp_path, row)
    assert result.exit_code == 0 and "T3 attention" in result.output


def test_attention_with_positions_is_certified_without_a_dictionary(tmp_path):
    config = PositionsConfig(vocabulary=6, n=3, d_model=12, network_steps=600)
    assert config.name == "max-3-of-6-positions-d_model-12-network_steps-600"
    row = prove(config, tmp_path)
    assert row.theorem == "T3 positions" and row.features is row.columns is None
    assert 0 < row.bound <= row.true.ci95[1] and row.true == row.unconstrained
    assert row.brute_force_macs == 6**3 * 3 * 6 and row.mlp_ablated.value < row.true.value
    assert (
        "without the layer" in describe(row) and "positions" in row.what and "dictionary" not in describe(row)
    )
    result = checked(tmp_path, row)
    assert result.exit_code == 0 and "with positions" in result.output


@pytest.mark.parametrize(
    ("theorem", "options", "reason"),
    [
        ("T3-attention", ["--activation", "relu"], "--activation does not apply to theorem T3-attention"),
        ("T3", ["--per-label", "2"], "--per-label does not apply to theorem T3; choose from --task, --n, "),
        ("T1", ["--task", "max"], "--task does not apply to theorem T1; choose from --form, --entries, "),
        ("charts", ["--post-hoc"], "--post-hoc does not apply to theorem charts; choose from --per-label"),
        (
            "T4",
            [],
            "unknown theorem 'T4'; expected one of T3, T3-attention, T3-positions, T1, charts, T1-language",
        ),
        ("T1", ["--form", "best"], "--form: "),
        ("T1", ["--seed", "3"], "the digits network that ships has seed 0; "),
    ],
)
def test_options_of_another_theorem_and_wrong_ones_are_one_line(tmp_path, theorem, options, reason):
    arguments = ["prove", "--theorem", theorem, *options, "--out", str(tmp_path / "x")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and not (tmp_path / "x").exists()
    assert reason in result.stderr and len(result.stderr.splitlines()) == 1


def test_every_theorem_has_options_on_the_command_line():
    assert set(APPLY) == set(THEOREMS)
    for theorem, options in APPLY.items():
        kind, fixed = THEOREMS[theorem]
        assert set(options) | set(fixed) <= set(kind.model_fields) and not set(options) & set(fixed)


def test_help_teaches_the_theorems():
    result = CliRunner().invoke(app, ["prove", "--help"], terminal_width=200)
    assert all(theorem in result.output for theorem in APPLY) and "held-out images" in result.output


def test_words_say_when_the_bound_is_vacuous(tmp_path):
    row = prove(ProveConfig(**TINY | {"network_steps": 1}, post_hoc=True), tmp_path)
    assert row.vacuous and row.bound <= row.constant_answer
    assert re.search(r"^ +VACUOUS: a constant answer is right on 0\.\d{4}$", describe(row), re.MULTILINE)
    assert "VACUOUS" not in describe(row.model_copy(update={"vacuous": False}))


@pytest.mark.parametrize(
    ("config", "theorem", "words"),
    [
        (DigitsConfig(), "T1", "0.9621, 432 of 449 inputs"),
        (DigitsConfig(form="exact"), "T1", "0.9777, 439 of 449 inputs"),
        (ChartsConfig(), "T1", "0.7528, 338 of 449 inputs"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_digits_are_certified_in_every_form(tmp_path, config, theorem, words):
    """The certified numbers are those of the tables in docs/proofs/results.md."""
    row = prove(config, tmp_path)
    assert row.theorem == theorem and row.unconstrained is None and row.path == f"{config.name}.json"
    assert row.claim["total"] == 449 and row.bound <= row.true.value and words in describe(row)
    assert row.as_json().keys() == KEYS and row.as_json()["true"].keys() == {"value", "exhaustive"}
    assert row.as_json()["unconstrained"] == {} and CertificateRow.model_validate(row.as_json()) == row
    assert (row.break_even_inputs - 1) * row.brute_force_macs < row.macs * 449
    assert row.break_even_inputs * row.brute_force_macs >= row.macs * 449
    assert checked(tmp_path, row).exit_code == 0


def test_the_language_models_tail_is_certified_after_a_plan(tmp_path, caplog):
    config = LanguageConfig(features=8, steps=2, sequences=4, tokens=6, knots=8)
    with caplog.at_level("INFO", "xtalk"):
        row = prove(config, tmp_path)
    assert re.search(r"plan: read 4 sequences .* 2 steps .* check 6 tokens twice", caplog.text)
    assert row.theorem == "T1 language" and row.unit == "nat/token"
    assert row.arithmetic == "real" and row.certified_in_real_numbers is None
    assert "real numbers; what rounding does" in describe(row)
    assert row.true.value <= row.bound == row.claim["micronats"] / 1e6
    assert row.vacuous == (row.bound >= row.mlp_ablated.value)
    assert f"at most {row.bound:.4f} nat/token on 6 tokens" in describe(row)
    exact = prove_exactly(6)
    assert row.brute_force_macs == exact.length.multiply_adds
    assert checked(tmp_path, row).exit_code == 0


def prove_exactly(tokens):
    """The verdict on the certificate that runs the tail."""
    places = read_places(tokens)
    return certify_loss(places.tail, None, places.x_TD, places.targets_T).verdict


def test_the_step_of_a_run_certifies_a_product_space_and_the_digits(tmp_path):
    wanted = TINY | {"post_hoc": True, "network_steps": 50}
    folder = local_folder(tmp_path, certificates=[wanted], seed=3)
    prove_run(Workbench(folder, "cpu"), silent)
    rows = folder.read_json(CERTIFICATES)
    assert [row["theorem"] for row in rows] == ["T3", "T1"]
    for row in map(CertificateRow.model_validate, rows):
        assert checked(folder.path, row).exit_code == 0
        assert row.bound <= row.true.value and "slower" in row.against_brute_force


def test_a_run_may_have_no_certificates(tmp_path):
    folder = local_folder(tmp_path, certificates=[])
    assert "prove" not in Pipeline(folder).steps


def test_a_size_of_no_task_is_one_line(tmp_path):
    with pytest.raises(XtalkError, match=r"^--n: .*--n$"):
        prove_config(ProveConfig, n=1)
    result = CliRunner().invoke(app, ["prove", "--vocabulary", "10", "--out", str(tmp_path)])
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
