"""Run the study behind docs/results-smollm2.md, on a folder of SmolLM2-135M-Instruct, and write the page.

    python -m studies.real.smollm2 --model FOLDER --text train.jsonl --held-out-text test.jsonl --out RUNS

RUNS/seed-0, ... are runs at one MLP; RUNS/three-blocks is what `xtalk run` does by itself, at three MLPs.
Each is resumable as any run: the same command goes on where it was stopped, and when all is there only writes
the page again. About an hour and a half of one core.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xtalk
from studies import pages
from studies.results.results import PENALTIES
from xtalk.progress import progress_bars
from xtalk.runs import layout
from xtalk.runs.presets import PRESETS

POINT, LATENTS, STEPS, TOKENS = "blocks.15.ln2", 2048, 300, 4096
CROSSCODERS = {
    "unpenalised": {},
    "paper-300": PENALTIES["paper-300"],
    "sparse": PRESETS["own"]["crosscoders"][1]["penalties"],
}
CLUSTERED = "sparse"
SCHEMES = {
    "full": "all features",
    "keep_1": "one feature per neuron",
    "keep_2": "two",
    "keep_4": "four",
    "keep_8": "eight",
    "keep_random": "control: one random active feature",
    "keep_most_active": "control: the token's most active feature",
    "shrink": "control: all shrunk alike",
}
GENERAL = {
    "dominant_share": "dominant share",
    "interaction": "T",
    "fvu": "FVU",
    "l0": "L0",
    "dead": "dead latents",
    "tokens_per_second": "tokens per second in training, on a busy core",
}
SIMILARITIES = {
    "interaction": "interaction",
    "activation": "activation, cosine",
    "coactivation": "co-activation",
    "decoder": "decoder cosine",
    "random": "random",
}
DISTRACTORS = {"any": "any", "rate": "as often active", "coactivation": "as often active together"}


def config(args: argparse.Namespace, seed: int) -> xtalk.RunConfig:
    """The configuration of one seed, at one MLP."""
    return xtalk.preset(
        "own",
        seed=seed,
        model=args.model,
        text=args.text,
        held_out_text=args.held_out_text,
        hookpoints=(POINT,),
        crosscoder={"d_sae": LATENTS},
        training={"steps": STEPS},
        evaluation={"tokens": TOKENS},
        crosscoders=[{"name": name, "penalties": given} for name, given in CROSSCODERS.items()],
    )


def three_blocks(args: argparse.Namespace) -> xtalk.RunConfig:
    """What `xtalk run --model --text` does by itself."""
    return xtalk.preset("own", model=args.model, text=args.text)


def fidelities(metrics: Mapping[str, Any], block: int | str) -> dict[str, dict[str, Any]]:
    """A run's fidelities at one block against its mean output, by crosscoder."""
    wanted = {"block": block, "resid_mid": "model", "baseline": "mean"}
    return {
        crosscoder["name"]: next(row for row in crosscoder["fidelity"] if row.items() >= wanted.items())
        for crosscoder in metrics["crosscoders"]
    }


def one_mlp(seeds: list[dict[str, Any]], block: int) -> str:
    """A column for each crosscoder, a row for each figure, over seeds."""
    found = [fidelities(metrics, block) for metrics in seeds]
    general = [{one["name"]: one for one in metrics["crosscoders"]} for metrics in seeds]
    rows = [
        [f"Phi, {words}", *(pages.over_seeds([f[name][scheme] for f in found]) for name in CROSSCODERS)]
        for scheme, words in SCHEMES.items()
    ]
    rows += [
        [
            f"nats lost, {SCHEMES[scheme]}",
            *(pages.over_seeds([f[name]["lost"][scheme][0] for f in found], 3) for name in CROSSCODERS),
        ]
        for scheme in ("full", "keep_1")
    ]
    rows += [
        [
            words,
            *(
                pages.over_seeds([float(g[name][key]) for g in general], 2 if key in _FRACTIONS else 0)
                for name in CROSSCODERS
            ),
        ]
        for key, words in GENERAL.items()
    ]
    return pages.table(["", *CROSSCODERS], rows)


_AT_ONCE = {"all": "all at once", "all_with_0": "all at once, with block 0"}
_FRACTIONS = ("dominant_share", "fvu")


