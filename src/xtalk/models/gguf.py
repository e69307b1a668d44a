"""GGUF files, whose weights transformers turns into float32 as they are read."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from xtalk.models.fused import use_fused_kernels
from xtalk.models.refused import check_kind
from xtalk.models.stored import check_names
from xtalk.optional import extras_named


def load_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of a GGUF file; quantised weights are what they stand for, in float32.

    Errors: XtalkError where the extra `gguf` is not installed, for architectures that xtalk or transformers
    does not read from it, and for tensors that are missing.
    """
    with extras_named():
        for package in ("gguf", "accelerate"):  # transformers asks for both, in many lines
            import_module(package)
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    folder = str(file.parent)
    config = AutoConfig.from_pretrained(folder, **where)
    check_kind(config.to_dict())
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **where
    )
    model, report = loaded
    check_names(str(file), report, inside=False)
    return use_fused_kernels(model), AutoTokenizer.from_pretrained(folder, **where)
