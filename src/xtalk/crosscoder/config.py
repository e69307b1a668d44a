"""What a crosscoder is: its sizes, hookpoints and nonlinearity, in the ecosystem's own keys."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.errors import XtalkError


def _known(name: str) -> str:
    try:
        return nonlinearity(name).name
    except XtalkError as error:
        raise ValueError(str(error)) from error


Architecture = Annotated[str, AfterValidator(_known)]
"""The name of a nonlinearity; pydantic refuses one that is not known."""


class CrosscoderConfig(BaseModel):
    """Sizes and nonlinearity of a crosscoder over P hookpoints (`hook_names`) of width D (`d_in`).

    d_sae: number of latents L. k: active latents per token (topk), on average (batchtopk), or aimed at by the
    sparsity loss (jumprelu); relu's L1 loss aims at no number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_in: int = Field(ge=1)
    d_sae: int = Field(ge=1)
    k: int = Field(ge=1)
    hook_names: tuple[str, ...] = Field(min_length=1)
    architecture: Architecture = "batchtopk"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.k > self.d_sae:
            raise ValueError(f"k is {self.k}, more than d_sae {self.d_sae}; choose k at most d_sae")
        if len(set(self.hook_names)) != len(self.hook_names):
            raise ValueError(f"hook_names repeats a hookpoint: {', '.join(self.hook_names)}")
        return self

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of the crosscoder's tensors, by name."""
        P, D, L = len(self.hook_names), self.d_in, self.d_sae
        return {"W_enc": (P, D, L), "W_dec": (L, P, D), "b_enc": (L,), "b_dec": (P, D), "threshold": (L,)}
