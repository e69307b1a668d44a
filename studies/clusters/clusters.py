"""Write docs/clusters.md: do interaction clusters mean something? Three seeds, and what they must beat.

    python -m studies.clusters.clusters --runs RUNS --planted PLANTED \
        --text train.jsonl --held-out-text test.jsonl

Makes the runs and planted models that are not there yet (`text_runs.py`); without --text it takes the runs in
the folder, such as `studies/results/results.py` makes with `unpenalised` and `sparse`. What was judged is
kept in each run's folder, clusters_page/, and not judged again: remove that to have it done anew.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import xtalk
from studies import pages
from studies.clusters.affinities import affinities
from studies.clusters.page import MATCHED, page
from studies.clusters.text_runs import CROSSCODERS, add_arguments, command, planted_runs, sizes, text_runs
from xtalk.clustering import METHODS, OfflineJudge, Similarity, find_clusters
from xtalk.clustering.comparison import INTERACTION, cluster_all, judge_all
from xtalk.clustering.planted import PlantedJudge, planted_ami
from xtalk.clustering.stability import stability_over_documents, stability_over_seeds
from xtalk.clustering.study import RESAMPLES, ClusterStudy
from xtalk.reading.pairs import SITES, Site
from xtalk.runs import layout
from xtalk.runs.steps.cluster import ClusterSettings, cluster_study
from xtalk.runs.workbench import Workbench

TRIALS = 20  # per cluster
KEPT = "clusters_page"
Accuracies = dict[str, dict[str, list[float]]]
"""By kind of distractors and by similarity, the accuracy at each judged cluster."""


class Seed:
    """One crosscoder of one run: its similarities, and what judges make of their clusters."""

    def __init__(self, folder: xtalk.RunFolder, name: str) -> None:
        self.folder, self.name, self.seed = folder, name, folder.config.seed

    @cached_property
    def study(self) -> ClusterStudy:
        return cluster_study(Workbench(self.folder, "cpu"), ClusterSettings(crosscoder=self.name))

    @property
    def similarities(self) -> dict[str, Similarity]:
        return self.study.similarities

    @cached_property
    def judge(self) -> Any:
        factor_L = self.study.planted_factor_L
        return OfflineJudge(self.study.corpus) if factor_L is None else PlantedJudge(factor_L)

    def kept(self, what: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, as JSON; made once."""
        name = f"{KEPT}/{self.name}.{what}.json"
        if not self.folder.file(name).exists():
            self.folder.write_json(name, make())
            print(f"{self.folder.path.name}, {self.name}: {what}", flush=True)
        return self.folder.read_json(name)

    def accuracies(self, clusterings: Mapping[str, Any]) -> Accuracies:
        """What the judge makes of some clusterings."""
        study = self.study
        judged = judge_all(clusterings, self.judge, self.judge.eligible, *study.matched_by, self.seed, TRIALS)
        return {
            distractors: {name: one.accuracy_C.tolist() for name, one in by_name.items()}
            for distractors, by_name in judged.items()
            if distractors in ("any", MATCHED)
        }

    def judged(self, method: str) -> dict[str, Any]:
        """Interaction and its baselines by one method; of planted text the AMI with its factors as well."""

        def make() -> dict[str, Any]:
            found = cluster_all(self.similarities, method, self.study.n_latents, self.seed)
            factor_L = self.study.planted_factor_L
            ami = {} if factor_L is None else {n: planted_ami(c, factor_L) for n, c in found.items()}
            return {"accuracies": self.accuracies(found), "ami": ami}

        return self.kept(method, make)

    def stability(self, method: str) -> dict[str, Any]:
        """How alike clusters by interaction are, of other seeds and of redrawn documents."""

        def make() -> dict[str, Any]:
            similarity, n_latents, seed = self.similarities[INTERACTION], self.study.n_latents, self.seed
            ours = find_clusters(similarity, method, n_latents, seed)
            normaliser, seeds = self.study.normaliser, range(seed, seed + RESAMPLES)
            redrawn = (self.study.matrix, normaliser, method, ours, seed, RESAMPLES)
            return {
                "count": ours.count,
                "converged": ours.converged,
                "seeds": stability_over_seeds(similarity, method, n_latents, seeds),
                "documents": stability_over_documents(*redrawn),
            }

        return self.kept(f"{method}.stability", make)

    def clustered(self, similarities: Mapping[str, Similarity]) -> Accuracies:
        """What the judge makes of the clusters of some similarities, by the default method."""
        method = ClusterSettings().method
        return self.accuracies(
            {n: find_clusters(s, method, self.study.n_latents, self.seed) for n, s in similarities.items()}
        )

    def sites(self) -> Accuracies:
        """Clusters by each site's pairs, and by all of them together."""

        def make() -> Accuracies:
            interact_missing(self.folder, self.name)
            found: dict[str, Similarity] = {}
            chosen: list[tuple[Site, ...]] = [*((site,) for site in SITES), SITES]
            for sites in chosen:
                settings = ClusterSettings(crosscoder=self.name, sites=sites)
                found[" + ".join(sites)] = cluster_study(Workbench(self.folder, "cpu"), settings).interaction
            return self.clustered(found)

        return self.kept("sites", make)

    def affinities(self) -> Accuracies:
        """Clusters by other affinities from the same interactions."""
        return self.kept("affinities", lambda: self.clustered(affinities(self.study)))


def interact_missing(folder: xtalk.RunFolder, name: str) -> None:
    """Measure pairs in attention and norms where a run lacks them."""
    missing = [s for s in SITES if not folder.file(layout.pairs(name, s)).exists()]
    if missing:
        xtalk.Run(folder.path).interact(missing, [name])


def main(argv: Sequence[str] | None = None) -> None:
    """Do what is missing, then write the page."""
    parser = pages.parser(__doc__)
    add_arguments(parser)
    parser.add_argument("--planted", type=Path, required=True, help="folder of the planted models and runs")
    parser.add_argument("--page", type=Path, default=Path("docs/clusters.md"))
    args = parser.parse_args(argv)

    folders, planted = text_runs(args), planted_runs(args.planted)
    for folder in folders:
        xtalk.Run(folder.path).dormant()
    by_text = {name: [Seed(folder, name) for folder in folders] for name in CROSSCODERS}
    by_truth = {"planted": [Seed(folder, CROSSCODERS[0]) for folder in planted]}
    judged, truth = (
        {
            name: {method: [seed.judged(method) for seed in seeds] for method in METHODS}
            for name, seeds in group
        }
        for group in (by_text.items(), by_truth.items())
    )
    sparse = by_text[CROSSCODERS[-1]]
    written = page(
        command=command("clusters.clusters", args),
        text=f"{args.label}; the model is `embedded`, {sizes(folders)}",
        judged=judged,
        truth=truth,
        stability={
            name: {method: [seed.stability(method) for seed in seeds] for method in METHODS}
            for name, seeds in by_text.items()
        },
        sites=[seed.sites() for seed in sparse],
        affinities={name: [seed.affinities() for seed in seeds] for name, seeds in by_text.items()},
        dormant=[folder.read_json(layout.DORMANT) for folder in folders],
        maps=[folder.read_json(layout.CLUSTER_MAP) for folder in folders],
    )
    args.page.write_text(written)
    print(json.dumps({"page": str(args.page), "seeds": len(folders), "planted": len(planted)}))


if __name__ == "__main__":
    main()
