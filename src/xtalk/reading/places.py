"""Places in front of an MLP at which a dictionary has contributions to its neurons.

At `ln2`, the MLP's input, a latent's direction is W_dec's. In the residual stream a norm lies between. With
its scale held at what it is at the token, it is linear: for y = b_dec + sum_i f_i d_i + e and the norm
n = P y / s(y) * weight + bias,

    p_ki = (f_i / s) <w_k, weight * P d_i>,    base_k = b_k + <w_k, bias + weight * P b_dec / s>,

which are the contributions of the directions weight * P d_i at the MLP's input, of codes f_i / s, with a base
of the token's own. What the dictionary leaves out, e, is left out of the base or kept in it. From `resid_pre`
what attention adds is part of e.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from xtalk.codes import Codes
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.models.mlp import MlpWeights
from xtalk.models.norms import NormWeights
from xtalk.reading.one_by_one import OneByOne
from xtalk.reading.ranked import RankedContributions

ErrorNode = Literal["drop", "keep"]
"""Whether what a dictionary leaves out of what it reads is left out of the base too, or kept in it."""


@dataclass(frozen=True, eq=False)
class Place:
    """A hookpoint of a dictionary in front of the MLP of a block.

    stream: where the MLP, or the norm in front of it, reads; norm: that norm, None where the dictionary reads
    behind it, or there is none. mlps: the MLPs' weights by block.
    """

    point: Hookpoint
    block: int
    stream: Hookpoint
    norm: NormWeights | None
    mlps: Mapping[int, MlpWeights]

    @property
    def mlp(self) -> MlpWeights:
        """The weights of the MLP."""
        return self.mlps[self.block]

    def decoder(self, d_LD: Float[Tensor, "L D"]) -> Float[Tensor, "L D"]:
        """Directions at the MLP's input, of latents with these directions at the hookpoint."""
        return d_LD if self.norm is None else self.norm.centre(d_LD) * self.norm.weight

    def mlp_input(self, stream: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """What the MLP reads where the model has these activations at `stream`."""
        return stream if self.norm is None else self.norm(stream)

    def mlp_output(self, stream: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """What the MLP puts out there."""
        return self.mlp(self.mlp_input(stream))

    def contributions(
        self,
        d_LD: Float[Tensor, "L D"],
        b_dec_D: Float[Tensor, "D"],
        codes: Codes,
        stream_BD: Float[Tensor, "B D"] | None,
        error: ErrorNode,
    ) -> RankedContributions:
        """What codes contribute to the MLP's neurons, by latents of these directions at the hookpoint.

        stream_BD: the model's own activations at `stream`; None will do where `needs_stream` says so.
        """
        decoder_LD, bias, decoded_BD, post_scale_B = self.decoder(d_LD), b_dec_D, None, None
        if stream_BD is not None and self.norm is not None:
            scale_B1 = self.norm.scale(stream_BD)[:, None]
            codes = Codes(codes.latents, codes.values / scale_B1, codes.n_latents)
            bias = self.norm.bias + self.decoder(b_dec_D[None]) / scale_B1
        if stream_BD is not None and error == "keep":
            decoded_BD = codes.dense() @ decoder_LD
            bias = self.mlp_input(stream_BD) - decoded_BD
        if stream_BD is not None and self.mlp.post_norm is not None:
            post_scale_B = self.mlp.post_norm.scale(self.mlp_output(stream_BD))
        return RankedContributions(decoder_LD, bias, codes, self.mlp, decoded_BD, post_scale_B)

    def needs_stream(self, error: ErrorNode) -> bool:
        """Whether contributions depend on more of the token than its codes."""
        return error == "keep" or self.norm is not None or self.mlp.post_norm is not None


def find_places(model: LanguageModel, index: Mapping[Hookpoint, int]) -> dict[int, Place]:
    """The place of each block's MLP among a dictionary's hookpoints, by block.

    A dictionary with hookpoints at MLPs' inputs (ln2) is read at these. One without is read in the residual
    stream, for each block at the hookpoint next before the MLP: where its norm reads, or what attention adds
    to.
    """
    mlps = OneByOne(range(model.n_blocks), model.mlp_weights)  # float32 copies, where the model is not
    inputs = {block: point for block in range(model.n_blocks) if (point := Hookpoint(block, "ln2")) in index}
    if inputs:
        return {b: Place(point, b, point, None, mlps) for b, point in inputs.items()}
    normed, places = set(model.normed()), dict[int, Place]()
    for block in range(model.n_blocks):
        norm, stream = None, Hookpoint(block, "resid_mid")
        if Hookpoint(block, "ln2") in normed:
            norm, stream = model.norm_weights(Hookpoint(block, "ln2"))
        before = (stream, Hookpoint(block, "resid_pre"), Hookpoint(block - 1, "resid_post"))
        point = next((point for point in before if point in index), None)
        if point is not None:
            places[block] = Place(point, block, stream, norm, mlps)
    return places
