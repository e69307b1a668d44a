"""Train variants of crosscoders at the MLPs' inputs, and draw how much of the model they keep at which share.

    python -m studies.results.frontier --text stories.jsonl --held-out-text held_out.jsonl \
        --out runs/frontier
    python -m studies.results.frontier ... --only nested --seed 1  # one variant, one seed
    python -m studies.results.frontier ... --taken runs/mine runs/other  # runs of `xtalk run` beside them

Variants are entries of a YAML file (frontier.yaml; --variants names another): keys of a run's configuration,
and the weights of penalties. Every variant and seed is a run folder of its own, OUT/VARIANT/seed-S, that goes
on where it was stopped. Its figures are kept (docs/data/frontier.json; --data): what is there is not trained
again, unless the variant has changed, and the page has all of it.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import xtalk
from studies import pages
from studies.results.rows import Row, cell, evaluate, figures, frontier, is_evaluated
from xtalk.errors import XtalkError
from xtalk.files import write_text
from xtalk.runs.config import UNPENALISED, merged

VARIANTS = Path(__file__).with_suffix(".yaml")
FEW = ("keep_1", "keep_2", "keep_4", "keep_8", "full")
REBUILT = """
On top of the crosscoder's own `resid_mid`. keep_random, a random active feature's contribution, is the
control: where it is far above the same on the model's own `resid_mid` (the last two columns), the
reconstructed stream does the MLP's work before the MLP.

{table}
"""


def read_variants(file: Path) -> dict[str, dict[str, Any]]:
    """By name, keys of a configuration and `penalties`. Errors: XtalkError for a file without variants."""
    content = yaml.safe_load(file.read_text())
    if not isinstance(content, Mapping) or not content.get("variants"):
        raise XtalkError(f"{file} has no entry `variants`; expected names, each with keys of a configuration")
    shared: dict[str, Any] = content.get("all", {})
    return {name: merged(shared, given) for name, given in content["variants"].items()}


def configuration(
    args: argparse.Namespace, name: str, variant: Mapping[str, Any], seed: int
) -> xtalk.RunConfig:
    """The configuration of one variant and seed; batches are whole sequences, cheapest to splice."""
    changes = {key: value for key, value in variant.items() if key != "penalties"}
    sequences = max(1, changes["training"]["batch_tokens"] // changes["sequence_length"])
    specs = [{"name": UNPENALISED, "penalties": {}}]  # no run is without it; it is trained if asked for
    if name != UNPENALISED:
        specs.append({"name": name, "penalties": variant["penalties"]})
    texts = {"model": args.model, "text": args.text, "held_out_text": args.held_out_text}
    own = {"seed": seed, "harvest": {"buffer_sequences": sequences}, "crosscoders": specs}
    return xtalk.preset("quick", **merged(own | texts, changes))


class Data:
    """The rows of variants by seed, in a file that keeps each at once."""

    def __init__(self, file: Path, variants: Mapping[str, Mapping[str, Any]]) -> None:
        """Rows of variants that are no longer what they were are left out."""
        self._file, self._variants = file, json.loads(json.dumps(variants))
        kept = json.loads(file.read_text()) if file.exists() else {}
        self._kept = {
            name: kept[name]
            for name, variant in self._variants.items()
            if name in kept and kept[name]["variant"] == variant
        }

    def has(self, name: str, seed: int) -> bool:
        """Whether a variant's row of a seed is there."""
        return str(seed) in self._kept.get(name, {"rows": {}})["rows"]

    def keep(self, name: str, seed: int, row: Row) -> None:
        """Keep a row."""
        of_variant = self._kept.setdefault(name, {"variant": self._variants[name], "rows": {}})
        of_variant["rows"][str(seed)] = dict(row)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._file, json.dumps(self._kept, indent=1) + "\n")

    def rows(self) -> dict[str, list[Row]]:
        """All rows over seeds, variants in the order of their file."""
        names = [name for name in self._variants if name in self._kept]
        return {name: [row for _, row in sorted(self._kept[name]["rows"].items())] for name in names}