def several_mlps(metrics: Mapping[str, Any]) -> str:
    """The run at three MLPs: each of them, and all at once."""
    blocks = [
        row["block"]
        for row in metrics["crosscoders"][0]["fidelity"]
        if (row["resid_mid"], row["baseline"]) == ("model", "mean")
    ]

    def cells(row: Mapping[str, Any]) -> list[str]:
        return [
            f"{row[scheme]:.2f} [{low:.2f}, {high:.2f}], {row['lost'][scheme][0]:.3f} nat"
            for scheme in ("full", "keep_1")
            for low, high in [row["ci95"][scheme]]
        ]

    rows = [
        [
            _AT_ONCE.get(str(block), f"block {block}"),
            name,
            *cells(row),
        ]
        for block in blocks
        for name, row in fidelities(metrics, block).items()
    ]
    return pages.table(["MLP", "crosscoder", "all features", "one feature per neuron"], rows)


def clusters(seeds: list[dict[str, Any]]) -> str:
    """What the offline judge makes of clusters by each similarity: accuracy at each kind of distractors."""
    rows = [
        [
            words,
            *(
                pages.over_seeds([one["accuracy"][kind][similarity][0] for one in seeds])
                for kind in DISTRACTORS
            ),
        ]
        for similarity, words in SIMILARITIES.items()
    ]
    return pages.table(["clusters by", *DISTRACTORS.values()], rows)


def page(runs: list[xtalk.RunFolder], wide: xtalk.RunFolder) -> str:
    """docs/results-smollm2.md."""
    seeds = [folder.read_json(layout.METRICS) for folder in runs]
    of_three = wide.read_json(layout.METRICS)
    block = int(POINT.split(".")[1])
    model, counted = seeds[0]["model"], seeds[0]["counted"]
    ablated = fidelities(seeds[0], block)["unpenalised"]["ablation"][0]
    clustered = [folder.read_json(layout.CLUSTERS) for folder in runs]
    weights = "\n".join(
        f"- **{name}**: " + (", ".join(f"{key} {weight:g}" for key, weight in given.items()) or "none")
        for name, given in CROSSCODERS.items()
    )
    return f"""# A real model

SmolLM2-135M-Instruct (30 blocks, gated MLPs, RMSNorm, {model["n_params"] / 1e6:.1f} M parameters),
TinyStories; made by

    make page-results-smollm2 ARGS='--model FOLDER --text train.jsonl --held-out-text test.jsonl --out RUNS'

## One MLP, {len(runs)} seeds

Crosscoders of {LATENTS:,} latents, K 32, at the input of the MLP of block {block}; {STEPS} steps of 512
tokens ({STEPS * 512 / 1e6:.2f} M) each. Evaluated on {counted["counted"]:,} held-out tokens of other
documents; the first position of every sequence is left out, for its norm is out of all proportion. The
model loses {model["ce"]:.3f} nat per token, and {ablated:.3f} more with this MLP's mean output in its
place. Mean over seeds ± half the 95 % interval over seeds (Student's t). Phi is 1 for the model itself
and 0 for the MLP replaced by its mean output.

{weights}

{one_mlp(seeds, block)}

## Three MLPs, one seed

What `xtalk run --model FOLDER --text FILE` does by itself: three MLPs, a quarter, half and three quarters
of the way; {wide.config.crosscoder.d_sae:,} latents, {wide.config.training.steps} steps. Intervals are
over documents.

{several_mlps(of_three)}

## Clusters

By the interactions of {CLUSTERED}, as [clusters.md](clusters.md) has it: how often the offline judge
tells a cluster's held-out member from four distractors (chance 0.20), mean over seeds ± half the 95 %
interval over seeds. Distractors are any latents, such as are as often active, or such as are as often
active together with the members shown.

{clusters(clustered)}

{FOUND}"""


FOUND = """## What was hard

The first position's activations are a hundred times the others', so that it is left out everywhere. Penalties
that run the model on take nine tenths of the time of training: half of the model, and 49,152 logits for each
token. At one block out of thirty ablation costs less than a tenth of a nat, so that Phi has wide intervals
over documents.

Which measure predicts interventions in this model, one dictionary a place: [measure.md](measure.md).
Not done: more tokens, other texts, all thirty MLPs, other weights of the paper's penalty.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--model", required=True, help="a Hugging Face folder of the model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--held-out-text", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"))
    parser.add_argument("--page", type=Path, default=Path("docs/results-smollm2.md"))
    args = parser.parse_args(argv)
    folders: list[xtalk.RunFolder] = []
    with progress_bars() as progress:
        for seed in args.seeds:
            run = xtalk.Run(args.out / f"seed-{seed}", config(args, seed), progress=progress)
            run.evaluate()
            run.cluster()
            folders.append(run.folder)
        wide = xtalk.Run(args.out / "three-blocks", three_blocks(args), progress=progress)
        wide.evaluate()
    args.page.write_text(page(folders, wide.folder))
    print(f"{args.page}: {len(folders)} seeds")


if __name__ == "__main__":
    main()
