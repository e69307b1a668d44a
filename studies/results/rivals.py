"""Other ways to sparse computation beside ours, on the same model, places, tokens, latents and K.

    python -m studies.results.rivals --text stories.jsonl --held-out-text held_out.jsonl --out runs/rivals

Every method trains one dictionary for the input of each MLP but block 0's, whose fidelity is not counted;
all of a method are then read as one (`xtalk.stack`). Each is read with a threshold that is calibrated for K
active latents on average, also those trained by TopK, so that all are read alike. Edges
(studies/results/edges.py) need a dictionary of each MLP's output too: Jacobian SAEs have their own, all the
rest share a plain TopK one; these are read by TopK, as they were trained. The same command goes on where it
was stopped: what is trained and measured is kept in OUT/METHOD/seed-S. The page has all that is measured,
also by earlier calls, between its marks `measured`; what stands around them stays.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import xtalk
from studies import pages
from studies.results.edges import MlpEdges, edge_score
from studies.results.jacobian import MlpOutputs, train_pair, unit_jacobian
from studies.results.results import PENALTIES
from studies.results.rows import Row, cell, measured
from xtalk.activations import ActivationBatches, Harvest, Scaling
from xtalk.api.inputs import sequences_of
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.saving import CFG
from xtalk.data import Counted, TokenSequences, read_documents
from xtalk.files import write_text
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel
from xtalk.models.mlp import MlpWeights
from xtalk.training.config import TrainingConfig, calibration_tokens
from xtalk.training.quick import train_on
from xtalk.training.train import calibrate_threshold

SEQUENCE = 256
OUTPUTS = "outputs"  # the plain dictionaries of the MLPs' outputs
FEW = (1, 4)  # edges for each output latent and token
ABOVE = 0.01  # the size of an entry of the Jacobian that counts as one
COUNTED = Counted()
_CHARACTERS = 100_000_000
_BATCH = 512  # tokens, in which thresholds are calibrated


@dataclass(frozen=True)
class Method:
    """How a dictionary of an MLP's input is trained; jacobian: weight of the Jacobian penalty, None: none."""

    architecture: str
    penalties: Mapping[str, float] = field(default_factory=dict[str, float])
    jacobian: float | None = None


METHODS = {
    "topk": Method("topk"),
    "batchtopk": Method("batchtopk"),
    "paper-30": Method("batchtopk", PENALTIES["paper-30"]),
    "sparse": Method("batchtopk", PENALTIES["sparse"]),
    "jacobian-32": Method("topk", jacobian=32.0),
    "jacobian-128": Method("topk", jacobian=128.0),
    "jacobian-1024": Method("topk", jacobian=1024.0),
}


@dataclass(frozen=True)
class Work:
    """The model, the tokens to train and to measure on, and the sizes that all methods share."""

    model: LanguageModel
    training: TokenSequences
    held_out: TokenSequences
    args: argparse.Namespace

    def settings(self, seed: int, penalties: Mapping[str, float]) -> TrainingConfig:
        """How each dictionary is trained."""
        args = self.args
        steps = {"steps": args.steps, "batch_tokens": args.batch_tokens, "warmup_steps": args.steps // 20}
        return TrainingConfig.model_validate(
            {**steps, "lr": 2e-3, "dead_after_tokens": 20_000, "seed": seed, "penalties": dict(penalties)}
        )


def dictionaries(work: Work, name: str, seed: int) -> dict[int, Path]:
    """The folders, by block, of a method's trained dictionaries; those missing are trained."""
    method, made = METHODS[name], dict[int, Path]()
    for block in range(1, work.model.n_blocks):
        folder = work.args.out / name / f"seed-{seed}" / f"block-{block}"
        made[block] = folder
        if (folder / CFG).exists():
            continue
        started, settings = time.process_time(), work.settings(seed, method.penalties)
        inputs = Harvest(work.model, work.training, [Hookpoint(block, "ln2")])
        sizes = {"d_sae": work.args.latents, "k": work.args.k}
        mlp = work.model.mlp_weights(block)
        if method.jacobian is None:
            of_input = train_on(
                inputs, work.model, settings, **sizes, architecture=method.architecture, counted=COUNTED
            )
        else:
            of_input, of_output = train_pair(
                inputs, mlp, settings, **sizes, weight=method.jacobian, counted=COUNTED
            )
            of_output.save(folder / OUTPUTS)
        seconds = time.process_time() - started
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "seconds.json", json.dumps(seconds))
        read_by_threshold(of_input, inputs, seed).save(folder)  # last: with it the folder is complete
        print(f"{name}, seed {seed}, block {block}: {seconds:.0f} s", flush=True)
    return made


