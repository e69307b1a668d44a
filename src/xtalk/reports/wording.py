"""How numbers, crosscoders and schemes are put into words."""

from typing import Literal
from unicodedata import category

from xtalk.reports.data import Ablation, Interval, Scheme, Together
from xtalk.reports.metrics import Counted, CrosscoderMetrics
from xtalk.reports.results import Results

PAPERS_PENALTY = "sum_minus_max"

SCHEME_WORDS: dict[Scheme, str] = {
    "full": "all features",
    "keep_8": "keep 8",
    "keep_4": "keep 4",
    "keep_2": "keep 2",
    "keep_1": "keep 1",
    "drop_second": "drop the second",
    "drop_largest": "drop the largest",
    "drop_random": "drop a random one",
    "keep_random": "keep a random active one",
    "keep_most_active": "keep the most active latent",
    "shrink": "shrink all, choose none",
}

SITE_WORDS = {
    "mlp": "MLPs",
    "qk": "attention scores (QK)",
    "ov": "attention outputs (OV)",
    "norm": "norms",
}
BLOCKS_WORDS: dict[Literal["mean"] | Together, str] = {
    "mean": "one at a time, mean",
    "all": "all but block 0 at once",
    "all_with_0": "all at once",
}
FIGURE_WORDS = {
    "fvu": "FVU",
    "recon": "reconstruction error",
    "l0": "L0",
    "dead": "dead latents",
    "interaction": "T",
    "share": "share of the m largest",
    "phi": "Φ mean",
    "phi_weighed": "Φ mean, weighed",
    "lost": "lost, nat per token",
    "ablation": "ablation costs, nat per token",
}
MEASURE_WORDS = {
    "interaction": "I(i, j)",
    "true_interaction": "true interaction",
    "co_activation": "co-activation, cosine",
    "co_activation_count": "co-activation, count",
    "decoder": "decoder cosine",
    "size": "size (control)",
}
EFFECT_WORDS = {
    ("output", "occurrence"): "MLP output, per occurrence",
    ("output", "text"): "MLP output, over the text",
    ("loss", "occurrence"): "loss, per occurrence",
    ("loss", "text"): "loss, over the text",
}

_JOINERS = "\u200c\u200d"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 2) -> str:
    """A fixed-point number with a true minus sign and no negative zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("-")


def text_words(held_out: bool | None) -> str:
    """What is known of the text and of the training on it."""
    if held_out is None:
        return "not known to be held out from training"
    return "held out from training" if held_out else "not held out from training"


def left_out(counted: Counted) -> str:
    """Which tokens do not count."""
    parts: list[str] = []
    if counted.skip_positions:
        first = (
            "first position" if counted.skip_positions == 1 else f"first {counted.skip_positions} positions"
        )
        parts.append(f"the {first} of every sequence")
    if counted.skip_tokens:
        parts.append(", ".join(map(repr, counted.skip_tokens)))
    return f"without {' and '.join(parts)}"


def significant(value: float) -> str:
    """Three significant digits, as a power of ten where zeros would hide them."""
    if value and not 1e-3 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa}\N{MULTIPLICATION SIGN}10{str(int(exponent)).translate(_RAISED)}"
    else:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
        text = f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return text.replace("-", "\N{MINUS SIGN}")


def whole(value: int) -> str:
    """An integer with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def bounds(interval: Interval, digits: int = 2) -> str:
    """The 95 % interval alone, in brackets."""
    return f"[{number(interval[1], digits)}, {number(interval[2], digits)}]"


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def measure(key: str) -> str:
    """A measure of interaction as the text names it; one without a name of its own by its key."""
    return MEASURE_WORDS.get(key, key.replace("_", " "))


def missing(results: Results) -> list[tuple[str, str]]:
    """What the run did not measure, with the command that measures it."""
    metrics, data = results.metrics, results.data
    if data.kind == "measure":
        parts = (
            (metrics.clusters, "clusters", "xtalk measure --clusters"),
            (data.validation, "validation by interventions", "xtalk measure --validate"),
        )
        return [(words, command) for found, words, command in parts if not found]
    parts = (
        (data.interaction_matrices, "pair interactions", "xtalk interact"),
        (metrics.clusters, "clusters", "xtalk cluster"),
        (metrics.dormant, "dormant neurons", "xtalk detect dormant"),
        (data.validation, "validation by interventions", "xtalk validate"),
    )
    return [(words, command) for found, words, command in parts if not found]


