"""Other ways to sparse computation beside ours, on the same model, places, tokens, latents and K.

    python -m studies.results.rivals --text stories.jsonl --held-out-text held_out.jsonl --out runs/rivals

Every method trains one dictionary for each MLP's input; all of a method are then read as one (`xtalk.stack`).
Each is read with a threshold that is calibrated for K active latents on average, also those trained by TopK,
so that all are read alike. Edges (studies/results/edges.py) need a dictionary of each MLP's output too:
Jacobian SAEs have their own, all others share a plain TopK one. The same command goes on where it was
stopped: what is trained and measured is kept in OUT/METHOD/seed-S.
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
from studies.results.jacobian import MlpOutputs, train_pair
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
from xtalk.training.config import TrainingConfig, calibration_tokens
from xtalk.training.quick import train_on
from xtalk.training.spliced import Places, SplicedMlp, true_run
from xtalk.training.train import calibrate_threshold

SEQUENCE = 256
ROW = "row.json"
OUTPUTS = "outputs"  # the plain dictionaries of the MLPs' outputs
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
    "paper-300": Method("batchtopk", PENALTIES["paper-300"]),
    "sparse": Method("batchtopk", PENALTIES["sparse"]),
    "jacobian-30": Method("topk", jacobian=30.0),
    "jacobian-300": Method("topk", jacobian=300.0),
    "jacobian-3000": Method("topk", jacobian=3000.0),
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
    for block in range(work.model.n_blocks):
        folder = work.args.out / name / f"seed-{seed}" / f"block-{block}"
        made[block] = folder
        if (folder / CFG).exists():
            continue
        started, settings = time.monotonic(), work.settings(seed, method.penalties)
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
            read_by_threshold(of_output, MlpOutputs(inputs, mlp), seed).save(folder / OUTPUTS)
        seconds = time.monotonic() - started
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
        read_by_threshold(made, source, seed).save(folder)
    return folder


def read_by_threshold(crosscoder: Crosscoder, source: Harvest | MlpOutputs, seed: int) -> Crosscoder:
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


def row_of(work: Work, name: str, seed: int) -> Row:
    """The figures of a method and seed, measured if they are not there."""
    kept = work.args.out / name / f"seed-{seed}" / ROW
    if kept.exists():
        return json.loads(kept.read_text())
    folders = dictionaries(work, name, seed)
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
    row |= edges_of(work, name, seed, folders)
    seconds = [json.loads((folder / "seconds.json").read_text()) for folder in folders.values()]
    row |= {"seconds": sum(seconds)}
    write_text(kept, json.dumps(row))
    return row


def edges_of(work: Work, name: str, seed: int, folders: Mapping[int, Path]) -> Row:
    """How sparse the edges are, the mean over blocks 1 and up."""
    scores: list[dict[str, float]] = []
    for block, folder in folders.items():
        if block == 0:
            continue
        own = METHODS[name].jacobian is not None
        of_output = Crosscoder.load(folder / OUTPUTS if own else plain_output(work, seed, block))
        n_BD, cost = divergence(work, block)
        edges = MlpEdges(work.model.mlp_weights(block), Crosscoder.load(folder), of_output, n_BD)
        score = edge_score(edges, cost)
        figures = {"edges": score.edges, "edge_score": score.absolute, "edge_score_relative": score.relative}
        scores.append(figures | {"kl_no_edges": score.costs[0], "kl_all_edges": score.costs[-1]})
    return {key: sum(one[key] for one in scores) / len(scores) for key in scores[0]}


def divergence(
    work: Work, block: int
) -> tuple[Float[Tensor, "B D"], Callable[[Float[Tensor, "B D"]], float]]:
    """An MLP's input on held-out text, and what another output costs: KL from the model itself, nat."""
    sequences = max(1, work.args.edge_tokens // work.held_out.length)
    tokens_mS = torch.from_numpy(work.held_out.tokens[:sequences]).long()
    rows_mS, positions_mS = torch.meshgrid(*(torch.arange(n) for n in tokens_mS.shape), indexing="ij")
    model, mlp = work.model, work.model.mlp_weights(block)
    run = true_run(model, [block], Places(tokens_mS, rows_mS.flatten(), positions_mS.flatten()))
    spliced = SplicedMlp(model, block, mlp, torch.zeros(model.d_model), ablated=float(model.d_model))
    n_BD = model.capture(tokens_mS, [Hookpoint(block, "ln2")]).flatten(0, 2)
    return n_BD, lambda y_BD: float(spliced.divergences(run, {("", None): y_BD}, {})["", None])


def page(args: argparse.Namespace, found: Mapping[str, Sequence[Row]]) -> str:
    """docs/results-rivals.md."""

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
        "edge score": ("edge_score_relative", 3),
        "seconds": ("seconds", 0),
    }
    edges = {
        "edges used": ("edges", 0),
        "area, nat x edges": ("edge_score", 0),
        "area, nat x fraction": ("edge_score_relative", 3),
        "KL without edges": ("kl_no_edges", 3),
        "KL with all": ("kl_all_edges", 3),
    }
    general = {"FVU": ("fvu", 3), "L0, over all MLPs": ("l0", 1), "dead": ("dead", 0)}
    tokens = args.steps * args.batch_tokens / 1e6
    return f"""# Rivals

Measured, on held-out text; {len(args.seeds)} seeds, means ± half the 95 % interval over seeds. Every method
has one dictionary for each MLP's input: {args.latents} latents, K {args.k}, {args.steps} steps of
{args.batch_tokens} tokens ({tokens:.2f} M). Model: `{args.model}`; text: {args.label}. All are read with a
threshold calibrated for K active latents on average. {args.evaluation_tokens} tokens are evaluated, and
{args.edge_tokens} for edges. Made by `studies/results/rivals.py`.

- **topk**, **batchtopk**: no penalty.
- **paper-300**: the penalty of arXiv 2606.09940, sum_minus_max 300.
- **sparse**: {", ".join(f"{key} {weight:g}" for key, weight in METHODS["sparse"].penalties.items())}.
- **jacobian-W**: Jacobian SAEs (arXiv 2502.18147), TopK at each MLP's input and output, weight W of the mean
  absolute entry of the active block of the Jacobian between their latents (`studies/results/jacobian.py`).

Fidelities are Phi_mean, mean over all blocks but the first; all at once: every MLP but block 0's rebuilt in
one pass. Edge score: SCALAR's (arXiv 2511.07572), the area under the divergence as edges between the latents
at an MLP's input and output are added in the order of their attribution; smaller is sparser
(`studies/results/edges.py` says what of it is ours). Seconds: of training all of a method's dictionaries, on
the machine that made the row.

{table(kept)}

## Edges

Edges used are those whose two latents are ever active together:

{table(edges)}

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
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--latents", type=int, default=2048)
    parser.add_argument("-k", type=int, default=16)
    parser.add_argument("--evaluation-tokens", type=int, default=8192)
    parser.add_argument("--edge-tokens", type=int, default=2048)
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
    work, found = work_of(args), dict[str, list[Row]]()
    for seed in args.seeds:
        for name in args.only:
            found.setdefault(name, []).append(row_of(work, name, seed))
            print(name, seed, dict(found[name][-1]), flush=True)
    args.page.parent.mkdir(parents=True, exist_ok=True)
    args.page.write_text(page(args, found))
    print(f"{args.page}: {len(args.seeds)} seeds, {len(found)} methods")


if __name__ == "__main__":
    main()
