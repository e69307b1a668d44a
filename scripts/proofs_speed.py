"""Time every certificate's check against brute force, vectorised and in float32, on one core.

    python scripts/proofs_speed.py --proofs runs/proofs --finite runs/proofs-finite

Reads what scripts/proofs.py and scripts/proofs_finite.py made, and writes the table "speed" of the page.
Times are CPU seconds of one thread. Brute force multiplies weights out, shares the sum of all tokens but the
last, and works on batches of the size that was fastest; where it would take more than LONG seconds, its rate
on a part of the space is extrapolated by the number of inputs.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from page import PAGE, put
from proofs import STUDIES, folder_of
from proofs_finite import FORMS, NETWORKS
from torch import Tensor

import xtalk_check
from xtalk.files import write_text
from xtalk.models.activation_functions import GELU, GELU_TANH, RELU
from xtalk.proofs.product_tasks import ProductTask
from xtalk_check.reading import parse_weights

FUNCTIONS = {"relu": RELU, "gelu": GELU, "gelu_tanh": GELU_TANH}
SIZES = (1 << 12, 1 << 14, 1 << 16)
LONG, SAMPLE = 60.0, 3.0  # seconds
Piece = tuple[Tensor, Tensor]  # prefixes (P, n-1), last tokens (R): every pair is an input


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


def pieces(task: ProductTask, size: int) -> Iterator[Piece]:
    """Every input once, up to order where none matters, as prefixes beside ranges of last tokens."""
    V, n, keys = task.vocabulary, task.n, task.n - 1
    if task.name == "lookup":
        groups = [
            torch.arange(keys + k * task.values_per_key, keys + (k + 1) * task.values_per_key)
            for k in range(keys)
        ]
        prefixes = torch.cartesian_prod(torch.arange(keys), *groups[:-1])
        yield from ((part, groups[-1]) for part in prefixes.split(max(1, size // len(groups[-1]))))
        return
    for last in range(V):
        prefixes = torch.combinations(torch.arange(last + 1), n - 2, with_replacement=True).view(-1, n - 2)
        prefixes = torch.cat([prefixes, torch.full((len(prefixes), 1), last)], 1)
        lasts = torch.arange(last, V)
        yield from ((part, lasts) for part in prefixes.split(max(1, size // len(lasts))))


def majorities(task: ProductTask) -> Iterator[Piece]:
    """Majority of 3: two tokens of a class and a third from another, or three of the class."""
    classes = torch.tensor(task.classes)
    for answer in range(task.answers):
        own, others = (classes == answer).nonzero()[:, 0], (classes != answer).nonzero()[:, 0]
        yield torch.combinations(own, 2, with_replacement=True), others
        for place, second in enumerate(own):
            yield torch.stack([own[: place + 1], second.expand(place + 1)], 1), own[place:]


class BruteForce:
    """A sum network with all products of weights multiplied out."""

    def __init__(self, task: ProductTask, spec: dict[str, Any], weights: bytes) -> None:
        self.task, found = task, parse_weights(weights).tensors
        t = {name: torch.tensor(list(tensor.values)).view(tensor.shape) for name, tensor in found.items()}
        self.phi = FUNCTIONS[spec["task"]["activation"]]
        self.hidden_VN, self.out_NC = t["embed"] @ t["w_in"], t["w_out"] @ t["unembed"]
        self.direct_VC = t["embed"] @ t["unembed"] if spec["task"]["residual"] else None
        self.b_in, self.b_out = t["b_in"], t["b_out"] @ t["unembed"] + t["b_unembed"]
        self.classes = torch.tensor(task.classes)

    def right(self, prefixes: Tensor, lasts: Tensor) -> tuple[int, int]:
        """How many of the inputs are answered right, and how many there are."""
        h = (self.b_in + self.hidden_VN[prefixes].sum(1))[:, None] + self.hidden_VN[lasts]
        logits = torch.addmm(self.b_out, self.phi(h).view(-1, h.shape[2]), self.out_NC)
        if self.direct_VC is not None:
            direct = self.direct_VC[prefixes].sum(1)[:, None] + self.direct_VC[lasts]
            logits += direct.view(logits.shape)
        answers = self.answers(prefixes, lasts)
        return int((logits.argmax(1) == answers.reshape(-1)).sum()), answers.numel()

    def answers(self, prefixes: Tensor, lasts: Tensor) -> Tensor:
        before, last = self.classes[prefixes], self.classes[lasts]
        if self.task.name == "max":
            return torch.maximum(before.amax(1)[:, None], last)
        if self.task.name == "min":
            return torch.minimum(before.amin(1)[:, None], last)
        if self.task.name == "modular_addition":
            return (before.sum(1)[:, None] + last) % self.task.answers
        if self.task.name == "majority":
            return before[:, :1].expand(-1, len(last))
        every = torch.cat(
            [before[:, None].expand(-1, len(last), -1), last.expand(len(before), -1)[..., None]], 2
        )
        return every.gather(2, 1 + prefixes[:, None, :1].expand(-1, len(last), 1))[..., 0]

    def timed(self) -> tuple[float, int, bool]:
        """Seconds for the whole space, inputs counted, and whether that was measured."""

        def parts(size: int) -> Iterator[Piece]:
            return majorities(self.task) if self.task.name == "majority" else pieces(self.task, size)

        def run(size: int, limit: float) -> tuple[float, int, bool]:
            began, counted = time.process_time(), 0
            for piece in parts(size):
                counted += self.right(*piece)[1]
                if time.process_time() - began > limit:
                    return time.process_time() - began, counted, False
            return time.process_time() - began, counted, True

        best = min(SIZES, key=lambda size: (lambda s, c, _: s / c)(*run(size, SAMPLE)))
        seconds, counted, whole = run(best, SAMPLE)
        if not whole and seconds * self.task.distinct / counted < LONG:
            seconds, counted, whole = run(best, LONG * 2)
        if whole and counted != self.task.distinct:
            raise SystemExit(f"{self.task.name}: brute force went through {counted} of {self.task.distinct}")
        return seconds * self.task.distinct / counted, counted, whole


def timed_check(folder: Path, name: str) -> tuple[float, xtalk_check.Verdict, dict[str, Any], bytes]:
    """The least of up to three checks: CPU seconds, the verdict, specification and weights."""
    files = [(folder / f"{name}{end}").read_bytes() for end in (".json", ".spec.json", ".weights")]
    seconds, verdict = cpu_seconds(lambda: xtalk_check.check(*files))
    for _ in range(2 if seconds < 5 else 0):
        seconds = min(seconds, cpu_seconds(lambda: xtalk_check.check(*files))[0])
    if verdict.verdict != "accepted":
        raise SystemExit(f"{folder / name}: {verdict.reason}")
    return seconds, verdict, json.loads(files[1]), files[2]


def product_lines(folder: Path) -> Iterator[str]:
    for name in STUDIES:
        if "seed" in name:
            continue
        rows = json.loads((folder_of(name, folder) / "rows.json").read_text())
        brute: tuple[float, int, bool] | None = None
        for number, row in enumerate(rows):
            seconds, verdict, spec, weights = timed_check(folder_of(name, folder), f"certificate-{number}")
            asked = spec["task"]
            task = ProductTask(asked["name"], asked["n"], tuple(asked["classes"]), asked["answers"])
            brute = brute or BruteForce(task, spec, weights).timed()
            shorter = row["brute_force_macs"] / verdict.length.multiply_adds
            yield line(f"{name}, {row['detail']}", task.distinct, seconds, brute[0], brute[2], shorter)


@torch.no_grad()
def finite_lines(folder: Path) -> Iterator[str]:
    for network in NETWORKS:
        exact = None
        for form in FORMS:
            seconds, verdict, spec, weights = timed_check(
                folder / network, form.replace(", ", "-").replace(" ", "-")
            )
            found = parse_weights(weights).tensors
            t = {name: torch.tensor(list(tensor.values)).view(tensor.shape) for name, tensor in found.items()}
            labels = torch.tensor(spec["task"]["labels"])

            def forward(t: dict[str, Tensor] = t, labels: Tensor = labels) -> int:
                x = t["data.inputs"] @ t["embed"] + t["b_embed"]
                y = GELU_TANH(x @ t["w_in"] + t["b_in"]) @ t["w_out"] + t["b_out"] + x
                return int(((y @ t["unembed"] + t["b_unembed"]).argmax(1) == labels).sum())

            brute = min(cpu_seconds(lambda: [forward() for _ in range(20)])[0] for _ in range(3)) / 20
            exact = exact or verdict.length.multiply_adds
            yield line(
                f"digits, {network}, {form}",
                len(labels),
                seconds,
                brute,
                True,
                exact / verdict.length.multiply_adds,
            )


def line(what: str, inputs: int, check: float, brute: float, measured: bool, shorter: float) -> str:
    how = "measured" if measured else "extrapolated"
    return (
        f"| {what} | {inputs:.3g} | {shorter:.3g} | {check:.2g} s | {brute:.2g} s, {how} | "
        f"**{brute / check:.2g}** |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proofs", type=Path, default=Path("runs/proofs"))
    parser.add_argument("--finite", type=Path, default=Path("runs/proofs-finite"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "| certificate | inputs, up to order | times fewer multiply-adds | check | brute force in float32 | "
        "times faster |",
        "|---" * 6 + "|",
    ]
    for made in (product_lines(options.proofs), finite_lines(options.finite)):
        for text in made:
            print(text, flush=True)
            lines.append(text)
    write_text(PAGE, put(PAGE.read_text(), "speed", "\n".join(lines)))


if __name__ == "__main__":
    main()
