"""What a run does, as data: frozen models, and the presets."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xtalk.crosscoder.config import Architecture
from xtalk.errors import XtalkError
from xtalk.files import expanded
from xtalk.proofs.config import ProveConfig
from xtalk.training.config import TrainingConfig, check_penalty

UNPENALISED = "unpenalised"
_NOT_SHARED = ("penalties", "seed")


class Frozen(BaseModel):
    """A frozen record in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def absolute(source: str) -> str:
    """A model or text by name; a local path becomes absolute, so that a run goes on from any directory."""
    path = expanded(source)
    return str(path.resolve()) if path.exists() and not source.startswith("embedded") else source


class HarvestConfig(Frozen):
    """How activations are read.

    dtype: what the model runs in. scaling_tokens: tokens over which each hookpoint's mean and norm are taken.
    buffer_sequences: sequences whose tokens are shuffled together. skip_positions: first tokens of every
    sequence that are left out (in GPT-2 and Llama they are so large that they would rule any squared error).
    store: write the activations to disk once, rather than compute them again for each crosscoder.
    loss_metric_tokens: tokens over which is measured what errors of each MLP's output cost the model's loss,
    for the penalties that count such errors; 0: they count plain squared errors.
    """

    dtype: Literal["float32", "bfloat16"]
    scaling_tokens: int = Field(ge=1)
    buffer_sequences: int = Field(ge=1)
    skip_positions: int = Field(ge=0)
    store: bool
    loss_metric_tokens: int = Field(ge=0)


class SizeConfig(Frozen):
    """Latents, active latents per token and nonlinearity of every crosscoder of the run."""

    d_sae: int = Field(ge=1)
    k: int = Field(ge=1)
    architecture: Architecture

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.k > self.d_sae:
            raise ValueError(f"k is {self.k}, more than d_sae {self.d_sae}; choose k at most d_sae")
        return self


class CrosscoderSpec(Frozen):
    """A crosscoder to train: its name and the weight of each penalty, none of them zero."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    penalties: dict[str, float]

    @field_validator("penalties")
    @classmethod
    def _known_and_positive(cls, penalties: dict[str, float]) -> dict[str, float]:
        for name, weight in penalties.items():
            check_penalty(name)
            if weight <= 0:
                raise ValueError(f"penalty {name} has weight {weight}; expected more than 0, or leave it out")
        return penalties


class EvaluationConfig(Frozen):
    """How much held-out text is evaluated, and the number of bootstrap resamples behind each interval."""

    tokens: int = Field(ge=1)
    resamples: int = Field(ge=100)


class RunConfig(Frozen):
    """A whole run. Where it computes (the device) is no part of it.

    model: "embedded", a folder or a hub name. text: "embedded", a file, a folder or a dataset name; reading
    stops after max_characters. held_out: fraction of its documents kept for evaluation; or held_out_text, a
    text of its own for that. sequence_length: tokens per sequence. hookpoints: their names, or None for the
    paper's set of 4 x blocks + 1. training:
    what all crosscoders share; penalties and seed are the run's own. certificates: which small networks are
    certified, all with the run's seed.

    >>> xtalk.preset("quick", crosscoder={"d_sae": 256}).crosscoder
    SizeConfig(d_sae=256, k=32, architecture='batchtopk')
    """

    model: str = Field(min_length=1)
    text: str = Field(min_length=1)
    max_characters: int = Field(ge=1)
    held_out: float = Field(gt=0, lt=1)
    held_out_text: str | None = Field(default=None, min_length=1)
    sequence_length: int = Field(ge=2)
    hookpoints: tuple[str, ...] | None = Field(min_length=1)
    seed: int = Field(ge=0, lt=2**31)
    harvest: HarvestConfig
    crosscoder: SizeConfig
    training: TrainingConfig
    crosscoders: tuple[CrosscoderSpec, ...]
    evaluation: EvaluationConfig
    certificates: tuple[ProveConfig, ...] = ()

    @field_validator("model", "text", "held_out_text")
    @classmethod
    def _absolute(cls, source: str | None) -> str | None:
        return source if source is None else absolute(source)

    @model_validator(mode="after")
    def _positions_left(self) -> Self:
        if self.harvest.skip_positions >= self.sequence_length:
            raise ValueError("harvest.skip_positions leaves nothing of a sequence; choose fewer")
        return self

    @field_validator("training")
    @classmethod
    def _shared(cls, training: TrainingConfig) -> TrainingConfig:
        if training.model_fields_set & set(_NOT_SHARED):
            raise ValueError("penalties belong to each of crosscoders, and the seed to the whole run")
        return training

    @field_validator("crosscoders")
    @classmethod
    def _with_unpenalised(cls, specs: tuple[CrosscoderSpec, ...]) -> tuple[CrosscoderSpec, ...]:
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names):
            raise ValueError(f"a name occurs twice among {', '.join(names)}; expected each once")
        if not any(spec.name == UNPENALISED and not spec.penalties for spec in specs):
            raise ValueError(f"no crosscoder named {UNPENALISED} without penalties; add it, for comparison")
        return specs

    def fingerprint(self) -> str:
        """The sha256 of the configuration."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()

    def plain(self) -> dict[str, Any]:
        """The configuration as `run_config` takes it, ready for JSON or YAML."""
        return self.model_dump(mode="json", exclude={"training": set(_NOT_SHARED)})

    def training_of(self, spec: CrosscoderSpec) -> TrainingConfig:
        """How one of the run's crosscoders is trained."""
        return self.training.model_copy(update={"penalties": spec.penalties, "seed": self.seed})


def run_config(content: Mapping[str, Any]) -> RunConfig:
    """A configuration from plain data. Errors: XtalkError names the first key that is wrong."""
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise XtalkError(f"configuration: {where}: {first['msg'].removeprefix('Value error, ')}") from error


def preset(name: str, **changes: Any) -> RunConfig:
    """The preset of that name with some keys changed: `preset("quick", seed=1, training={"steps": 100})`.

    Mappings change the keys they have; everything else is replaced. Errors: XtalkError names the presets or
    the wrong key.

    >>> xtalk.preset("quick", seed=1, training={"steps": 100}).training.steps
    100
    """
    if name not in PRESETS:
        raise XtalkError(f"no preset {name!r}; expected one of {', '.join(PRESETS)}")
    return run_config(_changed(PRESETS[name], changes))


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    """A configuration with some keys changed, as in `preset`."""
    return run_config(_changed(config.plain(), changes))


def differences(old: RunConfig, new: RunConfig) -> str:
    """In words, where two configurations differ: 'seed was 0, is now 1'; empty if they are equal."""
    before, after = _flat(old.plain()), _flat(new.plain())
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    told = [f"{key} was {_short(before.get(key))}, is now {_short(after.get(key))}" for key in keys[:3]]
    return "; ".join(told) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


def _changed(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = (
            _changed(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries"
    return str(value)


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
            {
                "name": "sparse",
                "penalties": {
                    "sum_minus_max": 30.0,
                    "keep_one": 16.0,
                    "full_sum": 8.0,
                    "keep_one_kl": 32.0,
                    "full_sum_kl": 16.0,
                },
            },
        ),
        "evaluation": {"tokens": 8192, "resamples": 1000},
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
        "certificates": ({"post_hoc": True},),
    },
}