def plain_output(work: Work, seed: int, block: int) -> Path:
    """The folder of the plain TopK dictionary of an MLP's output, which is trained if it is missing."""
    folder = work.args.out / OUTPUTS / f"seed-{seed}" / f"block-{block}"
    if not (folder / CFG).exists():
        inputs = Harvest(work.model, work.training, [Hookpoint(block, "ln2")])
        source = MlpOutputs(inputs, work.model.mlp_weights(block))
        sizes = {"d_sae": work.args.latents, "k": work.args.k}
        settings = work.settings(seed, {})
        made = train_on(source, work.model, settings, **sizes, architecture="topk", counted=COUNTED)
        made.save(folder)
    return folder


def read_by_threshold(crosscoder: Crosscoder, source: Harvest, seed: int) -> Crosscoder:
    """The dictionary, in the model's own units, with a threshold at which K latents are active on average."""
    if not crosscoder.nonlinearity.infers_by_threshold:
        epochs = 1 + calibration_tokens(_BATCH) // source.sequences.tokens.size
        stream = ActivationBatches(source, _BATCH, seed, epochs=epochs, counted=COUNTED)
        mean_PD = torch.zeros_like(crosscoder.b_dec)
        calibrate_threshold(crosscoder, stream, Scaling(torch.ones(len(mean_PD)), mean_PD))
    return Crosscoder.from_tensors(
        W_enc=crosscoder.W_enc.detach(),
        W_dec=crosscoder.W_dec.detach(),
        b_enc=crosscoder.b_enc.detach(),
        b_dec=crosscoder.b_dec.detach(),
        hook_names=crosscoder.config.hook_names,
        architecture="jumprelu",
        k=crosscoder.config.k,
        threshold=crosscoder.threshold.detach(),
    )


def measure(work: Work, name: str, seed: int) -> None:
    """Measure what is not measured of a method and seed; what is missing is trained."""
    folders = dictionaries(work, name, seed)
    for file, figures in FIGURES.items():
        kept = work.args.out / name / f"seed-{seed}" / file
        if not kept.exists():
            write_text(kept, json.dumps(figures(work, name, seed, folders)))
            print(kept, kept.read_text(), flush=True)


def fidelities_of(work: Work, name: str, seed: int, folders: Mapping[int, Path]) -> Row:
    """Fidelity, interaction, reconstruction, and the seconds of training."""
    stacked = xtalk.stack([Crosscoder.load(folder) for folder in folders.values()])
    found = xtalk.measure(
        work.model,
        stacked,
        work.held_out,
        mean_texts=work.training,
        tokens=work.args.evaluation_tokens,
        skip_positions=0,
        keep_sinks=True,
    )
    row = measured(found.metrics.crosscoders[0].model_dump(mode="json"))
    seconds = [json.loads((folder / "seconds.json").read_text()) for folder in folders.values()]
    return row | {"seconds": sum(seconds)}


def edges_of(work: Work, name: str, seed: int, folders: Mapping[int, Path]) -> Row:
    """How sparse the edges are, the mean over blocks."""
    scores: list[dict[str, float]] = []
    for block, folder in folders.items():
        own = METHODS[name].jacobian is not None
        of_output = Crosscoder.load(folder / OUTPUTS if own else plain_output(work, seed, block))
        n_BD, divergence = spliced(work, block)
        mlp, of_input = work.model.mlp_weights(block), Crosscoder.load(folder)
        edges = MlpEdges(mlp, of_input, of_output, n_BD)
        score, true_BD = edge_score(edges, divergence), mlp(n_BD)
        figures = {"edges": score.edges, "edge_score": score.absolute, "edge_score_relative": score.relative}
        outputs = {f"{kept}_edges": edges.rebuilt_from_few(kept) for kept in FEW}
        outputs |= {"no_edges": edges.rebuilt(0), "all_edges": edges.rebuilt(score.edges)}
        lost = {f"kl_{name}": divergence(true_BD, y_BD) for name, y_BD in outputs.items()}
        scores.append(figures | lost | jacobian_of(mlp, of_input, of_output, n_BD))
    return {key: sum(one[key] for one in scores) / len(scores) for key in scores[0]}


FIGURES = {"fidelities.json": fidelities_of, "edges.json": edges_of}


