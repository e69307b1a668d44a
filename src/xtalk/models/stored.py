"""What a model's files hold, compared with the model that transformers made of them: nothing may be lost."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from xtalk.errors import XtalkError
from xtalk.models.source import ADAPTER
from xtalk.models.weight_files import opened

_FLOATS = ("F64", "F32", "F16", "BF16")
_MASK = re.compile(r"(^|\.)(attn|attention)\.bias$")  # old files keep their causal masks
_UNUSED = re.compile(r"(^|\.)(masked_bias|position_ids)$")  # old constants, whatever they hold
TEXT_NAMES = {
    r"^(model\.)?language_model\.(model\.)?(?!lm_head)": "model.",
    r"^language_model\.(?=lm_head)": "",
}  # what multimodal models call the tensors of the language model inside
_TEXT = re.compile(r"^(model\.(layers|norm|embed_tokens)|lm_head)\.|language_model")
_FREQUENCIES = re.compile(r"(^|\.)rotary_emb\.inv_freq$")


def check_configuration(location: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration of quantised weights, naming the method."""
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else "unknown"
        raise XtalkError(
            f"the weights of {location!r} are quantised ({method}); expected float32, float16 or bfloat16; "
            "dequantise them with transformers and save the model again, or take the original model"
        )


def refuse_adapter(location: str) -> XtalkError:
    """The error for a model whose folder holds an adapter too."""
    return XtalkError(
        f"{location!r} holds a model and an adapter ({ADAPTER}); expected one of them; keep the adapter's "
        "files in a folder of their own, and give that, or remove them"
    )


def check_names(location: str, report: Mapping[str, Any], *, inside: bool) -> None:
    """Refuse tensors that are missing, of another shape, or without a place in the model, naming one.

    report: transformers' own, of what it found in the files; inside: whether they hold the other parts of a
    multimodal model too.
    """
    one_model = "expected weights and configuration of one model; get the files again"
    if missing := sorted(report["missing_keys"]):  # transformers would make them up
        raise XtalkError(
            f"the weights of {location!r} lack {len(missing)} tensors that its config.json asks for, such as "
            f"{missing[0]!r}; {one_model}"
        )
    if mismatched := sorted(report["mismatched_keys"]):
        raise XtalkError(
            f"{len(mismatched)} tensors of {location!r} differ in shape from its config.json, such as "
            f"{mismatched[0][0]!r}; {one_model}"
        )
    constants = (_MASK, _UNUSED, _FREQUENCIES)
    if strangers := sorted(
        name
        for name in report["unexpected_keys"]
        if not any(kind.search(name) for kind in constants) and (not inside or _TEXT.search(name))
    ):
        raise XtalkError(
            f"the weights of {location!r} hold {len(strangers)} tensors without a place in its config.json, "
            f"such as {strangers[0]!r}; expected weights and configuration of one model; correct it, "
            "or take a model whose weights are all used"
        )


def check_values(location: str, files: Sequence[Path], model: PreTrainedModel) -> None:
    """Refuse files whose tensors the model does not use as they are, naming one.

    A tensor with a place of its name in the model is a float one, and its first and last rows stand there;
    constants of old files are what the model computes with. Reads those rows and constants only.
    """
    places = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    prefix = f"{model.base_model_prefix}."
    for file in files:
        with opened(file) as stored:
            for name in stored.keys():  # noqa: SIM118
                own = name
                for pattern, replacement in TEXT_NAMES.items():
                    own = re.sub(pattern, replacement, own)
                place = next((n for n in (own, prefix + own, own.removeprefix(prefix)) if n in places), None)
                if _MASK.search(name):
                    _check_mask(location, name, stored.get_tensor(name), places.get(place or ""))
                elif place is not None:
                    _check_tensor(location, name, stored.get_slice(name), places[place])
                elif _FREQUENCIES.search(name):
                    _check_frequencies(location, name, stored.get_tensor(name), model)


@torch.no_grad()
def check_finite(location: str, model: PreTrainedModel) -> None:
    """Refuse weights with NaN or infinity, naming the tensor: some of them no activation would show."""
    for name, parameter in model.named_parameters():
        if wrong := int((~parameter.isfinite()).sum()):
            raise XtalkError(
                f"the weights of {location!r} have NaN or infinity in {name!r}, at {wrong} of its "
                f"{parameter.numel()} numbers; expected finite ones; get the files again, or take another "
                "model"
            )


@torch.no_grad()
def _check_tensor(location: str, name: str, stored: Any, used: Tensor) -> None:
    if stored.get_dtype() not in _FLOATS:
        raise XtalkError(
            f"the weights of {location!r} are quantised: {name!r} is stored as {stored.get_dtype()}; "
            f"expected {', '.join(_FLOATS)}; dequantise them and save the model again, or take "
            "the original model"
        )
    if not used.ndim:
        return
    for rows in (slice(0, 1), slice(len(used) - 1, len(used))):
        own, held = used[rows].to("cpu", torch.float32), stored[rows].to(torch.float32)
        if not torch.allclose(own, held, rtol=0, atol=0, equal_nan=True):
            raise XtalkError(
                f"the model made of {location!r} does not use {name!r} as its file holds it; expected every "
                "tensor to be used (a tied one is stored once, or twice alike); save the model again with "
                "save_pretrained, or correct tie_word_embeddings in config.json"
            )


def _check_mask(location: str, name: str, stored: Tensor, used: Tensor | None) -> None:
    stored = stored.bool()
    used = torch.ones_like(stored).tril() if used is None else used
    size = min(stored.shape[-1], used.shape[-1])
    if not torch.equal(stored[..., :size, :size], used[..., :size, :size].bool().cpu()):
        raise XtalkError(
            f"the attention mask {name!r} of {location!r} is not the one of its config.json; expected "
            "weights and configuration of one model; correct config.json (attention_types, window_size)"
        )


def _check_frequencies(location: str, name: str, stored: Tensor, model: PreTrainedModel) -> None:
    if getattr(model.config, "rope_parameters", {}).get("rope_type", "default") != "default":
        return  # scaled ones are not kept in files
    used = [buffer.cpu() for path, buffer in model.named_buffers() if path.endswith("inv_freq")]
    if not any(
        buffer.shape == stored.shape and torch.allclose(stored.float(), buffer.float(), rtol=1e-2, atol=1e-6)
        for buffer in used
    ):
        raise XtalkError(
            f"the rotary frequencies {name!r} of {location!r} are not those of its config.json; expected "
            "weights and configuration of one model; correct rope_theta or head_dim in config.json"
        )
