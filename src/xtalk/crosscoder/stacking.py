"""Several dictionaries, each of hookpoints of its own, as one."""

from collections.abc import Sequence
from itertools import chain

import torch

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError


def stack(crosscoders: Sequence[Crosscoder]) -> Crosscoder:
    """Dictionaries of different hookpoints as one crosscoder, such as an SAE of every layer.

    Its hookpoints and latents are theirs, in order: each latent reads and writes where its dictionary does,
    and is active where it is there. What is measured at each MLP is the same, but for the control that keeps
    a random active latent, which draws among those of all; and all MLPs can be rebuilt at once. The weights
    are stored with their zeros: P D L numbers for the encoder and as many for the decoder, L of all together.
    Errors: XtalkError for fewer than two, for different widths, for a hookpoint of two of them, for
    transcoders and gates, and for TopK, by which latents of different dictionaries would compete.

    >>> own = {"architecture": "relu", "b_enc": torch.zeros(3), "b_dec": torch.zeros(2)}
    >>> one, two = (
    ...     xtalk.Crosscoder.from_tensors(
    ...         W_enc=torch.ones(2, 3), W_dec=torch.ones(3, 2), hook_names=f"blocks.{block}.ln2", **own
    ...     )
    ...     for block in (0, 1)
    ... )
    >>> xtalk.stack([one, two]).encode(torch.tensor([[1.0, 0.0], [2.0, 0.0]])).tolist()
    [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    """
    _check(crosscoders)
    names = tuple(chain.from_iterable(one.config.hook_names for one in crosscoders))
    architectures = {one.config.architecture for one in crosscoders}
    first = crosscoders[0].W_enc
    made = Crosscoder(
        CrosscoderConfig(
            d_in=crosscoders[0].config.d_in,
            d_sae=sum(one.config.d_sae for one in crosscoders),
            k=sum(one.config.k for one in crosscoders),
            hook_names=names,
            architecture="jumprelu" if len(architectures) > 1 else architectures.pop(),
        )
    ).to(first.device, first.dtype)
    p, latent = 0, 0
    with torch.no_grad():
        for one in crosscoders:
            P, L = len(one.config.hook_names), one.config.d_sae
            here, latents = slice(p, p + P), slice(latent, latent + L)
            made.W_enc[here, :, latents] = one.W_enc
            made.W_dec[latents, here] = one.W_dec
            made.b_enc[latents], made.b_dec[here] = one.b_enc, one.b_dec
            made.threshold[latents] = one.threshold if one.nonlinearity.infers_by_threshold else 0.0
            p, latent = p + P, latent + L
    return made.requires_grad_(False)


def _check(crosscoders: Sequence[Crosscoder]) -> None:
    if len(crosscoders) < 2:
        raise XtalkError(f"{len(crosscoders)} dictionaries to stack; expected two or more")
    widths = {one.config.d_in for one in crosscoders}
    if len(widths) > 1:
        raise XtalkError(
            f"dictionaries of d_in {', '.join(map(str, sorted(widths)))}; expected one model's, of one width"
        )
    names = [name for one in crosscoders for name in one.config.hook_names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise XtalkError(f"two of the dictionaries are at {', '.join(twice)}; stack one of each hookpoint")
    for one in crosscoders:
        where = ", ".join(one.config.hook_names)
        if one.config.hook_names_out is not None or one.W_skip is not None or one.gate is not None:
            raise XtalkError(f"the dictionary at {where} is a transcoder or gated; measure it alone")
        if one.nonlinearity.infers_by_k:
            raise XtalkError(
                f"the dictionary at {where} is {one.config.architecture}: the largest latents of a token are "
                "active, and those of several dictionaries would compete; measure it alone"
            )
