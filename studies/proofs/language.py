"""Make the certificates of T1 for the embedded language model behind docs/proofs/results.md.

    python -m studies.proofs.language --out runs/proofs-language

Trains the MLPs that are not in the folder yet, makes the certificates that are not, and writes the tables
into docs/proofs/results.md. A killed run goes on with the same command.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from studies import pages
from studies.proofs.page import PAGE
from xtalk.files import replacing, write_text
from xtalk.models.mlp import MlpWeights
from xtalk.progress import progress_bars
from xtalk.proofs.certificates import Certificate
from xtalk.proofs.t1_language.certificate import certify_loss
from xtalk.proofs.t1_language.prove import (
    CLUSTERING,
    exact_multiply_adds,
    projected,
    read_places,
    training_inputs,
)
from xtalk.proofs.t1_language.tail import LanguageTail
from xtalk.proofs.t1_language.training import FeatureMlp, LanguageTraining, train_mlp

D, N, V = 128, 512, 2048  # of the embedded model
SEQUENCES = 3000  # to train on
TOKENS = 4096
FEATURES, SEEDS = (128, 64), (0, 1, 2)
KNOTS = 256
TRAINING = LanguageTraining()
AFFINE_STEPS = 400  # more hardly change it


class Study:
    """The model's tail, the data of the claim, and what is trained on the rest of the text."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.places = folder, read_places(TOKENS)
        self.tail: LanguageTail = self.places.tail
        self.x_TD, self.targets_T = self.places.x_TD, self.places.targets_T
        self._train_RD: Tensor | None = None

    @property
    def train_RD(self) -> Tensor:
        """Activations to train on, computed when they are first needed, and kept in the folder."""
        path = self.folder / "resid_mid.safetensors"
        if not path.exists():
            x_RD = training_inputs(self.places.model, SEQUENCES)
            with replacing(path) as kept:
                save_file({"x": x_RD}, kept)
        if self._train_RD is None:
            self._train_RD = load_file(path)["x"]
        return self._train_RD

    def trained(self, student: nn.Module, name: str, training: LanguageTraining) -> None:
        """Train what is not in the folder yet, in place."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            with progress_bars() as progress:
                train_mlp(student, self.tail, self.train_RD, training, partial(progress, name))
            with replacing(path) as kept:
                save_file(student.state_dict(), kept)
        student.load_state_dict(load_file(path))

    def projected(self, count: int, seed: int = 0) -> FeatureMlp:
        """The model's own MLP, with each neuron's reading projected on one feature; nothing is trained."""
        return projected(self.tail, self.train_RD, count, seed)

    def features(self, count: int, seed: int) -> FeatureMlp:
        mlp = self.projected(count, seed)
        self.trained(mlp, f"features-{count}-seed-{seed}", replace(TRAINING, seed=seed))
        return mlp

    def affine(self) -> float:
        """The loss with an affine map in the MLP's place, fitted to its output, then trained alike."""
        n_BD = self.tail.norm_in(self.train_RD[:CLUSTERING])
        inputs = torch.cat([n_BD, torch.ones(len(n_BD), 1)], 1)
        fitted = torch.linalg.lstsq(inputs, self.tail.mlp(n_BD)).solution
        student = nn.Linear(len(self.tail.mlp.W_in), fitted.shape[1])
        with torch.no_grad():
            student.weight.copy_(fitted[:-1].T)
            student.bias.copy_(fitted[-1])
        self.trained(student, "affine", replace(TRAINING, steps=AFFINE_STEPS))
        return self.tail.losses(self.x_TD, self.targets_T, student.double()).mean().item()


@torch.no_grad()
def interaction(study: Study, network: MlpWeights, mlp: FeatureMlp) -> float:
    """The paper's term: the token mean of sum_k |w_out[k]| |all that reaches neuron k but its feature|."""
    n_TD = study.tail.norm_in(study.x_TD).double()
    rest_DN = network.W_in.double() - mlp.directions.double()[mlp.features].T * mlp.gains.double()
    return ((n_TD @ rest_DN).abs() @ network.W_out.double().norm(dim=1)).mean().item()


