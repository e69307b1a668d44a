"""What each latent contributes to each MLP neuron: p_ki = f_i <w_k, d_i>, base c_k, dominant latent.

This is the one definition that measures, penalties and fidelity share (docs/method.md; paper section 3).
For a gated MLP a latent contributes to two pre-activations, gate and value; the dominant latent is then the
one with the largest first-order effect on the neuron, Lip(phi) |U_k| |g_ki| + |phi(G_k)| |u_ki|, where
G and U are the sums of base and all contributions.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk.codes import Codes
from xtalk.errors import XtalkError
from xtalk.interactions import kernels
from xtalk.models.mlp import MlpWeights

_CHUNK_ELEMENTS = 1 << 26  # of a (tokens, K, N) intermediate off the CPU: 256 MB in float32


@dataclass(frozen=True)
class Path:
    """One linear path from latents to neurons: p_BKN = values_BK * M_LN[latents_BK], and the base.

    base_BN: one for all tokens, (1, N), or each token's own.
    """

    W_DN: Float[Tensor, "D N"]
    M_LN: Float[Tensor, "L N"]
    base_BN: Float[Tensor, "#B N"]
    codes: Codes

    def total(self) -> Float[Tensor, "B N"]:
        """sum_i p_ki, from the contributions; `MlpContributions.totals` is faster, and rounds otherwise."""
        return F.embedding_bag(
            self.codes.latents, self.M_LN, per_sample_weights=self.codes.values, mode="sum"
        )

    def total_abs(self) -> Float[Tensor, "B N"]:
        """sum_i |p_ki|."""
        codes = self.codes
        return F.embedding_bag(
            codes.latents, self.M_LN.abs(), per_sample_weights=codes.values.abs(), mode="sum"
        )

    def at(self, slots_BN: Int[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """The contribution of each neuron's given slot; differentiable in M and the code values."""
        latents_BN = self.codes.latents.gather(1, slots_BN)
        return self.M_LN.gather(0, latents_BN) * self.codes.values.gather(1, slots_BN)


def _path(decoder_LD: Tensor, bias: Tensor, codes: Codes, W_DN: Tensor, b_N: Tensor) -> Path:
    with torch.autocast(W_DN.device.type, enabled=False):  # rounding the base would move all tokens alike
        base_BN = _full(b_N + bias @ W_DN).view(-1, W_DN.shape[1])
    return Path(W_DN, _full(decoder_LD @ W_DN), base_BN, codes)


