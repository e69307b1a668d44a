"""Time every certificate's check against brute force, vectorised and in float32, on one core.

    python -m studies.proofs.speed

Reads what sequences.py, finite.py and language.py made, in runs/proofs, runs/proofs-finite and
runs/proofs-language if nothing else is given, and writes the tables "speed" of the page, each if its folder
is there. Times are CPU seconds of one thread. Brute force is that of xtalk.proofs, which `xtalk prove` times
too, but estimated only where it would take more than LONG seconds. Of language models both times are those
that the folder has, taken when its certificates were made.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from xtalk_check.reading import parse_weights

from studies import pages
from studies.proofs.finite import FORMS, NETWORKS
from studies.proofs.language import TOKENS
from studies.proofs.page import PAGE, timed_check
from studies.proofs.sequences import STUDIES, folder_of
from xtalk.proofs.t1.network import FiniteNetwork, FiniteSizes, answers
from xtalk.proofs.t3.brute_force import time_inputs
from xtalk.proofs.t3.sum_network import NetworkSizes, SumNetwork
from xtalk.proofs.t3.tasks import ProductTask
from xtalk.proofs.timing import Timing, least_seconds

LONG = 60.0  # seconds
HEAD = (
    "| certificate | inputs, up to order | times fewer multiply-adds | check | brute force in float32 | "
    "times faster |\n" + "|---" * 6 + "|"
)


def files_of(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a certificate's specification asks, and its weights."""
    found = parse_weights((folder / f"{name}.weights").read_bytes()).tensors
    tensors = {name: torch.tensor(list(values)).view(shape) for name, (shape, values) in found.items()}
    return json.loads((folder / f"{name}.spec.json").read_text())["task"], tensors


def product_lines(out: Path) -> Iterator[str]:
    generator = torch.Generator()
    for name in STUDIES:
        if "seed" in name:
            continue
        folder = folder_of(name, out)
        asked, tensors = files_of(folder, "certificate-0")
        task = ProductTask(asked["name"], asked["n"], tuple(asked["classes"]), asked["answers"])
        (_, D), N = tensors["embed"].shape, len(tensors["b_in"])
        sizes = NetworkSizes(task.vocabulary, task.answers, D, N, asked["activation"], asked["residual"])
        network = SumNetwork(sizes, generator)
        network.load_state_dict(tensors)
        brute = time_inputs(network.runner(task), LONG)
        for number, row in enumerate(json.loads((folder / "rows.json").read_text())):
            seconds, verdict = timed_check(folder, f"certificate-{number}")
            shorter = row["brute_force_macs"] / verdict.length.multiply_adds
            yield line(f"{name}, {row['detail']}", task.distinct, seconds, brute, shorter)


def finite_lines(out: Path) -> Iterator[str]:
    for name in NETWORKS:
        exact = None
        for form in FORMS:
            file = form.replace(", ", "-").replace(" ", "-")
            seconds, verdict = timed_check(out / name, file)
            asked, tensors = files_of(out / name, file)
            inputs, labels = tensors.pop("data.inputs"), asked["labels"]
            sizes = FiniteSizes(inputs.shape[1], len(tensors["b_unembed"]), *tensors["w_in"].shape)
            network = FiniteNetwork(sizes, torch.Generator())
            network.load_state_dict(tensors)
            brute = least_seconds(lambda network=network, inputs=inputs: answers(network, inputs))
            exact = exact or verdict.length.multiply_adds
            shorter = exact / verdict.length.multiply_adds
            yield line(f"digits, {name}, {form}", len(labels), seconds, brute, shorter)


def language_lines(out: Path) -> Iterator[str]:
    rows = [json.loads(path.read_text()) for path in sorted(out.glob("*.figures.json"))]
    exact = next(row["macs"] for row in rows if not row["features"])
    for row in rows:
        brute = Timing(row["brute_force_seconds"], estimated=False)
        yield line(row["name"], TOKENS, row["check_seconds"], brute, exact / row["macs"])


def line(what: str, inputs: int, check: float, brute: Timing, shorter: float) -> str:
    faster = brute.seconds / check
    return (
        f"| {what} | {inputs:.3g} | {shorter:.3g}{', longer' if shorter < 1 else ''} | {check:.2g} s | "
        f"{brute.seconds:.2g} s, {'estimated' if brute.estimated else 'measured'} | "
        f"**{faster:.2g}**{', slower' if faster < 1 else ''} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, then write the page."""
    parser = pages.parser(__doc__)
    parser.add_argument("--proofs", type=Path, default=Path("runs/proofs"))
    parser.add_argument("--finite", type=Path, default=Path("runs/proofs-finite"))
    parser.add_argument("--language", type=Path, default=Path("runs/proofs-language"))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    for marker, lines, folder in (
        ("speed", product_lines, options.proofs),
        ("speed-digits", finite_lines, options.finite),
        ("speed-language", language_lines, options.language),
    ):
        if folder.exists():
            table = [HEAD]
            for text in lines(folder):
                print(text, flush=True)
                table.append(text)
            pages.write_table(PAGE, marker, "\n".join(table))


if __name__ == "__main__":
    main()
