"""Make the certificates of T1 behind docs/proofs/results.md, and the budget of a language model's MLP.

    python -m studies.proofs.finite --out runs/proofs-finite

Networks that are not in the folder yet (seed-0, seed-1, seed-2, post-hoc) are trained first. Writes the
tables into docs/proofs/results.md.
"""

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from xtalk_check.work import Work

from studies import pages
from studies.proofs.page import PAGE
from xtalk.models.language_model import load_model
from xtalk.proofs.t1.certificate import certify_accuracy
from xtalk.proofs.t1.digits import HELD_OUT, digits, load_digits_network, save_digits, train_digits
from xtalk.proofs.t1.network import accuracy
from xtalk.proofs.t1_language.prove import embedded_text
from xtalk.proofs.t1_language.tail import tail_of

NETWORKS = {"seed-0": 0, "seed-1": 1, "seed-2": 2, "post-hoc": 0}
FORMS: dict[str, dict[str, int]] = {
    "exact": {},
    "tables, 8 entries": {"entries": 8},
    "tables, 4 entries": {"entries": 4},
}
RANKS = (32, 64, 96, 112, 120, 124, 126)
TOKENS = 4096
FEW = list(range(40))


def digits_table(folder: Path) -> str:
    lines = [
        "| network | true | MLP linearised | ablated | form | certified, float32 | multiply-adds "
        "| evaluations | shorter from |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, seed in NETWORKS.items():
        data = digits(seed)
        pair = load_digits_network(folder / name / "digits.safetensors")
        truth = [
            accuracy(pair[0], data.test_TI, data.test_labels_T, data.train_RI, mlp)
            for mlp in ("whole", "linear", "ablated")
        ]
        costs: list[Cost] = []
        for label, options in FORMS.items():
            form: Any = label.split(",")[0]
            made = certify_accuracy(*pair, data.test_TI, data.test_labels_T, form, **options)
            made.save(folder / name, label.replace(", ", "-").replace(" ", "-"))
            few = [
                certify_accuracy(*pair, data.test_TI[rows], data.test_labels_T[rows], form, **options)
                for rows in (FEW, FEW * 2)
            ]
            costs.append(cost(made.verdict.length, *(certificate.verdict.length for certificate in few)))
            claim, length = made.claim, made.verdict.length
            certified = claim["certified"] / claim["total"]
            vacuous = certified <= truth[2]
            lines.append(
                f"| {name} | {' | '.join(f'{part:.4f}' for part in truth)} | {label} | {certified:.4f} | "
                f"{length.multiply_adds:,} | {length.evaluations:,} | "
                f"{'vacuous' if vacuous else shorter_from(costs[0], costs[-1])} |"
            )
    return "\n".join(lines)


# For multiply-adds and for evaluations: what each input costs, and what all of them cost once.
Cost = list[tuple[float, float]]


def cost(whole: Work, few: Work, twice: Work) -> Cost:
    """From the lengths of all inputs, of a few, and of the same few twice."""
    costs: Cost = []
    for name in ("multiply_adds", "evaluations"):
        each = (getattr(twice, name) - getattr(few, name)) / len(FEW)
        costs.append((each, getattr(whole, name) - each * HELD_OUT))
    return costs


def shorter_from(brute: Cost, form: Cost) -> str:
    """The number of inputs from which a form has both fewer multiply-adds and fewer evaluations."""
    if form is brute:
        return ""
    if any(each >= brute_each for (each, _), (brute_each, _) in zip(form, brute, strict=True)):
        return "never"
    return str(
        max(
            ceil((once - brute_once) / (brute_each - each))
            for (each, once), (brute_each, brute_once) in zip(form, brute, strict=True)
        )
    )


@torch.no_grad()
def budget_table() -> str:
    """What bounds on the loss charge for what principal directions leave of the last MLP's input."""
    model = load_model("embedded")
    tokens_nS = embedded_text(model, 17, held_out=True)
    names = ("resid_mid", "ln2")
    mid, n = (
        model.capture(tokens_nS, [model.hookpoint(f"blocks.3.{name}") for name in names])[:, :-1]
        .reshape(-1, 2, 128)[:TOKENS]
        .double()
        .unbind(1)
    )
    y, mlp = tokens_nS[:, 1:].reshape(-1)[:TOKENS], model.mlp_weights(3).to(dtype=torch.float64)
    tail = tail_of(model).to(torch.float64)

    def loss(z: Tensor) -> Tensor:
        return F.cross_entropy(tail.norm_out(z) @ tail.unembed, y, reduction="none")

    def derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        with torch.enable_grad():
            at = at.detach().requires_grad_()
            return torch.autograd.grad(function(at).sum(), at)[0]

    h = n @ mlp.W_in + mlp.b_in
    z, whole = mid + mlp(n), loss(mid + mlp(n)).mean()
    ablated = loss(mid + mlp(n).mean(0)).mean()
    weight_BN = (derivative(loss, z) @ mlp.W_out.T).abs()
    slope_BN = derivative(mlp.activation, h)
    directions = torch.linalg.eigh(torch.cov(n.T))[1].flip(1)
    lines = [
        f"Model {whole:.3f} nat/token, MLP's output at its mean {ablated:.3f}: room {ablated - whole:.3f}.",
        "",
        "| directions kept | unexplained variance | true rise | (1) norms | (2) gradient | (3) each neuron "
        "| (4) second order |",
        "|---|---|---|---|---|---|---|",
    ]
    for rank in RANKS:
        kept, mean = directions[:, :rank], n.mean(0)
        rebuilt = mean + (n - mean) @ kept @ kept.T
        e, r_BN = n - rebuilt, (n - rebuilt) @ mlp.W_in
        size_B = e.norm(dim=1)
        signed = derivative(loss, z) @ mlp.W_out.T * slope_BN
        charges = (
            (weight_BN * slope_BN.abs() * mlp.W_in.norm(dim=0)).sum(1) * size_B,
            (signed @ mlp.W_in.T).norm(dim=1) * size_B,
            (weight_BN * slope_BN.abs() * r_BN.abs()).sum(1),
            (weight_BN * mlp.activation.curvature / 2 * r_BN.square()).sum(1),
        )
        rise = loss(mid + mlp(rebuilt)).mean() - whole
        unexplained = e.square().sum() / (n - mean).square().sum()
        figures = " | ".join(f"{charge.mean():.2f}" for charge in charges)
        lines.append(f"| {rank} of 128 | {unexplained:.3f} | {rise:.3f} | {figures} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/proofs-finite"))
    folder = parser.parse_args(argv).out
    torch.set_num_threads(1)
    for name, seed in NETWORKS.items():
        if not (folder / name / "digits.safetensors").exists():
            trained = train_digits(seed, post_hoc=name == "post-hoc")
            save_digits(folder / name / "digits.safetensors", *trained)
    pages.write_table(PAGE, "t1-budget", budget_table())
    pages.write_table(PAGE, "t1-results", digits_table(folder))


if __name__ == "__main__":
    main()
