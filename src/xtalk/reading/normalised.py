"""Dictionaries of what a norm makes before its own weights: `ln2.hook_normalized` of TransformerLens."""

import re

import torch

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel

_NORMALISED = re.compile(r"blocks\.(\d+)\.(ln1|ln2)\.hook_normalized")


@torch.no_grad()
def behind_norms(crosscoder: Crosscoder, model: LanguageModel) -> Crosscoder:
    """The same dictionary of what the norms put out, ln1 and ln2, where it reads what they have before that.

    The codes are the same: with n = z * weight + bias, the encoder reads (n - bias) / weight, and directions
    and b_dec are those of z times the weight. One that reads no such place is returned as it is. Errors:
    XtalkError for a block that the model lacks, one without that norm, and a weight of 0, behind which the
    dictionary's input cannot be read.
    """
    config, found = crosscoder.config, list(map(_NORMALISED.fullmatch, crosscoder.config.hook_names))
    if not any(found):
        return crosscoder
    names = [f"blocks.{m[1]}.{m[2]}" if m else name for m, name in zip(found, config.hook_names, strict=True)]
    made = Crosscoder(config.model_copy(update={"hook_names": tuple(names)}), crosscoder.provenance)
    made = made.to(crosscoder.W_enc.device, crosscoder.W_enc.dtype).requires_grad_(False)
    made.load_state_dict(crosscoder.state_dict())
    for p, name in enumerate(names):
        if found[p] is not None:
            _put_behind(made, p, model, model.hookpoint(name))
    return made


def _put_behind(crosscoder: Crosscoder, p: int, model: LanguageModel, point: Hookpoint) -> None:
    norm = model.norm_weights(point)[0].to(crosscoder.W_enc.device, crosscoder.W_enc.dtype)
    if not bool(norm.weight.all()):
        raise XtalkError(
            f"the norm in front of {point} has weights of 0, behind which a dictionary of hook_normalized "
            "cannot be read; give one of the residual stream"
        )
    W_enc, shift_D = crosscoder.W_enc[p] / norm.weight[:, None], norm.bias / norm.weight
    crosscoder.b_enc.sub_(shift_D @ crosscoder.W_enc[p])
    crosscoder.W_enc[p] = W_enc
    if crosscoder.W_skip is not None:
        crosscoder.b_dec.sub_(torch.einsum("d,dqe->qe", shift_D, crosscoder.W_skip[p]))
        crosscoder.W_skip[p] /= norm.weight[:, None, None]
    if crosscoder.config.hook_names_out is None:
        crosscoder.W_dec[:, p] *= norm.weight
        crosscoder.b_dec[p] = crosscoder.b_dec[p] * norm.weight + norm.bias
