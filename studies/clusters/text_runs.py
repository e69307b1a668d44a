"""The runs behind docs/clusters.md and docs/validation.md: what of them is not there yet is made.

RUNS/seed-0, ... are runs of the quick preset on a text of your own, without its `paper-300`, with twice its
steps and evaluated tokens. PLANTED/seed-0, ... hold a small language model of planted text each, and a run
on it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import xtalk
from studies.embedded import train_planted
from xtalk.runs.presets import PRESETS

CROSSCODERS = ("unpenalised", "sparse")
SEEDS = range(3)
PLANTED_STEPS = 300  # after half of them the planted model predicts every word that a rule determines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say where runs are and what they are on."""
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, one per seed")
    parser.add_argument("--text", help="to train crosscoders on, for runs that are not there yet")
    parser.add_argument("--held-out-text", help="to measure, intervene and judge on")
    parser.add_argument("--label", default="the embedded text", help="the text, in words, for the page")


def text_runs(args: argparse.Namespace) -> list[xtalk.RunFolder]:
    """The runs of `--runs`, up to their pair interactions; made if there is none and a text is given."""
    if args.text is None:
        folders = [xtalk.RunFolder.open(path) for path in sorted(args.runs.glob("seed-*"))]
    else:
        folders = [_text_run(args.runs / f"seed-{seed}", args, seed) for seed in SEEDS]
    if len(folders) < 2:
        raise SystemExit(f"{len(folders)} runs in {args.runs}; the pages need two seeds or more, or a --text")
    for folder in folders:
        _up_to_interactions(folder)
    return folders


def _text_run(path: Path, args: argparse.Namespace, seed: int) -> xtalk.RunFolder:
    specs = {spec["name"]: spec for spec in PRESETS["quick"]["crosscoders"]}
    config = xtalk.preset(
        "quick",
        seed=seed,
        text=args.text,
        held_out_text=args.held_out_text,
        training={"steps": 1000},
        evaluation={"tokens": 16384},
        crosscoders=[specs[name] for name in CROSSCODERS],
    )
    return xtalk.RunFolder.create(path, config)


def planted_runs(place: Path) -> list[xtalk.RunFolder]:
    """A run on the planted model of each seed, up to its pair interactions."""
    return [_planted_run(place / f"seed-{seed}", seed) for seed in SEEDS]


def _planted_run(path: Path, seed: int) -> xtalk.RunFolder:
    if not (path / "text.jsonl").exists():
        train_planted.main(["--out", str(path), "--seed", str(seed), "--steps", str(PLANTED_STEPS)])
    config = xtalk.preset(
        "quick",
        seed=seed,
        model=str(path / "model"),
        text=str(path / "text.jsonl"),
        sequence_length=64,
        crosscoder={"d_sae": 256, "k": 12},
        training={"steps": 1000},
        crosscoders=[{"name": "unpenalised", "penalties": {}}],
    )
    folder = xtalk.RunFolder.create(path / "run", config)
    _up_to_interactions(folder)
    return folder


def _up_to_interactions(folder: xtalk.RunFolder) -> None:
    xtalk.Run(folder.path).interact()


def command(study: str, args: argparse.Namespace) -> str:
    """The command that a page says it was made by: of runs that it made itself, or that were there."""
    planted = " --planted PLANTED" if "planted" in args else ""
    texts = "" if args.text is None else " --text train.jsonl --held-out-text test.jsonl"
    names = getattr(args, "crosscoders", CROSSCODERS)
    chosen = "" if tuple(names) == CROSSCODERS else f" --crosscoders {' '.join(names)}"
    return f"python -m studies.{study} --runs RUNS{planted}{texts}{chosen}"


def sizes(folders: Sequence[xtalk.RunFolder]) -> str:
    """In words: the crosscoders of the runs, and what they were trained on."""
    config = folders[0].config
    tokens = config.training.steps * config.training.batch_tokens / 1e6
    return f"{config.crosscoder.d_sae:,} latents, K {config.crosscoder.k}, trained on {tokens:.1f} M tokens"
