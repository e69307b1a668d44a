"""A certificate with the figures that stand beside it: what every prover returns."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from xtalk.proofs.certificates import Certificate, certified_in_real_numbers
from xtalk.proofs.row import CertificateRow, Figure
from xtalk.proofs.timing import Timing, against_brute_force


@dataclass(frozen=True)
class Proof:
    """A certificate, the figures beside it, and `further` keys that the row of its theorem has.

    per_input: the multiply-adds of running the network on one input. The other fields are `CertificateRow`'s.
    """

    certificate: Certificate
    what: str
    bound: float
    vacuous: bool
    true: Figure
    mlp_ablated: Figure
    unconstrained: Figure | None
    brute_force_macs: int
    per_input: Fraction
    brute_force: Timing
    further: dict[str, Any] = field(default_factory=dict[str, Any])

    def row(self, path: Path) -> CertificateRow:
        """The certificate's row in metrics.json, `path` being where the certificate was saved."""
        verdict, seconds = self.certificate.verdict, self.certificate.cpu_seconds
        macs = verdict.length.multiply_adds
        return CertificateRow(
            path=path.name,
            theorem=verdict.theorem,
            what=self.what,
            claim=self.certificate.claim,
            bound=self.bound,
            arithmetic=self.certificate.spec["task"].get("arithmetic", "real"),
            certified_in_real_numbers=certified_in_real_numbers(self.certificate),
            vacuous=self.vacuous,
            true=self.true,
            mlp_ablated=self.mlp_ablated,
            unconstrained=self.unconstrained,
            macs=macs,
            evaluations=verdict.length.evaluations,
            reads=verdict.length.reads,
            brute_force_macs=self.brute_force_macs,
            break_even_inputs=ceil(macs / self.per_input),
            check_seconds=verdict.seconds,
            check_cpu_seconds=seconds,
            brute_force_cpu_seconds=self.brute_force.seconds,
            brute_force_estimated=self.brute_force.estimated,
            against_brute_force=against_brute_force(macs, self.brute_force_macs, seconds, self.brute_force),
            verdict=verdict.verdict,
            **self.further,
        )
