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


LATENT_AXIS = {"W_enc": 2, "W_dec": 0, "b_enc": 0, "threshold": 0}
"""Which axis of a crosscoder's tensors counts latents; b_dec has none."""

Architecture = Annotated[str, AfterValidator(_known)]
"""The name of a nonlinearity; pydantic refuses one that is not known."""


class CrosscoderConfig(BaseModel):
    """Sizes and nonlinearity of a crosscoder over P hookpoints (`hook_names`) of width D (`d_in`).

    d_sae: number of latents L. k: active latents per token (topk), on average (batchtopk), or aimed at by the
    sparsity loss (jumprelu); relu's L1 loss aims at no number.
    hook_names_out: the Q hookpoints that a transcoder writes; None where they are those it reads. skip:
    whether a linear map of what is read is added to what is written. gated: whether hookpoints have gates of
    their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_in: int = Field(ge=1)
    d_sae: int = Field(ge=1)
    k: int = Field(ge=1)
    hook_names: tuple[str, ...] = Field(min_length=1)
    architecture: Architecture = "batchtopk"
    hook_names_out: tuple[str, ...] | None = Field(default=None, min_length=1)
    skip: bool = False
    gated: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.k > self.d_sae:
            raise ValueError(f"k is {self.k}, more than d_sae {self.d_sae}; choose k at most d_sae")
        for names in (self.hook_names, self.written):
            if len(set(names)) != len(names):
                raise ValueError(f"hook_names repeats a hookpoint: {', '.join(names)}")
        return self

    @property
    def written(self) -> tuple[str, ...]:
        """The Q hookpoints that are reconstructed."""
        return self.hook_names_out or self.hook_names

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of the crosscoder's tensors, by name."""
        P, Q, D, L = len(self.hook_names), len(self.written), self.d_in, self.d_sae
        shapes = {"W_enc": (P, D, L), "W_dec": (L, Q, D), "b_enc": (L,), "b_dec": (Q, D), "threshold": (L,)}
        return (
            shapes
            | ({"W_skip": (P, D, Q, D)} if self.skip else {})
            | ({"gate": (Q, L)} if self.gated else {})
        )


def unmeasured(config: CrosscoderConfig) -> str | None:
    """Why interactions and fidelity have no meaning for a crosscoder; None where they have one."""
    read, written = ", ".join(config.hook_names), ", ".join(config.written)
    if config.hook_names_out is not None:
        return (
            f"a transcoder from {read} to {written} does not decode what it reads, which interactions need; "
            "xtalk.transcoder_fidelity measures its output"
        )
    if config.gated:
        return f"the hookpoints {read} have gates of their own, which interactions do not take into account"
    if config.skip:
        return (
            f"what is written at {written} has a linear part beside the latents, which interactions leave out"
        )
    return None