def _full(tensor: Tensor) -> Tensor:
    """At least float32: under autocast too."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class MlpContributions:
    """The contributions of a batch of codes to the neurons of one MLP.

    decoder_LD: the latents' directions at the MLP's input, in the model's own units; bias: what that input is
    without any latent, b_dec for all tokens (D) or each token's own (B, D); codes: B tokens; decoded_BD:
    sum_i f_i d_i, where the caller has it already; post_scale_B: the scale at each token of the norm that the
    MLP's output passes through, 1 where it is not given. All is differentiable in decoder, bias and code
    values; the choice of slots is not. Errors: XtalkError where codes and decoder differ in their number of
    latents. Source: arXiv 2606.09940, section 3.

    >>> relu = xtalk.activation_function("relu")
    >>> mlp = xtalk.MlpWeights(torch.ones(2, 1), torch.zeros(1), torch.ones(1, 2), torch.zeros(2), relu)
    >>> codes = xtalk.Codes(torch.tensor([[0, 1]]), torch.tensor([[3.0, 1.0]]), n_latents=2)
    >>> p = xtalk.MlpContributions(torch.eye(2), torch.zeros(2), codes, mlp)
    >>> p.codes.latents.gather(1, p.dominant_BN)  # the dominant latent of the token's one neuron
    tensor([[0]])
    """

    def __init__(
        self,
        decoder_LD: Float[Tensor, "L D"],
        bias: Float[Tensor, "D"] | Float[Tensor, "B D"],
        codes: Codes,
        mlp: MlpWeights,
        decoded_BD: Float[Tensor, "B D"] | None = None,
        post_scale_B: Float[Tensor, "B"] | None = None,
    ) -> None:
        if codes.n_latents != len(decoder_LD):
            raise XtalkError(f"codes of {codes.n_latents} latents; expected the decoder's {len(decoder_LD)}")
        self._decoder_LD, self._decoded_BD = decoder_LD, decoded_BD
        self.codes = codes
        self.mlp = mlp
        self._post_scale_B = post_scale_B
        self._sums: dict[int, tuple[Tensor, ...]] = {}
        self.value = _path(decoder_LD, bias, codes, mlp.W_in, mlp.b_in)
        self.gate: Path | None = None
        if mlp.W_gate is not None and mlp.b_gate is not None:
            self.gate = _path(decoder_LD, bias, codes, mlp.W_gate, mlp.b_gate)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The value path, and the gate path of a gated MLP."""
        return (self.value,) if self.gate is None else (self.value, self.gate)

    @cached_property
    def output_norm_N(self) -> Float[Tensor, "N"]:
        """||W_out[k]||_2 of each neuron; with a post-norm, before its scale."""
        return self.mlp.output_norm_N

    @cached_property
    def output_norm_BN(self) -> Float[Tensor, "B N"]:
        """How far each neuron moves the residual stream at each token, per unit of its activation.

        ||W_out[k]||_2; with a post-norm, at the scale that it has at the token.
        """
        norm_BN = self.output_norm_N.expand(len(self.codes.values), -1)
        return norm_BN if self._post_scale_B is None else norm_BN / self._post_scale_B[:, None]

    def moved(
        self, change_BD: Float[Tensor, "B D"], tokens_B: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B D"]:
        """How a change of the MLP's output moves the residual stream: with a post-norm, at the token's scale.

        tokens_B: the token of each change; by default all in order.
        """
        norm = self.mlp.post_norm
        if norm is None:
            return change_BD
        moved_BD = norm.centre(change_BD) * norm.weight
        if self._post_scale_B is None:
            return moved_BD
        scale_B = self._post_scale_B if tokens_B is None else self._post_scale_B[tokens_B]
        return moved_BD / scale_B[:, None]

    @cached_property
    def dominant_BN(self) -> Int[Tensor, "B N"]:
        """Slot of the dominant latent i*(k) of each token and neuron."""
        return self.top_slots(1)[:, 0]

    @cached_property
    def dominant(self) -> tuple[Float[Tensor, "B N"], ...]:
        """The dominant latent's contribution on each path, signed."""
        return tuple(path.at(self.dominant_BN) for path in self.paths)

    @cached_property
    def totals(self) -> tuple[Float[Tensor, "B N"], ...]:
        """The sum of all contributions on each path, without the base: the decoded input, weighed."""
        decoded_BD = self.codes.dense() @ self._decoder_LD if self._decoded_BD is None else self._decoded_BD
        return tuple(_full(decoded_BD @ path.W_DN) for path in self.paths)

    def output(self, kept: tuple[Float[Tensor, "B N"], ...]) -> Float[Tensor, "B D"]:
        """The MLP's output when, on each path, `kept` stands for the sum of contributions."""
        return self.activations(kept) @ self.mlp.W_out + self.mlp.b_out

    def activations(
        self, kept: tuple[Float[Tensor, "B N"], ...], tokens_B: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B N"]:
        """The neurons' activations when, on each path, `kept` stands for the sum of contributions.

        tokens_B: the token of each row; by default all in order.
        """
        value_BN, *gate = (
            kept_BN + (path.base_BN if tokens_B is None or len(path.base_BN) == 1 else path.base_BN[tokens_B])
            for path, kept_BN in zip(self.paths, kept, strict=True)
        )
        return self.mlp.activation(gate[0]) * value_BN if gate else self.mlp.activation(value_BN)

    def keep(self, m: int | None) -> tuple[Float[Tensor, "B N"], ...]:
        """On each path the sum of the m dominant latents' contributions (few-hot), signed; None: of all."""
        if m is None:
            return self.totals
        if m == 1:
            return self.dominant
        if m not in self._sums:  # several penalties of one step keep as many
            slots_BmN = self.top_slots(m)
            kept = [torch.stack([path.at(s) for s in slots_BmN.unbind(1)]).sum(0) for path in self.paths]
            self._sums[m] = tuple(kept)
        return self._sums[m]

    def path_weights(self) -> tuple[Float[Tensor, "B N"], ...]:
        """How much a unit contribution on each path can move the neuron: the weights of the dominance score.

        Ordinary MLP: 1 (up to the constant Lip(phi), which no argmax sees). Gated: |phi(G)| on the value
        path, Lip(phi) |U| on the gate path. Not differentiable, but the totals that it reads are.
        """
        if self.gate is None:
            return (torch.ones_like(self.value.M_LN[0]).expand(len(self.codes.values), -1),)
        total_value_BN, total_gate_BN = self.totals  # kept for penalties, so with their graph
        with torch.no_grad():
            phi_BN = self.mlp.activation(self.gate.base_BN + total_gate_BN).abs()
            return phi_BN, self.mlp.activation.lipschitz * (self.value.base_BN + total_value_BN).abs()

    def top_slots(self, m: int) -> Int[Tensor, "B m N"]:
        """Slots of the m latents of largest dominance score per token and neuron, largest first.

        Of equal scores the lower slot comes first. When fewer than m latents are active the remaining ranks
        name padding slots, whose contribution is 0; there are never more ranks than slots.
        Errors: XtalkError for m below 1.
        """
        if m < 1:
            raise XtalkError(f"the {m} largest contributions per neuron; expected 1 or more")
        codes, M_LN = self.codes, self.value.M_LN
        m = min(m, codes.latents.shape[1])
        weights = self.path_weights()
        with torch.no_grad():
            if M_LN.device.type != "cpu":
                return self._top_slots_chunked(m, weights)
            if self.gate is None:
                return kernels.top_slots(M_LN, codes.latents, codes.values, m)
            value_BN, gate_BN = weights
            return kernels.top_slots_gated(
                self.gate.M_LN, M_LN, gate_BN, value_BN, codes.latents, codes.values, m
            )

    def _top_slots_chunked(self, m: int, weights: tuple[Tensor, ...]) -> Int[Tensor, "B m N"]:
        B, K = self.codes.latents.shape
        step = max(1, _CHUNK_ELEMENTS // (K * self.value.M_LN.shape[1]))
        slots: list[Tensor] = []
        for start in range(0, B, step):
            codes = self.codes.slice(start, start + step)
            score_BKN = torch.zeros((), device=codes.values.device)
            for path, weight_BN in zip(self.paths, weights, strict=True):
                p_BKN = path.M_LN[codes.latents] * codes.values[:, :, None]
                score_BKN = score_BKN + p_BKN.abs() * weight_BN[start : start + step, None]
            ranks: list[Tensor] = []
            for _ in range(m):  # argmax names the first of equals, topk any
                ranks.append(score_BKN.argmax(1, keepdim=True))
                score_BKN.scatter_(1, ranks[-1], -1.0)
            slots.append(torch.cat(ranks, dim=1))
        return torch.cat(slots)
