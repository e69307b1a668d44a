"""Certify an ordinary network by crosscoders trained under the interaction penalty at several weights.

    python -m studies.proofs.penalty --out runs/proofs-penalty

Writes the table "t1-penalty" into docs/proofs/results.md, and its figure. What is in the folder is not made
again.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies import pages
from studies.proofs.page import PAGE
from xtalk.activations import ActivationBatches, SourceIdentity, measure_scaling
from xtalk.codes import Codes
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data.tokens import token_sequences
from xtalk.files import write_text
from xtalk.models.mlp import MlpWeights
from xtalk.proofs.t1.bound import table_margins
from xtalk.proofs.t1.certificate import certify_accuracy, explanation
from xtalk.proofs.t1.digits import Split, digits, shifted_and_noisy
from xtalk.proofs.t1.network import FiniteNetwork, FiniteSizes, accuracy
from xtalk.proofs.t1.training import (
    FiniteTraining,
    activations,
    axes_crosscoder,
    train_finite,
)
from xtalk.training.config import TrainingConfig
from xtalk.training.train import train_crosscoder

FIGURE = Path("docs/figures/penalty-bound.png")
SEEDS = (0, 1, 2)  # of the crosscoders; the networks have seed 0
ENTRIES = 8
HOOKPOINTS = ("blocks.0.ln2", "blocks.0.resid_post")  # the second for the MLP's output
TRAINING: dict[str, Any] = {
    "steps": 1500,
    "batch_tokens": 96,
    "lr": 3e-3,
    "warmup_steps": 50,
    "bfloat16": False,
}


@dataclass(frozen=True)
class Study:
    """A network trained for the task alone, and the sizes of the crosscoders."""

    d_model: int
    neurons: int
    decay: float
    latents: int
    k: int
    weights: tuple[float, ...]


STUDIES = {
    "D = 8": Study(8, 64, 5e-3, 32, 8, (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)),
    "D = 24": Study(24, 192, 1e-3, 48, 24, (0.0, 3.0, 30.0)),
}


class Images:
    """Activations of a digits network on images, one row each, for xtalk.training."""

    def __init__(self, network: FiniteNetwork, inputs_RI: Tensor) -> None:
        self.network, self.inputs_RI, self.d_model = network, inputs_RI, network.sizes.d_model
        numbers = np.arange(len(inputs_RI), dtype=np.int32)[:, None]
        self.sequences = token_sequences(numbers, numbers)
        digest = hashlib.sha256(inputs_RI.numpy().tobytes()).hexdigest()
        self.identity = SourceIdentity("digits", digest, HOOKPOINTS)

    def read(self, rows: np.ndarray) -> Iterator[Tensor]:
        yield activations(self.network, self.inputs_RI[torch.from_numpy(rows)])[:, None]

    def mlp_weights(self, block: int) -> MlpWeights:
        parts = (self.network.w_in, self.network.b_in, self.network.w_out, self.network.b_out)
        w_in, b_in, w_out, b_out = (part.detach() for part in parts)
        return MlpWeights(w_in, b_in, w_out, b_out, self.network.activation)


def train_network(study: Study, data: Split) -> FiniteNetwork:
    """Cross-entropy and weight decay, nothing else."""
    generator = torch.Generator().manual_seed(0)
    network = FiniteNetwork(FiniteSizes(64, 10, study.d_model, study.neurons), generator)
    training = FiniteTraining(bound=0.0, direct=0.0, reconstruction=0.0, decay=study.decay)
    unused = axes_crosscoder(study.d_model, 1, generator)
    train_finite(network, unused, data.train_RI, data.train_labels_R, training, shifted_and_noisy)
    return network.requires_grad_(False)


def crosscoder_on(study: Study, network: FiniteNetwork, data: Split, weight: float, seed: int) -> Crosscoder:
    """A crosscoder of the main job's code, on augmented training images."""
    training = TrainingConfig(**TRAINING, penalties={"sum_minus_max": weight}, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(data.train_RI), (training.tokens_needed,), generator=generator)
    source = Images(network, shifted_and_noisy(data.train_RI[rows], generator))
    stream = ActivationBatches(source, training.batch_tokens, seed, buffer_sequences=4096)
    sizes = CrosscoderConfig(
        d_in=study.d_model, d_sae=study.latents, k=study.k, hook_names=HOOKPOINTS, architecture="topk"
    )
    return train_crosscoder(sizes, training, stream, source, measure_scaling(stream, 8192)).crosscoder


