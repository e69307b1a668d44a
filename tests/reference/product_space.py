"""Networks on sequences of tokens: in files as the checker reads them, and by the slow obvious formula."""

import hashlib
import json
import random
import struct
from array import array
from itertools import product
from math import erf, prod, sqrt, tanh

MAGIC = b"xtalk.weights/1\n"
Tensors = dict[str, tuple[tuple[int, ...], list[float]]]


def container(tensors: Tensors) -> bytes:
    parts = [MAGIC, struct.pack("<I", len(tensors))]
    for name in sorted(tensors):
        shape, values = tensors[name]
        parts += [struct.pack("<H", len(name)), name.encode(), struct.pack("<B", len(shape))]
        parts += [struct.pack(f"<{len(shape)}I", *shape), array("f", values).tobytes()]
    return b"".join(parts)


def random_network(seed: int, V: int, D: int, N: int, C: int, scale: float = 0.6) -> Tensors:
    """Weights that float32 holds exactly."""
    rng = random.Random(seed)
    shapes = {
        "embed": (V, D),
        "w_in": (D, N),
        "b_in": (N,),
        "w_out": (N, D),
        "b_out": (D,),
        "unembed": (D, C),
        "b_unembed": (C,),
    }
    return {
        name: (shape, [round(rng.gauss(0, scale) * 1024) / 1024 for _ in range(prod(shape))])
        for name, shape in shapes.items()
    }


def solver(V: int, gain: float = 1.0) -> Tensors:
    """A ReLU network that answers max-of-n: the logit of c is c + 1 if the token c is there, and 0 if not.

    Two neurons for each token count it: phi(count) - phi(count - 1) = min(count, 1). With a gain it is nearly
    right for GELU too.
    """
    identity = [float(i == j) for i in range(V) for j in range(V)]
    twice = [gain * float(i == j % V) for i in range(V) for j in range(2 * V)]
    out = [
        (-1.0 if i >= V else 1.0) * float(i % V == j) * (j + 1) / gain for i in range(2 * V) for j in range(V)
    ]
    return {
        "embed": ((V, V), identity),
        "w_in": ((V, 2 * V), twice),
        "b_in": ((2 * V,), [0.0] * V + [-gain] * V),
        "w_out": ((2 * V, V), out),
        "b_out": ((V,), [0.0] * V),
        "unembed": ((V, V), identity),
        "b_unembed": ((V,), [0.0] * V),
    }


def spec(theorem: str = "T3", **task) -> dict:
    defaults = {
        "name": "max",
        "n": 3,
        "answers": 4,
        "classes": [0, 1, 2, 3],
        "activation": "relu",
        "residual": False,
        "ties": "lose",
        "arithmetic": "real",
    }
    return {"format": "xtalk.spec/1", "theorem": theorem, "weights": None, "task": defaults | task}


def codebook(blocks, columns=None) -> dict:
    return {"columns": columns, "blocks": list(blocks)}


def certificate(weights: bytes, theorem: str = "T3", certified: int = 0, total: int = 64, **advice) -> dict:
    product_space = {"anchor": codebook(range(4)), "rest": codebook([0] * 4), "bits": 6}
    return {
        "format": "xtalk.certificate/1",
        "theorem": theorem,
        "weights": hashlib.sha256(weights).hexdigest(),
        "claim": {"certified": certified, "total": total},
        "advice": (product_space if theorem == "T3" else {}) | advice,
    }


def encoded(value: dict) -> bytes:
    return json.dumps(value).encode()


ACTIVATIONS = {
    "relu": lambda x: max(x, 0.0),
    "gelu": lambda x: x * (1 + erf(x / sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + tanh(sqrt(2 / 3.141592653589793) * (x + 0.044715 * x**3))) / 2,
}


def logits(tensors: Tensors, tokens, activation: str, residual: bool) -> list[float]:
    """The network's logits on one sequence, in plain loops."""

    def matrix(name):
        (rows, columns), values = tensors[name]
        return [values[i * columns : (i + 1) * columns] for i in range(rows)]

    def affine(x, w, b):
        return [b[j] + sum(x[i] * w[i][j] for i in range(len(x))) for j in range(len(b))]

    embed = matrix("embed")
    x = [sum(embed[t][d] for t in tokens) for d in range(len(embed[0]))]
    h = affine(x, matrix("w_in"), tensors["b_in"][1])
    y = affine([ACTIVATIONS[activation](v) for v in h], matrix("w_out"), tensors["b_out"][1])
    if residual:
        y = [a + b for a, b in zip(x, y, strict=True)]
    return affine(y, matrix("unembed"), tensors["b_unembed"][1])


def right_answer(task: dict, tokens) -> int | None:
    """The task in words, once more."""
    classes = [task["classes"][t] for t in tokens]
    if task["name"] == "lookup":
        return classes[tokens[0] + 1]
    if task["name"] == "modular_addition":
        return sum(classes) % task["answers"]
    if task["name"] == "majority":
        return next((c for c in classes if 2 * classes.count(c) > len(classes)), None)
    return max(classes) if task["name"] == "max" else min(classes)


def sequences(task: dict):
    """Every sequence that has an answer."""
    V, n = len(task["classes"]), task["n"]
    if task["name"] == "lookup":
        size = V // (n - 1) - 1
        groups = [range(n - 1 + k * size, n - 1 + (k + 1) * size) for k in range(n - 1)]
        yield from product(range(n - 1), *groups)
    else:
        yield from (t for t in product(range(V), repeat=n) if right_answer(task, t) is not None)


def count_right(tensors: Tensors, task: dict) -> tuple[int, int]:
    """How many sequences are answered right, with ties lost, and how many there are."""
    right = total = 0
    for tokens in sequences(task):
        total += 1
        answer = right_answer(task, tokens)
        found = logits(tensors, tokens, task["activation"], task["residual"])
        right += all(found[answer] > other for c, other in enumerate(found) if c != answer)
    return right, total
