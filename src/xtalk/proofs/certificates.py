"""Certificates on disk, and the one way to make them: a claim is what the independent checker proves."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import torch
import xtalk_check
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.files import replacing, write_text

_MAGIC = b"xtalk.weights/1\n"


@dataclass(frozen=True)
class Certificate:
    """A certificate that the checker accepted: its claim, its weights, and what checking it costs.

    cpu_seconds: of the check, which uses one core.
    """

    certificate: dict[str, Any]
    spec: dict[str, Any]
    weights: bytes
    verdict: xtalk_check.Verdict
    cpu_seconds: float

    @property
    def claim(self) -> dict[str, int]:
        """The exact integers that are claimed."""
        return self.certificate["claim"]

    def save(self, folder: Path, name: str) -> Path:
        """Write NAME.weights, NAME.spec.json and NAME.json, in this order; returns the last one's path."""
        with replacing(folder / f"{name}.weights") as partial:
            partial.write_bytes(self.weights)
        write_text(folder / f"{name}.spec.json", _text(self.spec))
        write_text(folder / f"{name}.json", _text(self.certificate))
        return folder / f"{name}.json"


def container(tensors: Mapping[str, Tensor]) -> bytes:
    """The canonical container of weights: sorted names, sizes, little-endian float32 values."""
    parts = [_MAGIC, struct.pack("<I", len(tensors))]
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        parts += [
            struct.pack("<H", len(name)),
            name.encode("ascii"),
            struct.pack("<B", values.ndim),
            struct.pack(f"<{values.ndim}I", *values.shape),
            values.astype("<f4").tobytes(),
        ]
    return b"".join(parts)


def certify(
    spec: dict[str, Any],
    weights: bytes,
    advice: dict[str, Any],
    total: int,
) -> Certificate:
    """The certificate with this advice that claims the most: what the checker finds proven, checked again.

    total: the number of inputs, which a claim has to state. Errors: XtalkError where the checker refuses it.
    """

    def claim(proven: dict[str, int]) -> dict[str, int]:
        return {"certified": proven["certified"], "total": total}

    return certify_claim(spec, weights, advice, claim({"certified": 0}), claim)


def certify_claim(
    spec: dict[str, Any],
    weights: bytes,
    advice: dict[str, Any],
    weakest: dict[str, int],
    claim: Callable[[dict[str, int]], dict[str, int]],
) -> Certificate:
    """The certificate with this advice that claims what the checker finds proven, checked again.

    weakest: a claim that any proof implies. claim: from what is proven to what is claimed. Errors: as above.
    """

    def claiming(claimed: dict[str, int]) -> dict[str, Any]:
        return {
            "format": "xtalk.certificate/1",
            "theorem": spec["theorem"],
            "weights": spec["weights"],
            "claim": claimed,
            "advice": advice,
        }

    certificate = claiming(claim(_checked(claiming(weakest), spec, weights).proven))
    began = process_time()
    verdict = _checked(certificate, spec, weights)
    return Certificate(certificate, spec, weights, verdict, process_time() - began)


def certified_in_real_numbers(certificate: Certificate) -> int | None:
    """How many inputs a certificate of a float32 network certifies of the real-valued one; None of others."""
    task = certificate.spec["task"]
    if task.get("arithmetic") != "float32":
        return None
    spec = certificate.spec | {"task": task | {"arithmetic": "real"}}
    return _checked(certificate.certificate, spec, certificate.weights).proven["certified"]


def _checked(certificate: dict[str, Any], spec: dict[str, Any], weights: bytes) -> xtalk_check.Verdict:
    verdict = xtalk_check.check(_text(certificate).encode(), _text(spec).encode(), weights)
    if verdict.exit_code:
        raise XtalkError(
            f"the checker does not accept the certificate: {verdict.verdict}, {verdict.reason}; "
            "expected a proof of the claim; report it as a bug of the prover"
        )
    return verdict


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"