@torch.no_grad()
def measured(network: FiniteNetwork, crosscoder: Crosscoder, data: Split) -> dict[str, Any]:
    """The certificate's claim, with what it rests on: float64 margins by the bound's differentiable twin."""
    labels_T, x_TPD = data.test_labels_T, activations(network, data.test_TI)
    codes, x_TD = crosscoder.encode_sparse(x_TPD), x_TPD[:, 0]
    features_LD, base_D = crosscoder.W_dec[:, 0], crosscoder.b_dec[0]
    advice = explanation(network, crosscoder, data.test_TI, tight=True)
    certificate = certify_accuracy(network, crosscoder, data.test_TI, labels_T, entries=ENTRIES)
    strengths = (codes.values[..., None] * (features_LD @ network.w_in)[codes.latents]).abs()
    error_TD = x_TD - crosscoder.decode(codes)[:, 0]
    length = certificate.verdict.length
    return {
        "crosstalk": (strengths.sum(1) - strengths.amax(1)).mean().item(),
        "share": (strengths.amax(1) / strengths.sum(1).clamp(min=1e-9)).mean().item(),
        "unexplained": (error_TD.square().sum() / (x_TD - x_TD.mean(0)).square().sum()).item(),
        "encoded": least(table_margins(network, base_D, features_LD, codes, x_TD, labels_T), labels_T),
        "fitted": least(
            table_margins(network, base_D, features_LD, read(advice, len(features_LD)), x_TD, labels_T),
            labels_T,
        ),
        "certified": certificate.claim["certified"] / certificate.claim["total"],
        "multiply_adds": length.multiply_adds,
        "evaluations": length.evaluations,
    }


