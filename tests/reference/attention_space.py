"""A layer of attention on sequences of tokens, by the slow obvious formula, and certificates about it."""

import hashlib
import random
from math import exp, prod

from reference.product_space import Tensors, codebook, right_answer, sequences

NAMES = ("embed", "w_query", "w_key", "w_value", "w_out", "b_out", "unembed", "b_unembed")


def random_attention(seed: int, V: int, D: int, H: int, C: int, scale: float = 0.8) -> Tensors:
    """Weights that float32 holds exactly."""
    rng = random.Random(seed)
    shapes = ((V, D), (D, H), (D, H), (D, H), (H, D), (D,), (D, C), (C,))
    return {
        name: (shape, [round(rng.gauss(0, scale) * 1024) / 1024 for _ in range(prod(shape))])
        for name, shape in zip(NAMES, shapes, strict=True)
    }


def attention_solver(V: int) -> Tensors:
    """Answers max of at most 7: the score of token t is 2 t, and each token speaks for itself."""
    identity = (V, V), [float(i == j) for i in range(V) for j in range(V)]
    first = [float(j == 0) for _ in range(V) for j in range(V)]
    rising = [2.0 * i * float(j == 0) for i in range(V) for j in range(V)]
    return {
        "embed": identity,
        "w_query": ((V, V), first),
        "w_key": ((V, V), rising),
        "w_value": identity,
        "w_out": identity,
        "b_out": ((V,), [0.0] * V),
        "unembed": identity,
        "b_unembed": ((V,), [0.0] * V),
    }


def attention_spec(**task) -> dict:
    defaults = {
        "name": "max",
        "n": 3,
        "answers": 4,
        "classes": [0, 1, 2, 3],
        "residual": False,
        "ties": "lose",
        "arithmetic": "real",
    }
    return {
        "format": "xtalk.spec/1",
        "theorem": "T3 attention",
        "weights": None,
        "task": defaults | task,
    }


def attention_certificate(weights: bytes, certified: int = 0, total: int = 64, **advice) -> dict:
    partitions = {
        "query": codebook(range(4)),
        "anchor": codebook(range(4)),
        "rest": codebook([0] * 4),
        "bits": 10,
    }
    return {
        "format": "xtalk.certificate/1",
        "theorem": "T3 attention",
        "weights": hashlib.sha256(weights).hexdigest(),
        "claim": {"certified": certified, "total": total},
        "advice": partitions | advice,
    }


def placed(tensors: Tensors, n: int, seed: int = 0, scale: float = 0.3) -> Tensors:
    """The same network with positions."""
    rng, width = random.Random(seed), tensors["embed"][0][1]
    values = [round(rng.gauss(0, scale) * 1024) / 1024 for _ in range(n * width)]
    return tensors | {"position": ((n, width), values)}


def positions_solver(V: int, n: int, noise: float = 0.0, seed: int = 0) -> Tensors:
    """Answers max, beside a residual path, or nearly so with noise on every weight."""
    noises, solver = placed(random_attention(seed, V, V, V, V, noise), n, seed, noise), attention_solver(V)
    shape, values = solver["w_value"]
    solver |= {"w_value": (shape, [4 * value for value in values])}
    return {
        name: (shape, [a + b for a, b in zip(values, noises[name][1], strict=True)])
        for name, (shape, values) in placed(solver, n, scale=0).items()
    }


def positions_spec(**task) -> dict:
    defaults = attention_spec()["task"] | {"n": 3}
    del defaults["residual"]
    return {
        "format": "xtalk.spec/1",
        "theorem": "T3 positions",
        "weights": None,
        "task": defaults | task,
    }


def positions_certificate(weights: bytes, certified: int = 0, total: int = 64) -> dict:
    given = attention_certificate(weights, certified, total)
    return given | {"theorem": "T3 positions", "advice": {}}


def with_value(tensors: Tensors, name: str, at: int, value: float) -> Tensors:
    """The weights with one number of a tensor, the one at that place of it, replaced."""
    shape, values = tensors[name]
    return tensors | {name: (shape, [value if i == at else v for i, v in enumerate(values)])}


def run(tensors: Tensors, tokens, residual: bool) -> tuple[list[float], list[float]]:
    """The scores of all positions and the logits, in plain loops."""

    def matrix(name):
        (rows, columns), values = tensors[name]
        return [values[i * columns : (i + 1) * columns] for i in range(rows)]

    def times(x, w):
        return [sum(x[i] * w[i][j] for i in range(len(x))) for j in range(len(w[0]))]

    x = [matrix("embed")[t] for t in tokens]
    if "position" in tensors:
        x = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(x, matrix("position"), strict=True)]
    query = times(x[-1], matrix("w_query"))
    keys = [times(row, matrix("w_key")) for row in x]
    scores = [sum(a * b for a, b in zip(query, key, strict=True)) for key in keys]
    top = max(scores)
    whole = sum(exp(s - top) for s in scores)
    mixed = [
        sum(exp(s - top) / whole * row[d] for s, row in zip(scores, x, strict=True)) for d in range(len(x[0]))
    ]
    y = times(times(mixed, matrix("w_value")), matrix("w_out"))
    y = [a + b for a, b in zip(y, tensors["b_out"][1], strict=True)]
    if residual:
        y = [a + b for a, b in zip(y, x[-1], strict=True)]
    logits = [a + b for a, b in zip(times(y, matrix("unembed")), tensors["b_unembed"][1], strict=True)]
    return scores, logits


def count_right_by_attention(tensors: Tensors, task: dict) -> tuple[int, int]:
    """How many sequences are answered right, with ties lost, and how many there are.

    With positions there always is a residual path.
    """
    right = total = 0
    for tokens in sequences(task):
        total += 1
        answer, found = right_answer(task, tokens), run(tensors, tokens, task.get("residual", True))[1]
        right += all(found[answer] > other for c, other in enumerate(found) if c != answer)
    return right, total