def mlp_part(made: Certificate, mlp: FeatureMlp | None, shared: int) -> tuple[int, int]:
    """Multiply-adds but for the `shared` ones that every form pays alike; and from how
    many tokens on there are fewer of them than in brute force, tables being paid once.
    """
    part = made.verdict.length.multiply_adds - shared
    each = 2 * D * N if mlp is None else D + len(mlp.directions) * (3 * D + 3)
    return part, 0 if mlp is None else ceil((part - TOKENS * each) / (2 * D * N - each))


@torch.no_grad()
def limits(study: Study, room: float) -> str:
    """How far z may be from what is known of it, and how far leaving out one neuron's reading takes it."""
    tail, x_TD, y_T = study.tail.to(torch.float64), study.x_TD.double(), study.targets_T
    n_TD = tail.norm_in(x_TD)
    z_TD = x_TD + tail.mlp(n_TD)
    scale_T, logits_TV = tail.norm_out.scale(z_TD), tail.norm_out(z_TD) @ tail.unembed
    v_VD = tail.norm_out.centre(tail.unembed.T * tail.norm_out.weight)
    reach_V = (v_VD - v_VD[y_T].mean(0)).norm(dim=1)
    ahead_TV = logits_TV - logits_TV.gather(1, y_T[:, None])

    def rise(error: float) -> float:
        """What the lemmas "norm" and "cross-entropy" charge for an error of that norm."""
        move_T = error / (scale_T * (scale_T - error / D**0.5).clamp(min=tail.norm_out.eps**0.5)).sqrt()
        moved_TV = ahead_TV + move_T[:, None] * (reach_V + reach_V[y_T][:, None])
        moved_TV.scatter_(1, y_T[:, None], 0.0)
        return (moved_TV.logsumexp(1) - ahead_TV.logsumexp(1)).mean().item()

    low, high = 0.0, 10.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if rise(middle) < room else (low, middle)
    read_N, lipschitz = tail.mlp.W_in.norm(dim=0), tail.mlp.activation.lipschitz
    charged_N = lipschitz * tail.mlp.W_out.norm(dim=1) * read_N * n_TD.norm(dim=1).mean()
    unit_DN = tail.mlp.W_in / read_N
    alike = ((unit_DN.T @ unit_DN).abs() - torch.eye(N)).max().item()
    return (
        f"By the lemmas on norm and cross-entropy an error of norm {low:.3f} in z uses up the room of "
        f"{room:.3f} nat/token. By the lemma on crosstalk, leaving one neuron of the model as it is unread "
        f"adds an error of {charged_N.min():.1f} at the least; its two neurons that read most alike do so "
        f"with cosine {alike:.2f}, so that letting one read as another does adds "
        f"{charged_N.min() * (1 - alike**2) ** 0.5:.1f} or more."
    )


class Tables:
    def __init__(self, study: Study) -> None:
        self.study = study
        self.ablated = study.places.ablated(study.tail.mlp)

    def figures(self, made: Certificate, network: MlpWeights, mlp: FeatureMlp | None) -> dict[str, Any]:
        """What a certificate says, and what stands beside it; times are CPU seconds of one thread."""
        study, length = self.study, made.verdict.length
        part, shorter_from = mlp_part(made, mlp, exact_multiply_adds(study.tail, TOKENS, mlp=False))
        return {
            "certified": made.claim["micronats"] / 1e6,
            "true": study.places.loss(network),
            "ablated": study.places.ablated(network),
            "features": 0 if mlp is None else len(mlp.directions),
            "crosstalk": 0.0 if mlp is None else interaction(study, network, mlp),
            "macs": length.multiply_adds,
            "mlp_macs": part,
            "shorter_from": shorter_from,
            "evaluations": length.evaluations,
            "check_seconds": made.cpu_seconds,
            "brute_force_seconds": study.places.seconds().seconds,
        }

    def certify(self, name: str, mlp: FeatureMlp | None, network: MlpWeights | None = None) -> dict[str, Any]:
        """The figures of a certificate, which is made unless the folder has it already."""
        study, file = self.study, name.replace(" ", "-").replace(",", "")
        kept = study.folder / f"{file}.figures.json"
        if not kept.exists():
            made = certify_loss(study.tail, mlp, study.x_TD, study.targets_T, network=network, knots=KNOTS)
            made.save(study.folder, file)
            figures = self.figures(made, network or (study.tail.mlp if mlp is None else mlp.weights()), mlp)
            write_text(kept, json.dumps({"name": name} | figures, indent=1) + "\n")
            print(kept.read_text(), flush=True)
        return json.loads(kept.read_text())

    def rows(self) -> Iterator[dict[str, Any]]:
        study = self.study
        yield self.certify("as it is, exact", None)
        yield self.certify("as it is, 128 features", study.projected(128), study.tail.mlp)
        for count in FEATURES:
            for seed in SEEDS:
                mlp = study.features(count, seed)
                yield self.certify(f"{count} features, seed {seed}", mlp) | {"of": count}

    def line(self, row: dict[str, Any]) -> str:
        """A certificate's line."""
        tied = f", {TOKENS * (row['features'] + N) * D / row['mlp_macs']:.2f}" if row["features"] else ""
        crosstalk, shorter_from = (
            (f"{row['crosstalk']:.2g}", f"{row['shorter_from']:,}") if row["features"] else ("", "")
        )
        vacuous = " VACUOUS" if row["certified"] >= min(row["ablated"], self.ablated) else ""
        return (
            f"| {row['name']} | {crosstalk} | **{row['certified']:.4f}**{vacuous} | {row['true']:.4f} | "
            f"{row['ablated']:.3f} | {row['macs']:,} | {row['mlp_macs']:,} | "
            f"{2 * TOKENS * D * N / row['mlp_macs']:.2f}{tied} | {shorter_from} | {row['evaluations']:,} | "
            f"{row['check_seconds']:.2g} s |"
        )


