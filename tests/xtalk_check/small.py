"""Tiny networks and certificates, made without the prover."""

import hashlib
import json
import random
import struct
from array import array
from math import prod

MAGIC = b"xtalk.weights/1\n"


def container(tensors: dict[str, tuple[tuple[int, ...], list[float]]]) -> bytes:
    parts = [MAGIC, struct.pack("<I", len(tensors))]
    for name in sorted(tensors):
        shape, values = tensors[name]
        assert prod(shape) == len(values)
        parts += [struct.pack("<H", len(name)), name.encode(), struct.pack("<B", len(shape))]
        parts += [struct.pack(f"<{len(shape)}I", *shape), array("f", values).tobytes()]
    return b"".join(parts)


def random_tensors(rng: random.Random, V: int, D: int, N: int, C: int, scale: float = 0.6) -> dict:
    def normal(*shape: int) -> tuple[tuple[int, ...], list[float]]:
        return shape, [rng.gauss(0, scale) for _ in range(prod(shape))]

    return {
        "embed": normal(V, D),
        "w_in": normal(D, N),
        "b_in": normal(N),
        "w_out": normal(N, D),
        "b_out": normal(D),
        "unembed": normal(D, C),
        "b_unembed": normal(C),
    }


def spec(theorem: str = "T3", **task) -> dict:
    defaults = {
        "name": "max",
        "n": 3,
        "answers": 4,
        "classes": [0, 1, 2, 3],
        "activation": "gelu",
        "residual": True,
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
