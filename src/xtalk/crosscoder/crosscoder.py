"""The crosscoder: one sparse code per token for several hookpoints at once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xtalk.codes import Codes
from xtalk.crosscoder.card import Figures
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.formats.format import named
from xtalk.crosscoder.hub import push, stored_in
from xtalk.crosscoder.nonlinearities import Nonlinearity, nonlinearity
from xtalk.crosscoder.pre_activations import ActiveRows, PreActivations, full
from xtalk.crosscoder.provenance import Provenance
from xtalk.crosscoder.saving import write_crosscoder
from xtalk.crosscoder.tensors import fitted
from xtalk.errors import XtalkError
from xtalk.products import active_rows_pay, codes_times_rows


class Crosscoder(nn.Module):
    """A sparse dictionary over P hookpoints: x^ = b_dec + sum_i f_i d_i, f = nonlinearity(x W_enc + b_enc).

    W_enc (P, D, L), W_dec (L, P, D), b_enc (L), b_dec (P, D), threshold (L): a latent is active at inference
    where its pre-activation is above threshold and 0 (TopK ignores it). Activations are in the space that the
    weights were made for: the model's own units; while training, scaled ones. `provenance` says where the
    weights come from, as far as that is known.

    A transcoder writes other hookpoints than it reads: W_dec (L, Q, D), b_dec (Q, D). Two tensors are None in
    most: W_skip (P, D, Q, D), which adds x W_skip to what the transcoder writes; and gate (Q, L): a hookpoint
    takes a latent only where its value is above the hookpoint's gate.

    Shapes: activations x are (..., P, D), dense codes f are (..., L), with any leading axes. A crosscoder of
    one hookpoint (an SAE) has no hookpoint axis: x is (..., D), and an axis of 1 before D is a leading axis
    as any other. Devices and dtypes: as of any torch module; inputs are cast to the weights' dtype, and
    results have it.

    Source: arXiv 2606.09940, section 2.

    >>> cc = xtalk.Crosscoder.from_tensors(
    ...     W_enc=torch.eye(3), W_dec=torch.eye(3), b_enc=torch.zeros(3), b_dec=torch.zeros(3),
    ...     hook_names="blocks.0.ln2", architecture="topk", k=1,
    ... )
    >>> cc.encode(torch.tensor([[1.0, 2.0, 0.5]])).tolist()
    [[0.0, 2.0, 0.0]]
    """

    def __init__(self, config: CrosscoderConfig, provenance: Provenance | None = None) -> None:
        super().__init__()
        self.config = config
        self.provenance = provenance or Provenance()
        self.nonlinearity: Nonlinearity = nonlinearity(config.architecture)
        zeros = {name: torch.zeros(shape) for name, shape in config.shapes.items()}
        self.W_enc = nn.Parameter(zeros["W_enc"])
        self.W_dec = nn.Parameter(zeros["W_dec"])
        self.b_enc = nn.Parameter(zeros["b_enc"])
        self.b_dec = nn.Parameter(zeros["b_dec"])
        self.threshold = nn.Parameter(zeros["threshold"], requires_grad=self.nonlinearity.trains_threshold)
        self.W_skip = nn.Parameter(zeros["W_skip"]) if config.skip else None
        self.gate = nn.Parameter(zeros["gate"], requires_grad=False) if config.gated else None

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        hook_names: str | Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Crosscoder":
        """Load a crosscoder from a folder, or from the Hugging Face hub, in xtalk's format or a peer's.

        source: a folder, or a hub name: OWNER/NAME, OWNER/NAME:FOLDER, either with @REVISION; a folder that
        is here comes first. docs/formats.md lists the formats. revision: a branch, tag or commit of the hub.
        hook_names: of the hookpoints that are read, for files that do not have them. What the files do not
        say of the origin is None in `provenance`; `provenance.source` is the commit on the hub.
        Errors: XtalkError for a source that is not there, a format that is not known, a dictionary that xtalk
        has no meaning for, files that are missing, cut short, corrupted or of other shapes, and a hub that is
        out of reach or has no such repository or revision for this user.

        >>> cc.save(folder)
        >>> xtalk.Crosscoder.load(folder).config == cc.config
        True
        """
        stored = stored_in(source, revision)
        if hook_names is not None:
            stored = named(stored, hook_names)
        with torch.device("meta"):  # the tensors are there already
            crosscoder = cls(stored.config, stored.provenance)
        crosscoder.load_state_dict(dict(stored.tensors), assign=True)
        return crosscoder.to(device, dtype)

    @classmethod
    def from_tensors(
        cls,
        *,
        W_enc: Float[Tensor, "..."],
        W_dec: Float[Tensor, "..."],
        b_enc: Float[Tensor, "..."],
        b_dec: Float[Tensor, "..."],
        hook_names: str | Sequence[str],
        architecture: str,
        k: int | None = None,
        threshold: Float[Tensor, "..."] | float | None = None,
        hook_names_out: str | Sequence[str] | None = None,
        W_skip: Float[Tensor, "..."] | None = None,
        gate: Float[Tensor, "..."] | None = None,
        provenance: Provenance | None = None,
    ) -> "Crosscoder":
        """A crosscoder of one's own tensors, which are copied; in the model's own units.

        W_enc (P, D, L), W_dec (L, P, D), b_enc (L), b_dec (P, D); for one hookpoint, P may be left out.
        hook_names: of the hookpoints, such as "blocks.0.ln2".
        architecture: relu, topk, batchtopk or jumprelu. threshold: by latent, or one for all; compared with
        the pre-activation x W_enc + b_enc; batchtopk and jumprelu need it. k: active latents per token, which
        topk needs; the others infer without it. hook_names_out, W_skip (P, D, Q, D): of a transcoder. gate
        (Q, L): of hookpoints that take a latent above a threshold of their own. Device and dtype: those of
        W_enc. Errors: XtalkError for shapes that do not fit, an unknown architecture, a missing threshold or
        k, and NaN or infinity.

        >>> W = torch.eye(4)
        >>> own = xtalk.Crosscoder.from_tensors(
        ...     W_enc=W, W_dec=W, b_enc=torch.zeros(4), b_dec=torch.zeros(4), threshold=0.5,
        ...     hook_names=["blocks.1.ln2"], architecture="jumprelu",
        ... )
        >>> own.encode(torch.tensor([0.25, 0.75, -1.0, 2.0])).tolist()
        [0.0, 0.75, 0.0, 2.0]
        """
        config, tensors = fitted(
            W_enc=W_enc,
            W_dec=W_dec,
            b_enc=b_enc,
            b_dec=b_dec,
            hook_names=hook_names,
            architecture=architecture,
            k=k,
            threshold=threshold,
            hook_names_out=hook_names_out,
            W_skip=W_skip,
            gate=gate,
        )
        crosscoder = cls(config, provenance).to(W_enc.device, W_enc.dtype)
        with torch.no_grad():
            for name, tensor in tensors.items():
                crosscoder.get_parameter(name).copy_(tensor)
        return crosscoder

    def save(self, folder: str | Path, provenance: Provenance | None = None) -> None:
        """Write `cfg.json` and `sae_weights.safetensors` (float32) into a folder, which is made if need be.

        provenance: by default the crosscoder's own; what is unknown is left out. Errors: XtalkError for
        weights with NaN or infinity, and a full disk.

        >>> cc.save(folder)
        """
        write_crosscoder(Path(folder), self.config, self.state_dict(), provenance or self.provenance)

    def push_to_hub(
        self,
        name: str,
        *,
        metrics: str | Path | None = None,
        crosscoder: str | None = None,
        private: bool = False,
    ) -> str:
        """Upload the crosscoder to the Hugging Face hub, with a card, in one commit: OWNER/NAME@COMMIT.

        The repository is made if need be; a token comes from `hf auth login` or HF_TOKEN. metrics: the
        metrics.json of a run, whose figures the card then shows; crosscoder: its name there, if the file has
        several. private: of a repository that is made. Errors: XtalkError for weights with NaN or infinity,
        figures that cannot be read, and what the hub refuses; the repository then has no part of it.

        >>> cc.push_to_hub("you/crosscoder", private=True)  # doctest: +SKIP
        'you/crosscoder@2f1c...'
        """
        figures = None if metrics is None else Figures.read(Path(metrics), crosscoder)
        return push(self.config, self.state_dict(), self.provenance, name, figures, private=private)

    @torch.no_grad()
    def initialise(self, mean_PD: Float[Tensor, "P D"], direction_LPD: Float[Tensor, "L P D"]) -> None:
        """Decoder directions as given, but of unit norm; the encoder their transpose; centred on the mean."""
        self.W_dec.copy_(direction_LPD / direction_LPD.flatten(1).norm(dim=1).clamp(min=1e-9)[:, None, None])
        self.W_enc.copy_(self.W_dec.permute(1, 2, 0))
        self.b_dec.copy_(mean_PD)
        self.b_enc.copy_(-torch.einsum("pd,pdl->l", self.b_dec, self.W_enc))
        self.threshold.fill_(self.nonlinearity.first_threshold)

    def pre_activations(self, x_BPD: Float[Tensor, "B P D"]) -> Float[Tensor, "B L"]:
        """Sum over hookpoints of x W_enc, plus b_enc; at least float32."""
        return full(x_BPD.flatten(1) @ self.W_enc.flatten(0, 1)) + self.b_enc

    def encode(self, x: Float[Tensor, "*BP D"] | Float[np.ndarray, "*BP D"]) -> Float[Tensor, "*B L"]:
        """The dense codes f of activations, each token by itself.

        x: (..., P, D), or (..., D) for a crosscoder of one hookpoint; the result is (..., L), not negative,
        differentiable in x and the weights. Errors: XtalkError for another shape.

        >>> x = torch.randn(2, 7, len(cc.config.hook_names), cc.config.d_in)
        >>> cc.encode(x).shape == (2, 7, cc.config.d_sae)
        True
        """
        leading, _ = self._tokens(x)
        return self.encode_sparse(x).dense().view(*leading, self.config.d_sae)

    def encode_sparse(self, x: Float[Tensor, "*BP D"] | Float[np.ndarray, "*BP D"]) -> Codes:
        """The active latents of activations, each token by itself: no code depends on the rest of the batch.

        x: as `encode` takes it; its leading axes are flattened, so that the codes are those of B tokens in
        row-major order. Errors: XtalkError for another shape.

        >>> x = torch.randn(2, 7, len(cc.config.hook_names), cc.config.d_in)
        >>> codes = cc.encode_sparse(x)
        >>> len(codes.latents), codes.n_latents == cc.config.d_sae
        (14, True)
        """
        _, x_BPD = self._tokens(x)
        pre = PreActivations.of(self.pre_activations(x_BPD))
        codes = self.nonlinearity.encode(pre, self.threshold, self.config.k)
        return Codes(codes.latents, codes.values.to(self.W_enc.dtype), codes.n_latents)

    def encode_for_training(self, x_BPD: Float[Tensor, "B P D"]) -> tuple[Codes, Float[Tensor, ""]]:
        """The codes that training sees, and the mean L0, which is differentiable for JumpReLU only.

        Under autocast to bfloat16, products in it choose the latents whose values float32 then makes.
        """
        kind, k = self.nonlinearity, self.config.k
        if kind.keeps_k and active_rows_pay(k, self.config.d_sae, x_BPD.device):
            pre = PreActivations.from_rows(self.active_rows(x_BPD))
        else:
            pre = PreActivations.of(self.pre_activations(x_BPD))
        return kind.encode_for_training(pre, self.threshold, k)

    def active_rows(self, x_BPD: Float[Tensor, "B P D"]) -> ActiveRows:
        """The encoder by latent, and what it reads."""
        return ActiveRows(x_BPD.flatten(1), self.encoder_rows(), self.b_enc)

    def encoder_rows(self) -> Float[Tensor, "L X"]:
        """W_enc by latent; without a copy once it is `laid_out_for_training`."""
        return self.W_enc.permute(2, 0, 1).flatten(1)

    def lay_out_for_training(self) -> None:
        """Keep W_enc (P, D, L) in memory latent by latent, so that a latent's numbers lie together."""
        self.W_enc.data = self.W_enc.data.permute(2, 0, 1).contiguous().permute(1, 2, 0)

    def forward(self, x: Float[Tensor, "*BP D"] | Float[np.ndarray, "*BP D"]) -> Float[Tensor, "*BQ D"]:
        """What the crosscoder makes of activations: `decode` of `encode`, and what W_skip adds to that.

        >>> x = torch.randn(2, 7, len(cc.config.hook_names), cc.config.d_in)
        >>> torch.equal(cc(x), cc.decode(cc.encode(x)))
        True
        """
        decoded = self.decode(self.encode(x))
        if self.W_skip is None:
            return decoded
        _, x_BPD = self._tokens(x)
        return decoded + torch.einsum("bpd,pdqe->bqe", x_BPD, self.W_skip).view_as(decoded)

    def decode(self, codes: Codes | Float[Tensor, "*B L"]) -> Float[Tensor, "*BP D"]:
        """The reconstruction b_dec + sum_i f_i d_i of dense or sparse codes.

        Dense codes (..., L) give (..., P, D), and (..., D) for a crosscoder of one hookpoint: the shape that
        `encode` took, or for a transcoder what it writes. Sparse codes of B tokens always give (B, P, D).
        Errors: XtalkError for another L.

        >>> x = torch.randn(2, 7, len(cc.config.hook_names), cc.config.d_in)
        >>> cc.decode(cc.encode(x)).shape == x.shape
        True
        """
        Q, D = self.b_dec.shape
        if not isinstance(codes, Codes):
            self._check_latents(codes.shape[-1])
            sums = self._summed(codes.flatten(0, -2) if codes.ndim > 1 else codes[None])
            x = (sums + self.b_dec).to(self.W_dec.dtype)
            return x.view(*codes.shape[:-1], D) if Q == 1 else x.view(*codes.shape[:-1], Q, D)
        return (self.summed(codes) + self.b_dec).to(self.W_dec.dtype)

    def summed(self, codes: Codes) -> Float[Tensor, "B Q D"]:
        """sum_i f_i d_i, without b_dec; at least float32. Errors: XtalkError for another L."""
        self._check_latents(codes.n_latents)
        active = int((codes.values != 0).sum()) / max(1, len(codes.values))
        if self.gate is None and active_rows_pay(active, codes.n_latents, codes.values.device):
            return self._by_hookpoint(codes_times_rows(codes, self.W_dec.flatten(1)))
        return self._summed(codes.dense())

    def _summed(self, f_BL: Float[Tensor, "B L"]) -> Float[Tensor, "B Q D"]:
        f_BL = f_BL.to(self.W_dec.dtype)
        if self.gate is None:
            return self._by_hookpoint(f_BL @ self.W_dec.flatten(1))
        taken = [f_BL * (f_BL > gate_L) for gate_L in self.gate]
        return self._by_hookpoint(torch.cat([f @ self.W_dec[:, q] for q, f in enumerate(taken)], dim=1))

    def _by_hookpoint(self, flat_BX: Float[Tensor, "B X"]) -> Float[Tensor, "B Q D"]:
        return full(flat_BX).view(-1, *self.b_dec.shape)

    def hook_index(self, hook_name: str) -> int:
        """Position of a hookpoint in P. Errors: XtalkError names the crosscoder's hookpoints."""
        names = self.config.hook_names
        if hook_name not in names:
            raise XtalkError(f"the crosscoder has no hookpoint {hook_name}; it has {', '.join(names)}")
        return names.index(hook_name)

    def _tokens(self, x: Tensor | np.ndarray) -> tuple[tuple[int, ...], Float[Tensor, "B P D"]]:
        """The leading axes of activations, and the activations as B tokens."""
        if not isinstance(x, Tensor):
            x = torch.as_tensor(x, device=self.W_enc.device)
        x = x.to(self.W_enc.dtype)
        P, D, _ = self.W_enc.shape
        own = (D,) if P == 1 else (P, D)
        if tuple(x.shape[-len(own) :]) != own:
            expected = f"(..., {', '.join(map(str, own))})"
            raise XtalkError(
                f"activations of shape {tuple(x.shape)}; expected {expected}, for hookpoints P = {P} and "
                f"d_in D = {D}; capture them at {', '.join(self.config.hook_names)}"
            )
        leading = tuple(x.shape[: -len(own)])
        return leading, x.reshape(-1, P, D)

    def _check_latents(self, latents: int) -> None:
        if latents != self.config.d_sae:
            raise XtalkError(f"codes of {latents} latents; expected the crosscoder's {self.config.d_sae}")


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
