"""Model folders that are changed, and how loading refuses them."""

import json

import pytest
from safetensors.torch import load_file, save_file

from xtalk.errors import XtalkError
from xtalk.models.language_model import load_model


def refusal(source):
    with pytest.raises(XtalkError) as caught:
        load_model(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(folder, change):
    file = folder / "model.safetensors"
    tensors = change(load_file(file))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