def lines_over_seeds(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The trained networks, by how many features they have."""
    for count in FEATURES:
        own = [row for row in rows if row.get("of") == count]
        certified, true = [row["certified"] for row in own], [row["true"] for row in own]
        gap = [bound - loss for bound, loss in zip(certified, true, strict=True)]
        macs = [row["mlp_macs"] for row in own]
        yield (
            f"| {count} | {', '.join(f'{bound:.4f}' for bound in certified)} | "
            f"**{pages.over_seeds(certified, 4)}** | {pages.over_seeds(true, 4)} | "
            f"{pages.over_seeds(gap, 4)} | {min(row['ablated'] for row in own):.3f} | "
            f"{min(macs):.3g} to {max(macs):.3g} |"
        )


def wall_clock(rows: list[dict[str, Any]]) -> str:
    """What is won in time, in words."""
    checks = [row["check_seconds"] for row in rows if row["features"]]
    brute, exact = min(row["brute_force_seconds"] for row in rows), rows[0]["check_seconds"]
    slower = min(checks) / exact
    beside = f"{slower:.2g} times slower" if slower > 1 else f"{1 / slower:.2g} times faster"
    return (
        f"In seconds of one core: a check of form `features` takes {min(checks):.2g} to {max(checks):.2g}, "
        f"of form `exact`, in the same arithmetic, {exact:.2g}; torch runs the tail in float32 in "
        f"{brute:.2g}, which proves nothing about rounding. So the quickest of the shorter checks is "
        f"{beside} than the exhaustive one, and {min(checks) / brute:.0f} times slower than torch."
    )


HEAD = (
    "| network | crosstalk | certified, real arithmetic | true | its MLP ablated | multiply-adds "
    "| of these for the MLP | times fewer than 2 D N, (F + N) D | shorter from | evaluations | check |\n|"
    + "---|"
    * 11
)
SEEDS_HEAD = (
    f"| features | certified, real arithmetic, seeds {SEEDS[0]} to {SEEDS[-1]} | mean | true, mean "
    "| gap, mean | its MLP ablated, least | multiply-adds for the MLP |\n|" + "---|" * 7
)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/proofs-language"))
    folder = parser.parse_args(argv).out
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    study = Study(folder)
    tables = Tables(study)
    true, affine = study.places.loss(study.tail.mlp), study.affine()
    rows = list(tables.rows())
    content = [
        f"The model as it is {true:.4f} nat/token, its MLP's output at its mean {tables.ablated:.4f}, an "
        f"affine map in its place, trained alike, {affine:.4f}. Brute force for the MLP takes "
        f"{2 * TOKENS * D * N:,} multiply-adds.",
        "",
        HEAD,
        *map(tables.line, rows),
        "",
        SEEDS_HEAD,
        *lines_over_seeds(rows),
        "",
        wall_clock(rows),
    ]
    pages.write_table(PAGE, "t1-language", "\n".join(content))
    pages.write_table(PAGE, "t1-language-limits", limits(study, tables.ablated - true))


if __name__ == "__main__":
    main()