def taken(folders: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The rows of runs made by `xtalk run`, each crosscoder by its name and the size of its run."""
    for path in folders:
        folder = xtalk.RunFolder.open(path)
        for spec in folder.config.crosscoders:
            if is_evaluated(folder, spec.name):
                row = figures(folder, spec.name)
                size = f"{row['latents']:,.0f} latents, K {row['k']:.0f}, {row['tokens'] / 1e6:.2f} M tokens"
                yield f"{spec.name} ({size})", row


def page(args: argparse.Namespace, found: Mapping[str, Sequence[Row]], config: xtalk.RunConfig) -> str:
    """docs/results-frontier.md."""

    def table(columns: Mapping[str, tuple[str, int]], of: Iterable[str] = found) -> str:
        rows = ([name, *(cell(found[name], key, digits) for key, digits in columns.values())] for name in of)
        return pages.table(["crosscoder", *columns], rows)

    alone = {scheme: (f"{scheme}/model", 3) for scheme in FEW}
    on_rebuilt = {scheme: (f"{scheme}/crosscoder", 3) for scheme in (*FEW, "keep_random")}
    on_rebuilt |= {f"{scheme}, model's": (f"{scheme}/model", 3) for scheme in ("keep_1", "keep_random")}
    rebuilding = [name for name, rows in found.items() if "full/crosscoder" in rows[0]]
    rebuilt = REBUILT.format(table=table(on_rebuilt, rebuilding)) if rebuilding else ""
    together = {f"{scheme}, all": (f"{scheme}/all", 3) for scheme in ("keep_1", "full")}
    together |= {f"{scheme}, with block 0": (f"{scheme}/all_with_0", 3) for scheme in ("keep_1", "full")}
    general = {"share": ("dominant_share", 3), "T": ("interaction", 0), "FVU": ("fvu", 3), "L0": ("l0", 1)}
    cost = {key: (key, 0) for key in ("latents", "dead", "tokens", "seconds")}
    penalties = "\n".join(
        f"- **{name}**: " + (", ".join(f"{key} {weight:g}" for key, weight in given.items()) or "none")
        for name, given in ((n, v["penalties"]) for n, v in read_variants(args.variants).items())
        if name in found
    )
    seeds = "; ".join(f"{name} {len(rows)}" for name, rows in found.items())
    return f"""# How much is kept, at which share

Measured, on held-out text; means over seeds ± half the 95 % interval, where there are several. Fidelities
are Phi_mean: 1 is the model itself, 0 is the MLP replaced by its mean output; mean over all blocks but the
first, resid_mid from the model. Model: `{args.model}`; text: {args.label}. {config.evaluation.tokens} tokens
evaluated. Made by `studies/results/frontier.py`; variants are in its `frontier.yaml`.
Seeds: {seeds}. Penalties:

{penalties}

## One MLP rebuilt at a time, from m features for each token and neuron

{table(alone)}
{rebuilt}
## All MLPs rebuilt at once

{table(together)}

## Interaction and reconstruction

{table(general)}

## Size and cost

Seconds are those of training, on the machine that made the row:

{table(cost)}

![Fidelity and interaction against dominant share](figures/{args.page.stem}.png)
"""


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options given."""
    parser = pages.parser(__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--text", default="embedded")
    parser.add_argument("--held-out-text", default=None, help="default: a part of --text, by document")
    parser.add_argument("--label", default="the embedded text", help="the text, in words, for the page")
    parser.add_argument("--variants", type=Path, default=VARIANTS)
    parser.add_argument("--only", nargs="*", default=None, help="variants to train; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--taken", type=Path, nargs="+", default=[], help="folders of finished runs")
    parser.add_argument("--out", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--data", type=Path, default=Path("docs/data/frontier.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/results-frontier.md"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the page."""
    args = options(argv)
    variants = read_variants(args.variants)
    chosen = list(variants) if args.only is None else args.only
    if unknown := set(chosen) - variants.keys():
        raise XtalkError(f"no variant {min(unknown)!r} in {args.variants}; it has {', '.join(variants)}")
    data = Data(args.data, variants)
    for seed in args.seeds:
        for name in chosen:
            if data.has(name, seed):
                continue
            config = configuration(args, name, variants[name], seed)
            folder = xtalk.RunFolder.create(args.out / name / f"seed-{seed}", config)
            evaluate(folder, name)
            data.keep(name, seed, figures(folder, name))
            print(name, seed, dict(figures(folder, name)), flush=True)
    found = data.rows()
    for label, row in taken(args.taken):
        found.setdefault(label, []).append(row)
    if not found:
        raise XtalkError("nothing is evaluated; name a variant, or finished runs (--taken)")
    drawn = args.page.parent / "figures" / f"{args.page.stem}.png"
    drawn.parent.mkdir(parents=True, exist_ok=True)
    frontier(found).savefig(drawn, dpi=200)
    config = configuration(args, *next(iter(variants.items())), args.seeds[0])
    args.page.write_text(page(args, found, config))
    print(f"{args.page}: {len(found)} variants")


if __name__ == "__main__":
    main()
