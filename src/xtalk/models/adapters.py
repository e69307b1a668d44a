"""Adapters in peft's format, merged into the model that they are of: LoRA, and tensors saved whole."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import regex
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from xtalk.errors import XtalkError
from xtalk.models.source import ADAPTER, ADAPTER_WEIGHTS

_PREFIX = "base_model.model."
_INSIDE = ".base_layer."  # of the biases of layers that have a LoRA
_PAIRS = {"lora_A.weight": "lora_B.weight", "lora_embedding_A": "lora_embedding_B"}
_PLAIN = (True, False, None, "gaussian", "orthogonal", "eva")  # other ways to begin change the base's weights
_PATTERN_SECONDS = 2.0
_INSTEAD = "merge it with peft's merge_and_unload, save that with save_pretrained, and load the folder"


class AdapterConfig(BaseModel):
    """The keys of adapter_config.json that say what a LoRA adds: scale * B A, scale = alpha / rank.

    alpha_pattern: other alphas, by regular expression of the module's name.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    peft_type: str
    base_model_name_or_path: str
    revision: str | None = None
    lora_alpha: float = 8.0
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str | None = True
    layer_replication: list[Any] | None = None
    alora_invocation_tokens: list[int] | None = None
    alpha_pattern: dict[str, float] = Field(default_factory=dict[str, float])

    @field_validator("alpha_pattern")
    @classmethod
    def _patterns(cls, patterns: dict[str, float]) -> dict[str, float]:
        for pattern in patterns:
            try:
                regex.compile(f"({pattern})")
            except (regex.error, RecursionError) as error:
                raise ValueError(f"{pattern!r} is no pattern: {error}") from error
        return patterns

    def scale(self, module: str, rank: int) -> float:
        """The factor of what a module gains. Errors: XtalkError for a pattern that takes too long."""
        alpha = self.lora_alpha
        for pattern, other in self.alpha_pattern.items():
            try:
                if regex.match(rf"(.*\.)?({pattern})$", module, timeout=_PATTERN_SECONDS):
                    alpha = other
                    break
            except TimeoutError as error:
                raise XtalkError(
                    f"the pattern {pattern!r} of alpha_pattern takes too long on {module}; write it without "
                    "repetitions inside repetitions"
                ) from error
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read_config(folder: Path) -> AdapterConfig:
    """A folder's adapter_config.json. Errors: XtalkError for a broken file, and for adapters but LoRA."""
    path = folder / ADAPTER
    try:
        config = AdapterConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise XtalkError(f"{path} is no adapter's: {reason}; save the adapter again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise XtalkError(f"{path} cannot be read as JSON; save the adapter again") from error
    kind = None
    if config.peft_type != "LORA":
        kind = config.peft_type
    elif config.use_dora:
        kind = "LoRA with magnitudes (DoRA)"
    elif config.init_lora_weights not in _PLAIN:
        kind = f"LoRA that begins with {config.init_lora_weights!r}, which changes the base's own weights"
    elif config.layer_replication or config.alora_invocation_tokens:
        kind = "LoRA that repeats layers, or acts on some tokens only"
    if kind is not None:
        raise XtalkError(f"{folder} holds an adapter of the kind {kind}; xtalk merges plain LoRA; {_INSTEAD}")
    return config


@torch.no_grad()
def merge(model: PreTrainedModel, folder: Path, config: AdapterConfig) -> None:
    """Add a folder's LoRA to the weights of the model that it is of, in place.

    Errors: XtalkError for a file that cannot be read, and for tensors that do not fit, naming one; then the
    model is of no use.
    """
    path = folder / ADAPTER_WEIGHTS
    try:
        tensors = {
            name.removeprefix(_PREFIX).replace(_INSIDE, "."): tensor
            for name, tensor in load_file(path).items()
        }
    except (OSError, SafetensorError) as error:
        raise XtalkError(
            f"{path} cannot be read: {str(error).splitlines()[0]}; expected the adapter in safetensors"
        ) from error
    if bad := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise XtalkError(f"{path}: {bad} has NaN or infinity; get the adapter again")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    used: set[str] = set()
    for name, A in tensors.items():
        half = next((half for half in _PAIRS if name.endswith(f".{half}")), None)
        if half is None:
            continue
        module = name.removesuffix(f".{half}")
        B_name = f"{module}.{_PAIRS[half]}"
        weight = parameters.get(f"{module}.weight")
        if B_name not in tensors or weight is None:
            raise _misfit(path, name)
        _add(weight, A, tensors[B_name], model.get_submodule(module), config, module, path)
        used |= {name, B_name}
    _replace(model, {name: tensor for name, tensor in tensors.items() if name not in used}, parameters, path)


def _add(
    weight: Tensor, A: Tensor, B: Tensor, module: nn.Module, config: AdapterConfig, name: str, path: Path
) -> None:
    """Add scale * B A, or its transpose for layers that store theirs so: embeddings, and GPT-2's."""
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
        raise _misfit(path, name)
    gain = config.scale(name, A.shape[0]) * (B.float() @ A.float())
    gain = gain.T if isinstance(module, nn.Embedding | Conv1D) else gain
    if gain.shape != weight.shape:
        raise _misfit(path, name)
    weight.add_(gain.to(weight))


def _replace(
    model: PreTrainedModel, whole: Mapping[str, Tensor], parameters: Mapping[str, Tensor], path: Path
) -> None:
    """Put tensors that the adapter holds whole (modules_to_save, biases) in the place of the model's."""
    tied = len(parameters) > sum(1 for _ in model.named_parameters())
    for name, tensor in whole.items():
        place = parameters.get(name)
        if place is None or place.shape != tensor.shape:
            raise _misfit(path, name)
        if tied and sum(1 for other in parameters.values() if other is place) > 1:
            raise XtalkError(f"{path} holds {name}, which the model uses twice; {_INSTEAD}")
        place.copy_(tensor)


def _misfit(path: Path, name: str) -> XtalkError:
    return XtalkError(
        f"{path} holds {name}, for which the model has no place of that shape; expected plain LoRA of this "
        f"model; {_INSTEAD}"
    )
