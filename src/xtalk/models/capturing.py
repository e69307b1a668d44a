"""What has activations at hookpoints: a model, several at once, the difference of two."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint


@runtime_checkable
class CapturingModel(Protocol):
    """What harvesting and reading need of a `LanguageModel`."""

    @property
    def weights_hash(self) -> str:
        """The sha256 of the weights."""
        ...

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        ...

    def capture(
        self, tokens_BS: Int[Tensor, "B S"], hookpoints: Sequence[Hookpoint]
    ) -> Float[Tensor, "B S P D"]:
        """Activations at the hookpoints, in their order."""
        ...


class JoinedModels:
    """Several models, by name, that read the same tokens; their hookpoints carry that name.

    Each model reads the tokens in its own way; they only share the text, and so the tokenizer. Activations
    have the dtype and device of the first hookpoint's model. Errors: XtalkError for models of different width
    and for no model.
    """

    def __init__(self, models: Mapping[str, CapturingModel]) -> None:
        widths = {name: model.d_model for name, model in models.items()}
        if len(set(widths.values())) != 1:
            seen = ", ".join(f"{name} {width}" for name, width in widths.items()) or "no model"
            raise XtalkError(f"models to join: {seen}; expected one or more of the same d_model")
        hashes = "\n".join(f"{name} {model.weights_hash}" for name, model in models.items())
        self.models = dict(models)
        self.weights_hash = hashlib.sha256(hashes.encode()).hexdigest()
        self.d_model = next(iter(widths.values()))

    @property
    def device(self) -> torch.device:
        """Where the first model runs."""
        return next(iter(self.models.values())).device

    def hookpoints(self, points: Sequence[Hookpoint]) -> tuple[Hookpoint, ...]:
        """These hookpoints of the first model, then those of the second, and so on."""
        return tuple(replace(point, model=name) for name in self.models for point in points)

    def capture(
        self, tokens_BS: Int[Tensor, "B S"], hookpoints: Sequence[Hookpoint]
    ) -> Float[Tensor, "B S P D"]:
        """Activations at hookpoints of the models, in their order."""
        found: dict[Hookpoint, Tensor] = {}
        for name, model in self.models.items():
            own = [point for point in hookpoints if point.model == name]
            if own:
                captured_BSPD = model.capture(tokens_BS, [replace(point, model=None) for point in own])
                found |= zip(own, captured_BSPD.unbind(2), strict=True)
        if strangers := [point for point in hookpoints if point not in found]:
            raise XtalkError(f"hookpoint {strangers[0]} is of none of the models {', '.join(self.models)}")
        first = found[hookpoints[0]]
        return torch.stack([found[point].to(first) for point in hookpoints], dim=2)