def penalty_name(key: str) -> str:
    """A penalty as the text names it."""
    return "sum\N{MINUS SIGN}max" if key == PAPERS_PENALTY else key.replace("_", "-")


def penalties(weights: dict[str, float]) -> str:
    """Penalties with their weights: 'λ 300, keep-one 2', or 'none'."""
    names = {PAPERS_PENALTY: "λ"}
    return ", ".join(f"{names.get(k, penalty_name(k))} {weight:g}" for k, weight in weights.items()) or "none"


def penalty_kind(weights: dict[str, float]) -> str:
    """Penalties without their weights: 'sum-max + keep-one'."""
    return " + ".join(penalty_name(key) for key in sorted(weights, key=_papers_first)) or "no penalty"


def _papers_first(key: str) -> tuple[bool, str]:
    return key != PAPERS_PENALTY, key


def blocks(numbers: list[int]) -> str:
    """'block 2' or 'blocks 1, 2 and 3'."""
    if len(numbers) == 1:
        return f"block {numbers[0]}"
    return f"blocks {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def visible(token: str) -> str:
    """A token's text with its white space, and what else has no sign of its own, made visible."""
    spaced = token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")
    return legible(spaced) or "∅"


def legible(text: str) -> str:
    """The text with control and format characters by their number: none then hides or turns what is beside.

    Joiners stay, which letters and emoji need.
    """
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if category(c) in ("Cc", "Cf") and c not in _JOINERS else c for c in text
    )


def summary(results: Results) -> list[str]:
    """The findings in three sentences."""
    data = results.data
    chosen, reference = results.crosscoder(data.headline), results.crosscoder(data.unpenalised)
    kept, kept_reference = (_phi(results, c, "keep_1") for c in (chosen, reference))
    full, full_reference = (_phi(results, c, "full") for c in (chosen, reference))
    share = f"dominant share of {number(chosen.dominant_share)}"
    if chosen is reference:
        found = [
            f"With one feature kept per MLP neuron, {chosen.name} has a fidelity of {_judged(kept)}.",
            f"With all its features its fidelity is {_judged(full)}, at a {share}.",
        ]
    else:
        found = [
            f"With one feature kept per MLP neuron, {chosen.name} ({penalties(chosen.penalties)}) has a "
            f"fidelity of {_judged(kept)}, against {_judged(kept_reference)} for the unpenalised crosscoder.",
            f"With all its features its fidelity is {_judged(full)} against {_judged(full_reference)}, "
            f"at a {share} against {number(reference.dominant_share)}.",
        ]
    spliced = results.mean_ablation(chosen.name, "crosscoder", "mean")
    if spliced is not None and {"full", "keep_1"} <= spliced.phi.keys():
        found.append(
            "All of this takes resid_mid from the model; with resid_mid from the crosscoder too, keep-one "
            f"fidelity is {_judged(spliced.phi['keep_1'])} and full fidelity {_judged(spliced.phi['full'])}"
            f"{_nats(spliced)}."
        )
    return found


def _nats(ablation: Ablation) -> str:
    """What all features lose there, beside what ablating costs: of a small cost the ratio says little."""
    if ablation.ablation is None or "full" not in ablation.lost:
        return ""
    lost, cost = ablation.lost["full"][0], ablation.ablation[0]
    return f": all features lose {number(lost)} nat per token, ablating the MLP costs {number(cost)}"


def _phi(results: Results, crosscoder: CrosscoderMetrics, scheme: Scheme) -> Interval:
    ablation = results.mean_ablation(crosscoder.name, "model", "mean")
    assert ablation is not None  # Results has checked it
    return ablation.phi[scheme]


def _judged(interval: Interval) -> str:
    figure = f"{number(interval[0])} {bounds(interval)}"
    return f"{figure} (worse than ablating the MLP)" if interval[0] < 0 else figure
