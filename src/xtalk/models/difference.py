"""The difference of two models' activations, in the place of one model's: what a Diff-SAE learns from."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel


class ModelDifference:
    """Activations of a model less those of its base, at the same tokens; can be harvested as a model can.

    Errors: XtalkError for models of other sizes.
    """

    def __init__(self, model: LanguageModel, base: LanguageModel) -> None:
        check_same_shape(model, base)
        self.model, self.base = model, base
        both = f"{model.weights_hash} less {base.weights_hash}"
        self.weights_hash = hashlib.sha256(both.encode()).hexdigest()
        self.d_model = model.d_model
        self.device: torch.device = model.device

    def capture(
        self, tokens_BS: Int[Tensor, "B S"], hookpoints: Sequence[Hookpoint]
    ) -> Float[Tensor, "B S P D"]:
        """What the model's activations have beyond the base's, in float32."""
        own, others = (m.capture(tokens_BS, hookpoints).float() for m in (self.model, self.base))
        return own - others.to(own.device)


def check_same_shape(model: LanguageModel, base: LanguageModel) -> None:
    """Errors: XtalkError unless both models have the same family, sizes and tokenizer."""
    sizes = [
        f"{m.name} ({m.family}, {m.n_blocks} blocks, d_model {m.d_model}, d_mlp {m.d_mlp}, "
        f"vocabulary {m.vocabulary})"
        for m in (model, base)
    ]
    shapes = [(m.family, m.n_blocks, m.d_model, m.d_mlp, m.vocabulary) for m in (model, base)]
    if shapes[0] != shapes[1]:
        raise XtalkError(
            f"{sizes[0]} and {sizes[1]} differ in shape; expected a model and what it was fine-tuned from; "
            "give another base"
        )
    vocabularies = [None if m.tokenizer is None else m.tokenizer.get_vocab() for m in (model, base)]
    if vocabularies[0] != vocabularies[1]:
        raise XtalkError(
            f"{model.name} and {base.name} have different tokenizers; expected one and the same; "
            "give the base that the model was fine-tuned from"
        )
