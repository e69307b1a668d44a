"""Where a crosscoder comes from, as far as that is known."""

from pydantic import BaseModel, ConfigDict, Field


class Provenance(BaseModel):
    """Where a crosscoder comes from; None for what is unknown.

    model_name, model_weights_hash: the language model, its weights by sha256 (several models: theirs, joined
    as their activations were). text_hash: the token sequences it was trained on. scaling_factors: by
    hookpoint; already folded into the weights, kept for the record. penalties: weight by name, none of them
    zero. source: of one that was read from the Hugging Face hub, OWNER/NAME[:FOLDER]@COMMIT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model_name: str | None = None
    model_weights_hash: str | None = None
    text_hash: str | None = None
    scaling_factors: tuple[float, ...] | None = None
    training_tokens: int | None = Field(default=None, ge=0)
    train_batch_size_tokens: int | None = Field(default=None, ge=1)
    penalties: dict[str, float] | None = None
    seed: int | None = None
    source: str | None = None

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names of what is unknown; `source` is None for what is not of the hub."""
        names = (name for name in type(self).model_fields if name != "source")
        return tuple(name for name in names if getattr(self, name) is None)

    @property
    def steps(self) -> int | None:
        """The steps of the training."""
        if self.training_tokens is None or self.train_batch_size_tokens is None:
            return None
        return self.training_tokens // self.train_batch_size_tokens
