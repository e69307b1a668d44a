"""Tails of language models: in files as theorem T1 language reads them, and by the slow obvious formula."""

import hashlib
import random
from array import array
from math import exp, log, prod, sqrt

from reference.product_space import ACTIVATIONS, Tensors, container
from xtalk_check.reading import Fields

EPSILON = 100  # millionths


def random_tail(seed: int, T: int = 5, D: int = 3, N: int = 7, V: int = 6) -> Tensors:
    """Weights and activations that float32 holds exactly."""
    rng = random.Random(seed)
    shapes = {
        "data.resid_mid": (T, D),
        "norm_in.weight": (D,),
        "norm_in.bias": (D,),
        "w_in": (D, N),
        "b_in": (N,),
        "w_out": (N, D),
        "b_out": (D,),
        "norm_out.weight": (D,),
        "norm_out.bias": (D,),
        "unembed": (D, V),
    }
    return {
        name: (shape, [round(rng.gauss(0, 0.7) * 1024) / 1024 for _ in range(prod(shape))])
        for name, shape in shapes.items()
    }


def random_features(seed: int, D: int = 3, N: int = 7, F: int = 4) -> dict:
    """Features that have nothing to do with the neurons, and knots that hold whatever is read."""
    rng = random.Random(seed)
    return {
        "form": "features",
        "bits": 8,
        "directions": [[round(rng.gauss(0, 0.5) * 256) for _ in range(D)] for _ in range(F)],
        "features": [rng.randrange(F) for _ in range(N)],
        "gains": [round(rng.gauss(0, 0.7) * 256) for _ in range(N)],
        "knots": [[-(1 << 20), *sorted(rng.sample(range(-800, 800), 30)), 1 << 20] for _ in range(F)],
    }


def explained_tail(seed: int, N: int = 7, D: int = 3) -> tuple[Tensors, dict]:
    """A tail whose neurons read one feature each, exactly, and the features, with dense knots."""
    tensors, advice = random_tail(seed), random_features(seed)
    reads = [
        [gain * r / 2**16 for r in advice["directions"][i]]
        for gain, i in zip(advice["gains"], advice["features"], strict=True)
    ]
    tensors["w_in"] = ((D, N), [reads[k][d] for d in range(D) for k in range(N)])
    advice["knots"] = [list(range(-2048, 2049, 8)) for _ in advice["directions"]]
    return tensors, advice


def language_spec(tensors: Tensors, targets: list[int], **task) -> dict:
    data = hashlib.sha256(array("f", tensors["data.resid_mid"][1]).tobytes()).hexdigest()
    defaults = {"data": data, "targets": targets, "activation": "gelu", "epsilon": EPSILON}
    return {"format": "xtalk.spec/1", "theorem": "T1 language", "weights": None, "task": defaults | task}


def language_certificate(tensors: Tensors, micronats: int, tokens: int, **advice) -> dict:
    return {
        "format": "xtalk.certificate/1",
        "theorem": "T1 language",
        "weights": hashlib.sha256(container(tensors)).hexdigest(),
        "claim": {"micronats": micronats, "tokens": tokens},
        "advice": advice,
    }


def task_of(tensors: Tensors, targets: list[int], **task) -> Fields:
    return Fields(language_spec(tensors, targets, **task)["task"], "task")


def norm(tensors: Tensors, name: str, row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    scale = sqrt(sum((a - mean) ** 2 for a in row) / len(row) + EPSILON / 1e6)
    weight, bias = tensors[f"{name}.weight"][1], tensors[f"{name}.bias"][1]
    return [(a - mean) / scale * w + b for a, w, b in zip(row, weight, bias, strict=True)]


def times(x: list[float], tensors: Tensors, name: str) -> list[float]:
    (rows, columns), values = tensors[name]
    return [sum(x[i] * values[i * columns + j] for i in range(rows)) for j in range(columns)]


def mlp_input(tensors: Tensors, t: int) -> list[float]:
    (_, width), values = tensors["data.resid_mid"]
    return norm(tensors, "norm_in", values[t * width : (t + 1) * width])


def stream(tensors: Tensors, t: int, activation: str = "gelu") -> list[float]:
    """z, in plain loops."""
    (_, width), values = tensors["data.resid_mid"]
    hidden = times(mlp_input(tensors, t), tensors, "w_in")
    active = [ACTIVATIONS[activation](h + b) for h, b in zip(hidden, tensors["b_in"][1], strict=True)]
    out, x = times(active, tensors, "w_out"), values[t * width : (t + 1) * width]
    return [a + b + c for a, b, c in zip(x, out, tensors["b_out"][1], strict=True)]


def loss(tensors: Tensors, t: int, target: int, activation: str = "gelu") -> float:
    """-log softmax(logits)[target], in plain loops."""
    logits = times(norm(tensors, "norm_out", stream(tensors, t, activation)), tensors, "unembed")
    return log(sum(exp(logit - logits[target]) for logit in logits))