@torch.no_grad()
def jacobian_of(
    mlp: MlpWeights, of_input: Crosscoder, of_output: Crosscoder, n_BD: Float[Tensor, "B D"]
) -> dict[str, float]:
    """How sparse the active block of the Jacobian is, at the true input and output, the mean over tokens.

    entries: of the block; above: how many exceed ABOVE in size; holding: how many of the largest have nine
    tenths of the sum of all sizes, which no scale changes.
    """
    y_BD = mlp(n_BD)
    codes = [of_input.encode_sparse(n_BD), of_output.encode_sparse(y_BD)]
    J_BKJ = unit_jacobian(mlp, n_BD, (of_input, of_output), codes, (1.0, 1.0))
    to_scaled = float(n_BD.norm(dim=1).mean() / y_BD.norm(dim=1).mean())  # of dictionaries in own units
    size_Be = (to_scaled * J_BKJ.abs()).flatten(1)
    entries = (codes[0].values > 0).sum(1) * (codes[1].values > 0).sum(1)
    ordered_Be = size_Be.sort(dim=1, descending=True).values
    holding = 1 + (ordered_Be.cumsum(1) < 0.9 * ordered_Be.sum(1, keepdim=True)).sum(1)
    found = {"entries": entries, "above": (size_Be > ABOVE).sum(1), "holding": holding}
    return {f"jacobian_{key}": float(count.double().mean()) for key, count in found.items()}


