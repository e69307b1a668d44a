"""Architectures that are no causal transformers with one MLP a block: refused by what config.json says."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from xtalk.errors import XtalkError

_STATE_SPACE = re.compile(r"mamba|rwkv|xlstm|ssm_|state_size|linear_attention|linear_attn|rglru|recurrent")

_EXPERTS = re.compile(r"(^|_)(num|n)_(\w+_)?experts$")


def refusal(kind: str | None, reason: str) -> XtalkError:
    """The error for a model that is not built of blocks with attention and one MLP."""
    return XtalkError(
        f"the architecture {kind!r} is not supported: {reason}; expected a causal transformer whose blocks "
        "each have attention and one MLP, as most language models are; choose another model"
    )


def check_kind(config: Mapping[str, Any], *, code: bool = False) -> None:
    """Refuse by name what a config.json shows to be no causal transformer with one MLP a block.

    code: whether the model brings its own, which then decides. Errors: XtalkError for types that transformers
    does not have, encoders, state-space models and mixtures of experts.
    """
    kind = config.get("model_type")
    if kind is None:
        raise refusal(kind, "config.json has no model_type")
    if kind not in CONFIG_MAPPING:
        if code and config.get("auto_map"):
            return
        own = " but its own, which trust_remote_code runs" if config.get("auto_map") else ""
        raise refusal(kind, f"transformers has no code for it{own}")
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise refusal(kind, "it is an encoder, whose tokens see those after them")
    whole = AutoConfig.for_model(**config)  # with what config.json leaves to the architecture
    keys = {str(key): value for part in _parts(whole.to_dict()) for key, value in part.items()}
    words = [kind, *keys, *(keys.get("layer_types") or ())]
    if any(_STATE_SPACE.search(str(word)) for word in words):
        raise refusal(kind, "it is a state-space model, with blocks that do not attend")
    experts = [key for key in keys if _EXPERTS.search(key) and (keys[key] or 0) > 1]
    if experts:
        raise refusal(kind, f"it is a mixture of experts ({experts[0]} {keys[experts[0]]})")
    if whole.is_encoder_decoder:
        raise refusal(kind, "it is an encoder with a decoder, which reads more than the tokens before it")
    if whole.get_text_config().model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise refusal(kind, "it is no causal language model")


def _parts(config: Mapping[Any, Any]) -> Iterator[Mapping[Any, Any]]:
    """A configuration and those inside it."""
    yield config
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _parts(value)
