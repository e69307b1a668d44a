"""Checkpoints from which training goes on bit for bit: one safetensors file, its header JSON.

The header has the sha256 of all that is in the file, so that a single wrong bit is noticed.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xtalk import ranks
from xtalk.crosscoder.config import LATENT_AXIS
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.files import replacing
from xtalk.parsing import parsed_json
from xtalk.training.adam import Adam
from xtalk.training.shares import own_part, whole

FILE = "checkpoint.safetensors"
SCHEMA = "xtalk.checkpoint/3"


@dataclass
class TrainingState:
    """All that changes while a crosscoder trains; the loop draws no random numbers.

    step: steps done. last_fired_L: training tokens seen when each latent last fired. rates: tokens per second
    of every stretch of steps so far. The position in the stream of activations is the stream's own.
    """

    crosscoder: Crosscoder
    optimiser: Adam
    last_fired_L: Tensor
    step: int = 0
    rates: list[float] = field(default_factory=list[float])


def save_checkpoint(
    folder: Path, state: TrainingState, stream: dict[str, Any], identity: dict[str, Any]
) -> None:
    """Write the checkpoint of a folder in place of the one before, which stays until the new one is whole.

    stream: the stream's state; identity: what the training depends on, to be compared on loading; both JSON.
    Of several ranks the first writes what all have, so that another number of them can go on.
    """
    tensors = {name: whole(_axis(name), tensor).contiguous() for name, tensor in _tensors(state).items()}
    if ranks.rank() > 0:
        return
    header = {"schema": SCHEMA, "step": state.step, "rates": state.rates, "stream": stream}
    header |= {"identity": identity}
    sha256 = _digest(header, sorted(tensors.items()))
    with replacing(folder / FILE) as partial:
        save_file(tensors, partial, {"xtalk": json.dumps(header | {"sha256": sha256})})


def load_checkpoint(folder: Path, state: TrainingState, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Bring `state` to the folder's checkpoint and return the stream's state then; None if there is none.

    Errors: XtalkError for a broken checkpoint or one of another training.
    """
    path = folder / FILE
    if not path.exists():
        return None
    own = _tensors(state)
    try:
        with safe_open(path, framework="pt") as file:
            header = parsed_json(file.metadata()["xtalk"])
            _check_identity(path, header, identity)
            step, stream = int(header["step"]), dict(header["stream"])
            rates = [float(rate) for rate in header["rates"]]
            sha256 = header.pop("sha256")
            if sha256 != _digest(header, ((name, file.get_tensor(name)) for name in sorted(own))):
                raise ValueError("it is damaged: its sha256 is another")
            for name, tensor in own.items():  # read again, so that no two copies are in memory
                axis = _axis(name)
                saved = file.get_tensor(name) if axis is None else own_part(file.get_slice(name), axis)
                if saved.shape != tensor.shape or saved.dtype != tensor.dtype:
                    raise ValueError(f"{name} is {saved.dtype} {tuple(saved.shape)}")
                tensor.copy_(saved)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise XtalkError(
            f"the checkpoint {path} cannot be read ({reason}); remove it to train from the start"
        ) from error
    state.step, state.rates = step, rates
    return stream


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    """The tensors of a state by name, sharing memory with it."""
    tensors = {name: tensor.detach() for name, tensor in state.crosscoder.named_parameters()}
    for name, parameter in state.crosscoder.named_parameters():
        moments = state.optimiser.moments(parameter)
        tensors |= {f"{name}.{moment}": value for moment, value in moments.items()}
    return tensors | {"last_fired": state.last_fired_L}


def _axis(name: str) -> int | None:
    """Which axis of a tensor of a state counts latents."""
    weight, _, moment = name.partition(".")
    if moment == "step":
        return None
    return 0 if weight == "last_fired" else LATENT_AXIS.get(weight)


def _digest(header: dict[str, Any], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The sha256 of a header and of tensors with their names."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_identity(path: Path, header: dict[str, Any], identity: dict[str, Any]) -> None:
    if header["schema"] != SCHEMA:
        raise ValueError(f"schema {header['schema']}, not {SCHEMA}")
    saved = header["identity"]
    own = json.loads(json.dumps(identity))  # as the header has it: lists for tuples
    different = [key for key in own | saved if own.get(key) != saved.get(key)]
    if different:
        key = different[0]
        raise XtalkError(
            f"the checkpoint {path} is of another training: {key} was {saved.get(key)}, now {own.get(key)}; "
            "go on with its configuration, or remove it to train from the start"
        )
