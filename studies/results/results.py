"""Run the study behind docs/results.md, several seeds of it, and write the page and its figure.

    python -m studies.results.results --text stories.jsonl --held-out-text held_out.jsonl \
        --out runs/results --crosscoders unpenalised sparse
    python -m studies.results.results ... --out runs/sweep --page docs/results-sweep.md \
        --latents 1024 -k 20 --steps 700 --batch-tokens 512 \
        --crosscoders unpenalised paper-30 paper-300 paper-3000 sparse sparse-1000
    python -m studies.results.results --out runs/embedded --page docs/results-embedded.md \
        --latents 1024 -k 32 --steps 500 --batch-tokens 512 \
        --crosscoders unpenalised sparse  # on the embedded text

Each seed is a run folder of its own (`RUNS/seed-0`, ...), resumable as any run: the same command goes on
where it was stopped, and when all is there only writes the page again.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import xtalk
from studies import pages
from studies.results.rows import Row, figures, frontier
from xtalk.progress import progress_bars

_SPARSE = {"keep_one": 16.0, "full_sum": 6.0, "keep_one_kl": 44.0, "full_sum_kl": 12.0}
PENALTIES: dict[str, dict[str, float]] = {
    "unpenalised": {},
    "paper-30": {"sum_minus_max": 30.0},
    "paper-300": {"sum_minus_max": 300.0},
    "paper-3000": {"sum_minus_max": 3000.0},
    "sparse": _SPARSE,
    "sparse-1000": _SPARSE | {"sum_minus_max": 1000.0},
    "sparse-resid": _SPARSE | {"keep_one_kl_resid": 16.0, "full_sum_kl_resid": 16.0},
}
SEQUENCE = 256
SCHEMES = ("full", "keep_1", "keep_2", "keep_4", "keep_8", "keep_random", "keep_most_active", "shrink")


def study(args: argparse.Namespace, seed: int) -> xtalk.RunConfig:
    """The configuration of one seed."""
    return xtalk.preset(
        "quick",
        seed=seed,
        model=args.model,
        text=args.text,
        held_out_text=args.held_out_text,
        harvest={"buffer_sequences": args.batch_tokens // SEQUENCE},  # whole sequences: cheapest to splice
        sequence_length=SEQUENCE,
        crosscoder={"d_sae": args.latents, "k": args.k},
        training={"steps": args.steps, "batch_tokens": args.batch_tokens},
        evaluation={"tokens": args.evaluation_tokens},
        crosscoders=[{"name": name, "penalties": PENALTIES[name]} for name in args.crosscoders],
    )


def table(runs: Sequence[Mapping[str, Row]], columns: dict[str, str]) -> str:
    """A row per crosscoder; columns: heading -> key."""
    rows = (
        [name, *(pages.over_seeds([run[name][key] for run in runs]) for key in columns.values())]
        for name in runs[0]
    )
    return pages.table(["crosscoder", *columns], rows)


def page(args: argparse.Namespace, runs: Sequence[Mapping[str, Row]], config: xtalk.RunConfig) -> str:
    """docs/results.md."""
    tokens = config.training.steps * config.training.batch_tokens
    weights = "\n".join(
        f"- **{name}**: " + (", ".join(f"{key} {weight:g}" for key, weight in given.items()) or "none")
        for name, given in ((name, PENALTIES[name]) for name in args.crosscoders)
    )
    by_model = {"full": "full/model", **{s: f"{s}/model" for s in SCHEMES[1:5]}}
    controls = {s: f"{s}/model" for s in SCHEMES[5:]}
    by_crosscoder = {s: f"{s}/crosscoder" for s in SCHEMES[:5]}
    general = {"share": "dominant_share", "T": "interaction", "FVU": "fvu", "L0": "l0", "dead": "dead"}
    over = (
        "one seed" if len(runs) == 1 else f"mean over {len(runs)} seeds ± half the 95 % interval over seeds"
    )
    return f"""# Results

Measured, on held-out text; {over}. Fidelities
are Phi_mean: 1 is the model itself, 0 is the MLP replaced by its mean output, below 0 is worse; mean
over all blocks but the first. Model: `{args.model}`; text: {args.label}. {config.crosscoder.d_sae} latents,
K {config.crosscoder.k}, {config.training.steps} steps of {config.training.batch_tokens} tokens
({tokens / 1e6:.1f} M), {config.evaluation.tokens} tokens evaluated. Made by `studies/results/results.py`.
Penalties:

{weights}

## The MLP rebuilt from m features per token and neuron, resid_mid from the model

{table(runs, by_model)}

## Controls

A random active feature per neuron, the token's most active latent for all neurons, and all contributions
shrunk by the mean dominant share without choosing:

{table(runs, controls)}

## The same, resid_mid from the crosscoder

{table(runs, by_crosscoder)}

## Interaction and reconstruction

Dominant share, interaction T (mean per token), fraction of variance unexplained over all hookpoints, active
latents per token, dead latents:

{table(runs, general)}

![Fidelity and interaction against dominant share](figures/{args.page.stem}.png)
"""


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options given."""
    parser = pages.parser(__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--text", default="embedded")
    parser.add_argument("--held-out-text", default=None, help="default: a part of --text, by document")
    parser.add_argument("--label", default="the embedded text", help="the text, in words, for the page")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2440)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--latents", type=int, default=2048)
    parser.add_argument("-k", type=int, default=64)
    parser.add_argument("--evaluation-tokens", type=int, default=8192)
    parser.add_argument("--crosscoders", nargs="+", choices=list(PENALTIES), default=list(PENALTIES))
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the page."""
    args = options(argv)
    runs: list[Mapping[str, Row]] = []
    for seed in args.seeds:
        with progress_bars() as progress:
            run = xtalk.Run(args.out / f"seed-{seed}", study(args, seed), progress=progress)
            run.evaluate()
        runs.append({name: figures(run.folder, name) for name in args.crosscoders})
    drawn = args.page.parent / "figures" / f"{args.page.stem}.png"
    drawn.parent.mkdir(parents=True, exist_ok=True)
    frontier({name: [run[name] for run in runs] for name in runs[0]}).savefig(drawn, dpi=200)
    args.page.write_text(page(args, runs, study(args, args.seeds[0])))
    print(f"{args.page}: {len(runs)} seeds, {len(args.crosscoders)} crosscoders each")


if __name__ == "__main__":
    main()