def read(advice: dict[str, Any], latents: int) -> Codes:
    """The codes of a certificate."""
    longest = max(1, *(len(code) // 2 for code in advice["codes"]))
    padded = [code + [0] * (2 * longest - len(code)) for code in advice["codes"]]
    flat_TK2 = torch.tensor(padded).view(len(padded), longest, 2)
    return Codes(flat_TK2[..., 0], flat_TK2[..., 1].float() * 2.0 ** -advice["bits"], latents)


def least(margins_TC: Tensor, labels_T: Tensor) -> float:
    """The median over inputs of the least margin over a wrong answer."""
    return margins_TC.scatter(1, labels_T[:, None], torch.inf).amin(1).median().item()


@torch.no_grad()
def truth(network: FiniteNetwork, data: Split) -> dict[str, float]:
    """What stands beside every bound: the network's accuracy and margins, and the bound without features."""
    labels_T, x_TD = data.test_labels_T, network.embedded(data.test_TI)
    logits_TC = network(data.test_TI)
    none = Codes(torch.zeros(len(x_TD), 1, dtype=torch.long), torch.zeros(len(x_TD), 1), 1)
    base_D, feature_1D = network.embedded(data.train_RI).mean(0), torch.ones(1, x_TD.shape[1])
    no_features = table_margins(network, base_D, feature_1D, none, x_TD, labels_T)
    no_features_wins = no_features.scatter(1, labels_T[:, None], torch.inf).amin(1) > 0
    parts = {
        mlp: accuracy(network, data.test_TI, labels_T, data.train_RI, mlp)
        for mlp in ("whole", "linear", "ablated")
    }
    return parts | {
        "margin": least(logits_TC.gather(1, labels_T[:, None]) - logits_TC, labels_T),
        "no features": least(no_features, labels_T),
        "no features, certified": no_features_wins.double().mean().item(),
    }


def results(folder: Path) -> dict[str, Any]:
    """All figures, made now unless they are there."""
    found: dict[str, Any] = {}
    data = digits(0)
    for name, study in STUDIES.items():
        network = None
        cases = [("truth", None)] + [(f"{w:g}-{s}", (w, s)) for w in study.weights for s in SEEDS]
        for case, chosen in cases:
            path = folder / name.replace(" = ", "").lower() / f"{case}.json"
            if not path.exists():
                network = network or train_network(study, data)
                made = (
                    truth(network, data)
                    if chosen is None
                    else measured(network, crosscoder_on(study, network, data, *chosen), data)
                )
                write_text(path, json.dumps(made) + "\n")
                print(name, case, made, flush=True)
            found.setdefault(name, {})[case] = json.loads(path.read_text())
    return found


def of_weight(cases: dict[str, Any], weight: float, key: str) -> tuple[float, float]:
    return pages.mean_interval([cases[f"{weight:g}-{seed}"][key] for seed in SEEDS])


COLUMNS = {
    "crosstalk": "interaction",
    "share": "dominant share",
    "unexplained": "unexplained variance",
    "encoded": "margin bound, as encoded",
    "fitted": "margin bound, fitted",
    "certified": "certified",
    "multiply_adds": "multiply-adds",
}


def table(found: dict[str, Any]) -> str:
    lines = [
        "| network | true / MLP linearised / ablated | true margin | no features: margin bound / certified |",
        "|---" * 4 + "|",
    ]
    for name, cases in found.items():
        beside = cases["truth"]
        lines.append(
            f"| {name} | {beside['whole']:.3f} / {beside['linear']:.3f} / {beside['ablated']:.3f} | "
            f"{beside['margin']:.2f} | {beside['no features']:.2f} / {beside['no features, certified']:.3f} |"
        )
    lines += ["", "| network | lambda | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---" * (2 + len(COLUMNS)) + "|")
    for name, cases in found.items():
        for weight in STUDIES[name].weights:
            cells: list[str] = []
            for key in COLUMNS:
                middle, half = of_weight(cases, weight, key)
                digits_ = 2 if key in ("encoded", "fitted") else 3
                cells.append(
                    f"{middle:.3g}"
                    if key == "multiply_adds"
                    else f"{middle:.{digits_}f} ± {half:.{digits_}f}"
                )
            lines.append(f"| {name} | {weight:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: dict[str, Any]) -> None:
    """The bound on the median margin against lambda, one panel for each network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plot, panels = plt.subplots(1, len(found), figsize=(8, 3.4), layout="constrained")
    for axes, (name, cases) in zip(panels, found.items(), strict=True):
        weights = STUDIES[name].weights
        places = range(len(weights))
        for key, label in (("encoded", "strengths as encoded"), ("fitted", "strengths fitted to the bound")):
            points = [of_weight(cases, weight, key) for weight in weights]
            axes.errorbar(places, [m for m, _ in points], [h for _, h in points], fmt="o-", ms=3, label=label)
        axes.axhline(cases["truth"]["margin"], color="0.2", ls=":", label="true margin")
        axes.axhline(cases["truth"]["no features"], color="0.6", ls="--", label="bound without features")
        axes.set_yscale("symlog", linthresh=2)
        axes.set_xticks(places, [f"{weight:g}" for weight in weights])
        axes.set(xlabel="weight of the interaction penalty", title=name)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("margin, median over images")
    panels[-1].legend(frameon=False, fontsize=7)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    plot.savefig(FIGURE, dpi=150)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/proofs-penalty"))
    torch.set_num_threads(1)
    found = results(parser.parse_args(argv).out)
    draw(found)
    pages.write_table(PAGE, "t1-penalty", table(found))


if __name__ == "__main__":
    main()
