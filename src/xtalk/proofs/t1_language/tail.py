"""The tail of a language model, its last MLP and all that follows, in float64 or float32 as it is asked."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xtalk.errors import XtalkError
from xtalk.models.language_model import LanguageModel
from xtalk.models.mlp import MlpWeights
from xtalk.models.norms import NormWeights

MILLION = 1_000_000
_SEQUENCES_AT_ONCE = 32
_TOKENS_AT_ONCE = 2048

Mlp = Callable[[Tensor], Tensor]
"""Any map from the MLP's input n to the MLP's output, `(B, D) -> (B, D)`."""


@dataclass(frozen=True, eq=False)
class LanguageTail:
    """`logits = norm_out(x + mlp(norm_in(x))) @ unembed` for x in front of the last MLP (resid_mid)."""

    norm_in: NormWeights
    mlp: MlpWeights
    norm_out: NormWeights
    unembed: Float[Tensor, "D V"]

    def logits(self, x_BD: Float[Tensor, "B D"], mlp_BD: Float[Tensor, "*B D"]) -> Float[Tensor, "B V"]:
        """The logits for whatever stands for the MLP's output."""
        return self.norm_out(x_BD + mlp_BD) @ self.unembed

    def to(self, dtype: torch.dtype) -> "LanguageTail":
        """The same tail in another dtype."""

        def cast(norm: NormWeights) -> NormWeights:
            return NormWeights(norm.weight.to(dtype), norm.bias.to(dtype), norm.eps, norm.centred)

        return LanguageTail(
            cast(self.norm_in), self.mlp.to(dtype=dtype), cast(self.norm_out), self.unembed.to(dtype)
        )

    @torch.no_grad()
    def losses(self, x_TD: Float[Tensor, "T D"], targets_T: Int[Tensor, "T"], mlp: Mlp) -> Float[Tensor, "T"]:
        """The cross-entropy at every token with `mlp` in the MLP's place, in nat, computed in float64."""
        tail, losses = self.to(torch.float64), []
        for x_BD, targets_B in zip(
            x_TD.double().split(_TOKENS_AT_ONCE), targets_T.split(_TOKENS_AT_ONCE), strict=True
        ):
            logits_BV = tail.logits(x_BD, mlp(tail.norm_in(x_BD)))
            losses.append(nn.functional.cross_entropy(logits_BV, targets_B, reduction="none"))
        return torch.cat(losses)


def tail_of(model: LanguageModel) -> LanguageTail:
    """The tail of a model whose last MLP adds to resid_mid, before a LayerNorm `ln_f` and the head."""
    norm = getattr(model.hf.base_model, "ln_f", None)
    head = model.hf.get_output_embeddings()
    mlp = model.mlp_weights(model.n_blocks - 1)
    norm_in, source = model.norm_weights(model.hookpoint(f"blocks.{model.n_blocks - 1}.ln2"))
    if (
        not isinstance(norm, nn.LayerNorm)
        or not isinstance(head, nn.Linear)
        or getattr(head, "bias", None) is not None
        or source.site != "resid_mid"
        or mlp.gated
        or not norm_in.centred
        or norm.eps != norm_in.eps
        or round(norm.eps * MILLION) / MILLION != norm.eps
    ):
        raise XtalkError(
            f"the last MLP of {model.name} is not followed by a LayerNorm and an unembedding without bias, "
            "or is gated, or its norms' epsilons are not one whole number of millionths; theorem T1 language "
            "takes GPT-Neo and GPT-2 models, such as 'embedded'"
        )
    weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
    return LanguageTail(
        norm_in, mlp, NormWeights(weight, bias, norm.eps, centred=True), head.weight.detach().float().T
    )


def resid_mid(
    model: LanguageModel, tokens_nS: Int[Tensor, "n S"]
) -> tuple[Float[Tensor, "T D"], Int[Tensor, "T"]]:
    """What the tail reads at each token that has a next one, and the next ones."""
    hookpoint = model.hookpoint(f"blocks.{model.n_blocks - 1}.resid_mid")
    parts = [
        model.capture(batch, [hookpoint])[:, :-1, 0].flatten(0, 1)
        for batch in tokens_nS.split(_SEQUENCES_AT_ONCE)
    ]
    return torch.cat(parts), tokens_nS[:, 1:].flatten()
