"""Crosscoders of one hookpoint as SAEs of SAELens, in an environment that has both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from xtalk.crosscoder.formats.hooks import lens_name
from xtalk.crosscoder.nonlinearities import nonlinearity
from xtalk.errors import XtalkError

ARCHITECTURE = "crosscoder"


@cache
def register() -> None:
    """Let `SAE.load_from_disk` of SAELens read what `Crosscoder.save` wrote, for one hookpoint.

    The outputs are the crosscoder's. SAELens does not write such an SAE again: `xtalk convert --to saelens`
    does that. Errors: XtalkError where SAELens is not installed, and from `load_from_disk` for crosscoders
    that are no SAEs: of several hookpoints, transcoders, and those with gates.

    >>> from xtalk.crosscoder import saelens
    >>> saelens.register()  # doctest: +SKIP
    >>> sae = sae_lens.SAE.load_from_disk("my-crosscoder")  # doctest: +SKIP
    """
    try:
        lens = import_module("sae_lens")  # no extra of xtalk's: it brings a hundred packages
    except ModuleNotFoundError as error:
        raise XtalkError(f"{error.name} is not installed; install SAELens: pip install sae-lens") from error
    config = _config_class(lens.SAEConfig)
    lens.register_sae_class(ARCHITECTURE, _sae_class(lens.SAE), config)


def _config_class(base: Any) -> Any:
    @dataclass
    class CrosscoderSAEConfig(base):
        """The keys of xtalk's cfg.json that a crosscoder of one hookpoint needs."""

        nonlinearity: str = "relu"
        k: int = 1
        hook_names: list[str] = field(default_factory=list[str])
        hook_names_out: list[str] | None = None
        skip: bool | None = None
        gated: bool | None = None

        @classmethod
        def architecture(cls) -> str:
            return ARCHITECTURE

    return CrosscoderSAEConfig


def _sae_class(base: Any) -> Any:
    class CrosscoderSAE(base):
        """A crosscoder of one hookpoint, with the nonlinearity that xtalk infers with."""

        def __init__(self, cfg: Any, use_error_term: bool = False) -> None:
            if len(cfg.hook_names) != 1 or cfg.hook_names_out or cfg.skip or cfg.gated:
                raise XtalkError(
                    f"a crosscoder over {', '.join(cfg.hook_names)} is no SAE; SAELens reads those of one "
                    "hookpoint without gates; load it with xtalk.Crosscoder.load"
                )
            cfg.apply_b_dec_to_input = False  # SAELens sets it where a cfg.json does not have it
            cfg.metadata.hook_name = lens_name(cfg.hook_names[0])
            super().__init__(cfg, use_error_term)

        def initialize_weights(self) -> None:
            super().initialize_weights()
            for name in ("b_enc", "threshold"):
                empty = torch.zeros(self.cfg.d_sae, dtype=self.dtype, device=self.device)
                setattr(self, name, nn.Parameter(empty))

        def process_state_dict_for_loading(self, state_dict: dict[str, Tensor]) -> None:
            """Take the axis of the one hookpoint away."""
            for name, axis in (("W_enc", 0), ("W_dec", 1), ("b_dec", 0)):
                state_dict[name] = state_dict[name].squeeze(axis)

        def process_state_dict_for_saving(self, state_dict: Mapping[str, Tensor]) -> None:
            raise XtalkError("SAELens does not write crosscoders of xtalk; give xtalk convert --to saelens")

        def encode(self, x: Tensor) -> Tensor:
            pre = self.hook_sae_acts_pre(self.process_sae_in(x) @ self.W_enc + self.b_enc)
            kind = nonlinearity(self.cfg.nonlinearity)
            codes = kind.encode(pre.flatten(0, -2), self.threshold, self.cfg.k)
            return self.hook_sae_acts_post(codes.dense().to(pre.dtype).view(pre.shape))

        def decode(self, feature_acts: Tensor) -> Tensor:
            made = self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)
            return self.reshape_fn_out(self.run_time_activation_norm_fn_out(made), self.d_head)

        @torch.no_grad()
        def fold_W_dec_norm(self) -> None:
            """Move the decoder's norms into the encoder; latents that are active stay so."""
            if nonlinearity(self.cfg.nonlinearity).infers_by_k:
                raise XtalkError("the decoder's norms cannot be folded: with topk others would be chosen")
            threshold = self.threshold.clone()
            self.threshold.data = threshold * self.fold_and_get_W_dec_norm()

    return CrosscoderSAE