def spliced(
    work: Work, block: int
) -> tuple[Float[Tensor, "B D"], Callable[[Float[Tensor, "B D"], Float[Tensor, "B D"]], float]]:
    """An MLP's input on held-out text, and KL(predictions with one output || with another) in nat."""
    sequences = max(1, work.args.edge_tokens // work.held_out.length)
    tokens_mS = torch.from_numpy(work.held_out.tokens[:sequences]).long()
    model = work.model
    mid_mSD, n_mSD = model.capture(
        tokens_mS, [Hookpoint(block, "resid_mid"), Hookpoint(block, "ln2")]
    ).unbind(2)

    def predictions(y_BD: Float[Tensor, "B D"]) -> Float[Tensor, "m S V"]:
        post_mSD = mid_mSD + model.added(block, y_BD).view(mid_mSD.shape)
        return model.continue_from(block, post_mSD, tokens_mS).float().log_softmax(-1)

    @torch.no_grad()
    def divergence(first_BD: Float[Tensor, "B D"], other_BD: Float[Tensor, "B D"]) -> float:
        log_mSV = predictions(first_BD)
        return float((log_mSV.exp() * (log_mSV - predictions(other_BD))).sum(-1).mean())

    return n_mSD.flatten(0, 1).float(), divergence


def measured_rows(folder: Path) -> list[Row]:
    """The figures of a method's seeds that are all measured."""
    seeds = [[seed / file for file in FIGURES] for seed in sorted(folder.glob("seed-*"))]
    complete = [files for files in seeds if all(file.exists() for file in files)]
    return [
        {key: value for file in files for key, value in json.loads(file.read_text()).items()}
        for files in complete
    ]


def page(args: argparse.Namespace, found: Mapping[str, Sequence[Row]]) -> str:
    """The measured part of docs/results-rivals.md."""

    def table(columns: Mapping[str, tuple[str, int]]) -> str:
        rows = (
            [name, *(cell(rows, key, digits) for key, digits in columns.values())]
            for name, rows in found.items()
        )
        return pages.table(["method", *columns], rows)

    kept = {
        "keep-one": ("keep_1/model", 2),
        "full": ("full/model", 2),
        "keep-one, all at once": ("keep_1/all", 2),
        "full, all at once": ("full/all", 2),
        "share": ("dominant_share", 2),
        "T": ("interaction", 0),
        "edge score": ("edge_score_relative", 4),
        "seconds": ("seconds", 0),
    }
    edges = {
        "edges used": ("edges", 0),
        "area, nat x edges": ("edge_score", 0),
        "area, nat x fraction": ("edge_score_relative", 4),
        "KL, no edges": ("kl_no_edges", 3),
        **{f"KL, {kept} a latent": (f"kl_{kept}_edges", 3) for kept in FEW},
        "KL, all": ("kl_all_edges", 3),
    }
    entries = {
        "active entries": ("jacobian_entries", 0),
        f"above {ABOVE:g}": ("jacobian_above", 0),
        "holding 90 %": ("jacobian_holding", 0),
    }
    general = {"FVU": ("fvu", 3), "L0, over all MLPs": ("l0", 1), "dead": ("dead", 0)}
    tokens = args.steps * args.batch_tokens / 1e6
    seeds = "; ".join(f"{name} {len(rows)}" for name, rows in found.items())
    return f"""Measured, on held-out text; means over seeds ± half the 95 % interval. Seeds: {seeds}.
Every method has one dictionary for the input of each MLP but block 0's: {args.latents} latents, K {args.k},
{args.steps} steps of {args.batch_tokens} tokens ({tokens:.2f} M), Adam at 2e-3. Model: `{args.model}`; text:
{args.label}. All are read with a threshold calibrated for K active latents on average.
{args.evaluation_tokens} tokens are evaluated, and {args.edge_tokens} for edges. Made by
`studies/results/rivals.py`.

- **topk**, **batchtopk**: no penalty.
- **paper-30**: the penalty of arXiv 2606.09940, sum_minus_max 30. Keep-one was best with it among 3, 10 and
  30 (block 2, one seed); with 300 1.2 latents stay active at each MLP (one seed). Where 17 hookpoints are
  reconstructed at once ([results-sweep.md](results-sweep.md)) the same weight is weaker.
- **sparse**: {", ".join(f"{key} {weight:g}" for key, weight in METHODS["sparse"].penalties.items())}.
- **jacobian-W**: Jacobian SAEs (arXiv 2502.18147), TopK at each MLP's input and output, weight W of the mean
  absolute entry of the active block of the Jacobian between their latents (`studies/results/jacobian.py`).
  The released code's rule makes W 128 at K 16; 32 and 1024 are a weak and a strong one.

Fidelities are Phi_mean, mean over blocks; all at once: every MLP but block 0's rebuilt in one pass. Seconds:
of one core, for training all of a method's dictionaries, those of Jacobian SAEs at the outputs among them.

{table(kept)}

## Edges between latents at an MLP's input and at its output

Area: SCALAR's score (arXiv 2511.07572), under the divergence from all edges as edges are added in the order
of their attribution; smaller is sparser (`studies/results/edges.py` says what of it is ours). Edges used are
those whose two latents are ever active together. KL is from the model itself, in nat: with no edges, with the
one or four edges of largest attribution for each output latent at each token, and with all:

{table(edges)}

Entries of the Jacobian between active latents at a token, for directions of unit norm in spaces where input
and output have equal norms: all, those above {ABOVE:g} in size, and how many of the largest hold 90 % of the
sum of sizes, which no shrinking changes:

{table(entries)}

## Reconstruction

{table(general)}
"""


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options given."""
    parser = pages.parser(__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--text", default="embedded")
    parser.add_argument("--held-out-text", default=None, help="default: the last tenth of --text's documents")
    parser.add_argument("--label", default="the embedded text", help="the text, in words, for the page")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-tokens", type=int, default=512)
    parser.add_argument("--latents", type=int, default=1024)
    parser.add_argument("-k", type=int, default=16)
    parser.add_argument("--evaluation-tokens", type=int, default=4096)
    parser.add_argument("--edge-tokens", type=int, default=512)
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("runs/rivals"))
    parser.add_argument("--page", type=Path, default=Path("docs/results-rivals.md"))
    return parser.parse_args(argv)


def work_of(args: argparse.Namespace) -> Work:
    """Read the model and the texts."""
    model = xtalk.load_model(args.model)
    texts, held_out = read_documents(args.text, _CHARACTERS), list[str]()
    if args.held_out_text is None:
        cut = max(1, len(texts) // 10)
        texts, held_out = texts[:-cut], texts[-cut:]
    else:
        held_out = read_documents(args.held_out_text, _CHARACTERS)
    needed = (args.steps + 1) * args.batch_tokens + 16_384
    length = min(SEQUENCE, model.context)
    return Work(
        model,
        sequences_of(model, texts, tokens=needed, length=length),
        sequences_of(model, held_out, tokens=args.evaluation_tokens, length=length),
        args,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Do what is missing, then write the page."""
    args = options(argv)
    work = work_of(args)
    for seed in args.seeds:
        for name in args.only:
            measure(work, name, seed)
    found = {name: rows for name in METHODS if (rows := measured_rows(args.out / name))}
    if not args.page.exists():
        write_text(args.page, "# Rivals\n\n<!-- measured -->\n<!-- /measured -->\n")
    pages.write_table(args.page, "measured", page(args, found))
    print(f"{args.page}: {len(found)} methods")


if __name__ == "__main__":
    main()
