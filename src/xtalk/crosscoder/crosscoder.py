"""The crosscoder: one sparse code per token for several hookpoints at once."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from xtalk.codes import Codes, codes_where
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.nonlinearities import above_threshold, batch_topk, jumprelu, topk
from xtalk.errors import XtalkError


class Crosscoder(nn.Module):
    """x^ = b_dec + sum_i f_i d_i at every hookpoint, f = nonlinearity(x W_enc + b_enc).

    W_enc (P, D, L), W_dec (L, P, D), b_enc (L), b_dec (P, D), threshold (L): a latent is active at inference
    where its pre-activation is above threshold and 0 (TopK ignores it). Activations (B, P, D) are in the
    space the weights were made for: scaled while training, the model's own once `Scaling` is folded in.
    """

    def __init__(self, config: CrosscoderConfig) -> None:
        super().__init__()
        self.config = config
        P, D, L = len(config.hook_names), config.d_in, config.d_sae
        self.W_enc = nn.Parameter(torch.zeros(P, D, L))
        self.W_dec = nn.Parameter(torch.zeros(L, P, D))
        self.b_enc = nn.Parameter(torch.zeros(L))
        self.b_dec = nn.Parameter(torch.zeros(P, D))
        self.threshold = nn.Parameter(torch.zeros(L), requires_grad=config.architecture == "jumprelu")

    @torch.no_grad()
    def initialise(self, mean_PD: Float[Tensor, "P D"], direction_LPD: Float[Tensor, "L P D"]) -> None:
        """Decoder directions as given, but of unit norm; the encoder their transpose; centred on the mean."""
        self.W_dec.copy_(direction_LPD / direction_LPD.flatten(1).norm(dim=1).clamp(min=1e-9)[:, None, None])
        self.W_enc.copy_(self.W_dec.permute(1, 2, 0))
        self.b_dec.copy_(mean_PD)
        self.b_enc.copy_(-torch.einsum("pd,pdl->l", self.b_dec, self.W_enc))
        if self.config.architecture == "jumprelu":
            self.threshold.fill_(0.1)

    def pre_activations(self, x_BPD: Float[Tensor, "B P D"]) -> Float[Tensor, "B L"]:
        """Sum over hookpoints of x W_enc, plus b_enc; float32."""
        return (x_BPD.flatten(1) @ self.W_enc.flatten(0, 1)).float() + self.b_enc

    def encode_sparse(self, x_BPD: Float[Tensor, "B P D"]) -> Codes:
        """The codes of each token by itself: no token's code depends on the rest of the batch."""
        pre_BL = self.pre_activations(x_BPD)
        if self.config.architecture == "topk":
            return topk(pre_BL, self.config.k)
        return above_threshold(pre_BL, self.threshold)

    def encode_for_training(self, pre_BL: Float[Tensor, "B L"]) -> tuple[Codes, Float[Tensor, ""]]:
        """The codes that training sees, and the mean L0, which is differentiable for JumpReLU only."""
        architecture, k = self.config.architecture, self.config.k
        if architecture == "jumprelu":
            codes, active_B = jumprelu(pre_BL, self.threshold)
            return codes, active_B.mean()
        if architecture == "topk":
            codes = topk(pre_BL, k)
        elif architecture == "batchtopk":
            codes = batch_topk(pre_BL, k)
        else:
            codes = codes_where(pre_BL.detach() > 0, pre_BL)
        return codes, (codes.values.detach() > 0).sum(1).float().mean()

    def decode(self, codes: Codes) -> Float[Tensor, "B P D"]:
        """b_dec + sum_i f_i d_i."""
        flat_BX = codes.dense() @ self.W_dec.flatten(1)
        return flat_BX.float().view(-1, *self.b_dec.shape) + self.b_dec

    def hook_index(self, hook_name: str) -> int:
        """Position of a hookpoint in P. Errors: XtalkError names the crosscoder's hookpoints."""
        names = self.config.hook_names
        if hook_name not in names:
            raise XtalkError(f"the crosscoder has no hookpoint {hook_name}; it has {', '.join(names)}")
        return names.index(hook_name)


@torch.no_grad()
def fold_scaling(crosscoder: Crosscoder, factor_P: Float[Tensor, "P"]) -> Crosscoder:
    """The crosscoder for activations x that does what the given one does for x * factor.

    The codes are the same, and decode to the units of x.
    """
    folded = Crosscoder(crosscoder.config).to(crosscoder.W_enc.device)
    folded.W_enc.copy_(crosscoder.W_enc * factor_P[:, None, None])
    folded.W_dec.copy_(crosscoder.W_dec / factor_P[:, None])
    folded.b_enc.copy_(crosscoder.b_enc)
    folded.b_dec.copy_(crosscoder.b_dec / factor_P[:, None])
    folded.threshold.copy_(crosscoder.threshold)
    return folded
