"""Change one thing at a time in how crosscoders are trained, and write docs/results-variations.md.

    python -m studies.results.variations --text stories.jsonl --held-out-text held_out.jsonl \
        --out runs/variations

Every variation is a run folder of one seed with one crosscoder trained and evaluated. The same command goes
on where it was stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xtalk
from studies import pages
from studies.results.results import PENALTIES, SEQUENCE
from studies.results.rows import Row, evaluate, figures

BASE: dict[str, Any] = {
    "latents": 1024,
    "k": 64,
    "steps": 700,
    "penalties": "unpenalised",
    "training": {},
    "hookpoints": None,
}
FEW = {"penalties": "sparse", "k": 4}
INPUTS = {"hookpoints": [f"blocks.{block}.ln2" for block in range(4)]}  # of the embedded model


def counts(weight: float) -> dict[str, Any]:
    """The weight of resid_mid in the reconstruction."""
    return {"training": {"recon_weights": {"resid_mid": weight}}}


VARIATIONS: dict[str, dict[str, Any]] = {
    "unpenalised": {},
    "unpenalised, 2,048 latents": {"latents": 2048},
    "unpenalised, resid_mid counts 4": counts(4.0),
    "unpenalised, resid_mid counts 16": counts(16.0),
    "sparse, K 4": FEW,
    "sparse, K 4, MLP inputs alone": FEW | INPUTS,
    "sparse, K 4, MLP inputs alone, 8,192 latents": FEW | INPUTS | {"latents": 8192},
}
BATCH = 512
SCHEMES = ("full", "keep_1")


def configuration(args: argparse.Namespace, change: dict[str, Any]) -> xtalk.RunConfig:
    """The configuration of one variation."""
    given = BASE | change
    return xtalk.preset(
        "quick",
        seed=args.seed,
        text=args.text,
        held_out_text=args.held_out_text,
        harvest={"buffer_sequences": BATCH // SEQUENCE},
        sequence_length=SEQUENCE,
        hookpoints=given["hookpoints"],
        crosscoder={"d_sae": given["latents"], "k": given["k"]},
        training={"steps": given["steps"], "batch_tokens": BATCH, **given["training"]},
        evaluation={"tokens": 8192},
        crosscoders=[{"name": name, "penalties": PENALTIES[name]} for name in _named(given)],
    )


def _named(given: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(["unpenalised", given["penalties"]]))  # no run is without the first


def page(args: argparse.Namespace, found: dict[str, Row]) -> str:
    """docs/results-variations.md."""
    columns = {f"{scheme}/{of}": ".2f" for of in ("model", "crosscoder") for scheme in SCHEMES}
    columns |= {"dominant_share": ".2f", "interaction": ".0f", "fvu": ".2f", "dead": ".0f"}
    rows = "\n".join(
        f"| {name} | "
        + " | ".join(format(row[key], form) if key in row else "-" for key, form in columns.items())
        + " |"
        for name, row in found.items()
    )
    return f"""# One change at a time

Measured, on held-out text; ONE seed ({args.seed}), so a difference of a few hundredths says nothing. Made by
`studies/results/variations.py`. Text: {args.label}. If a row says nothing else: {BASE["latents"]:,} latents,
K {BASE["k"]}, {BASE["steps"]} steps of {BATCH} tokens ({BASE["steps"] * BATCH / 1e6:.2f} M),
short against the 2.5 M of [results.md](results.md), whose penalties `sparse` has.
Fidelities are Phi_mean, mean over all blocks but the
first. *resid_mid counts 4*: its weight in the reconstruction (`training.recon_weights`), where every other
hookpoint counts 1; *MLP inputs alone*: the crosscoder has no other hookpoints, hence no resid_mid.

*Rebuilt*: resid_mid from the crosscoder as well.

| crosscoder | full | keep-one | full, rebuilt | keep-one, rebuilt | share | T | FVU | dead |
|---|---|---|---|---|---|---|---|---|
{rows}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Do what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--text", default="embedded")
    parser.add_argument("--held-out-text", default=None, help="default: a part of --text, by document")
    parser.add_argument("--label", default="the embedded text", help="the text, in words, for the page")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(VARIATIONS), default=list(VARIATIONS))
    parser.add_argument("--out", type=Path, default=Path("runs/variations"))
    parser.add_argument("--page", type=Path, default=Path("docs/results-variations.md"))
    args = parser.parse_args(argv)
    found: dict[str, Row] = {}
    for name in args.only:
        folder = xtalk.RunFolder.create(args.out / name, configuration(args, VARIATIONS[name]))
        crosscoder = folder.config.crosscoders[-1].name
        evaluate(folder, crosscoder)
        found[name] = figures(folder, crosscoder)
        print(name, found[name], flush=True)
    args.page.write_text(page(args, found))


if __name__ == "__main__":
    main()
