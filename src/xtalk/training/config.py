"""How a crosscoder is trained."""

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from xtalk.interactions.penalties import PENALTIES
from xtalk.models.devices import fast_in_bfloat16
from xtalk.models.hookpoints import Site
from xtalk.training.spliced import SPLICES

_CALIBRATION_TOKENS = 16384


class TrainingConfig(BaseModel):
    """How a crosscoder is trained.

    lr: Adam's learning rate, warmed up over warmup_steps, constant, and decayed to 0 over the fraction decay
    of the steps, the last ones. clip: largest gradient norm; the loss is a sum over hookpoints and their
    numbers, so that most gradients are larger and are scaled to this norm. penalties: weight by name (zeros
    are dropped), warmed up linearly over the fraction penalty_warmup of the steps; those that run the model
    on come in after the fraction splice_from, for their gradients are costly, and too noisy for a high lr.
    sample_blocks: whether these count one block in each step, drawn with the same probability for each,
    rather than all: the same gradient in expectation, at a cost that does not grow with the square of the
    model's depth; None: where there are more than four. Those that rebuild several blocks at once count
    always. aux: weight of the auxiliary loss on latents that did
    not fire for dead_after_tokens; its gradient reaches them alone. recon_weights: by site ("resid_mid"),
    what its hookpoints' squared errors count in recon, where that is not 1. sparsity: weight of the L1 (relu)
    or L0 (jumprelu) loss. bfloat16: for the large products; None decides by what is fast on the device.
    checkpoint_every: steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(ge=1)
    batch_tokens: int = Field(ge=1)
    lr: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=200, ge=0)
    decay: float = Field(default=0.6, gt=0, le=1)
    clip: float = Field(default=10.0, gt=0)
    penalties: dict[str, float] = {}
    penalty_warmup: float = Field(default=0.1, ge=0, le=1)
    splice_from: float = Field(default=0.4, ge=0, lt=1)
    sample_blocks: bool | None = None
    aux: float = Field(default=1.0, ge=0)
    dead_after_tokens: int = Field(default=100_000, ge=1)
    recon_weights: dict[Site, Annotated[float, Field(ge=0)]] = {}
    sparsity: float = Field(default=0.0, ge=0)
    bfloat16: bool | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    checkpoint_every: int = Field(default=250, ge=1)

    @field_validator("penalties")
    @classmethod
    def _known_penalties(cls, penalties: dict[str, float]) -> dict[str, float]:
        for name, weight in penalties.items():
            check_penalty(name)
            if weight < 0:
                raise ValueError(f"penalty {name} has weight {weight}; expected 0 or more")
        return {name: weight for name, weight in sorted(penalties.items()) if weight}

    @property
    def tokens_needed(self) -> int:
        """Tokens that training takes from its stream: those of its steps, and those of calibration."""
        return self.steps * self.batch_tokens + calibration_tokens(self.batch_tokens)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, the first being 0."""
        warmed = (step + 1) / self.warmup_steps if step < self.warmup_steps else 1.0
        return self.lr * min(1.0, warmed) * min(1.0, (self.steps - step) / (self.decay * self.steps))

    def penalty_factor(self, step: int) -> float:
        """What the penalties' weights are multiplied with at a step, the first being 0."""
        warmup = self.penalty_warmup * self.steps
        return min(1.0, (step + 1) / warmup) if warmup else 1.0

    def splices(self, step: int) -> bool:
        """Whether penalties that run the model on count at a step, the first being 0."""
        return step >= self.splice_from * self.steps and any(name in SPLICES for name in self.penalties)

    def uses_bfloat16(self, device: torch.device) -> bool:
        """Whether training on a device runs its large products in bfloat16."""
        if self.bfloat16 is not None:
            return self.bfloat16
        return fast_in_bfloat16(device)


def check_penalty(name: str) -> None:
    """Errors: ValueError for a penalty that does not exist, with those that do."""
    known = (*PENALTIES, *SPLICES)
    if name not in known:
        raise ValueError(f"unknown penalty {name!r}; expected one of {', '.join(known)}")


def calibration_tokens(batch_tokens: int) -> int:
    """How many tokens calibrate a threshold: at least 16,384, in whole batches."""
    return -(-_CALIBRATION_TOKENS // batch_tokens) * batch_tokens
