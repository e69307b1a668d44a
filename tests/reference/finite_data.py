"""Networks on a given data set: in files as theorem T1 reads them, and by the slow obvious formula."""

import hashlib
import random
from array import array
from math import prod

from reference.product_space import ACTIVATIONS, Tensors, certificate, container


def random_problem(seed: int, T: int = 5, I: int = 3, D: int = 2, N: int = 6, C: int = 3) -> Tensors:  # noqa: E741
    """Weights and data that float32 holds exactly."""
    rng = random.Random(seed)
    shapes = {
        "data.inputs": (T, I),
        "embed": (I, D),
        "b_embed": (D,),
        "w_in": (D, N),
        "b_in": (N,),
        "w_out": (N, D),
        "b_out": (D,),
        "unembed": (D, C),
        "b_unembed": (C,),
    }
    return {
        name: (shape, [round(rng.gauss(0, 0.7) * 1024) / 1024 for _ in range(prod(shape))])
        for name, shape in shapes.items()
    }


def random_advice(seed: int, T: int = 5, D: int = 2, L: int = 4) -> dict:
    """An explanation that has nothing to do with the data; three latents for each input, maybe one twice."""
    rng = random.Random(seed)

    def number() -> int:
        return round(rng.gauss(0, 0.5) * 256)

    return {
        "bits": 8,
        "base": [number() for _ in range(D)],
        "features": [[number() for _ in range(D)] for _ in range(L)],
        "codes": [
            [entry for i in (*rng.sample(range(L), 2), 0) for entry in (i, number())] for _ in range(T)
        ],
    }


def finite_spec(tensors: Tensors, labels: list[int], **task) -> dict:
    data = hashlib.sha256(array("f", tensors["data.inputs"][1]).tobytes()).hexdigest()
    defaults = {
        "data": data,
        "labels": labels,
        "activation": "gelu",
        "residual": True,
        "arithmetic": "real",
    }
    return {"format": "xtalk.spec/1", "theorem": "T1", "weights": None, "task": defaults | task}


def finite_certificate(tensors: Tensors, certified: int, total: int, **advice) -> dict:
    return certificate(container(tensors), "T1", certified, total, **advice)


def logits(tensors: Tensors, t: int, activation: str, residual: bool) -> list[float]:
    """The network's logits on one input, in plain loops."""

    def affine(x, weight, bias):
        (rows, columns), values = tensors[weight]
        return [b + sum(x[i] * values[i * columns + j] for i in range(rows)) for j, b in enumerate(bias)]

    width = tensors["data.inputs"][0][1]
    x = affine(tensors["data.inputs"][1][t * width : (t + 1) * width], "embed", tensors["b_embed"][1])
    h = affine(x, "w_in", tensors["b_in"][1])
    y = affine([ACTIVATIONS[activation](v) for v in h], "w_out", tensors["b_out"][1])
    if residual:
        y = [a + b for a, b in zip(x, y, strict=True)]
    return affine(y, "unembed", tensors["b_unembed"][1])
