"""A certificate's row in metrics.json: the one record that provers write and reports read."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_serializer


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """The record for a JSON file: the keys that were set."""
        return self.model_dump(mode="json", exclude_unset=True)


class Figure(_Record):
    """A measured figure in the row's unit: on all inputs (`exhaustive`), or on a sample with an interval.

    right, inputs: the counts behind an accuracy; ci95: Clopper and Pearson's interval.
    """

    value: float
    ci95: tuple[float, float] | None = None
    right: int | None = None
    inputs: int | None = None
    exhaustive: bool = False


def _empty_is_none(value: object) -> object:
    return value or None


class CertificateRow(_Record):
    """What a checked certificate claims, what stands beside the claim, and what the check costs.

    path: of the certificate, relative to metrics.json. what: network and task in words. unit: "accuracy",
    where a bound is from below and on a fraction of inputs, or "nat/token", where it is from above and on a
    loss.
    arithmetic: whether the claim is about the deployed float32 network, under the assumptions of
    docs/proofs/theory.md, or about real numbers alone. certified_in_real_numbers: beside a claim about
    float32, which holds of the real-valued network too, how many inputs are certified of that.
    vacuous: whether a constant answer (of a loss: the network without its MLP) does as well as the bound.
    true, mlp_ablated: the network as it is, and without its layer; unconstrained: before the bound entered
    its training, None where there is no such network. network, task, post_hoc, vocabulary, features, columns:
    of the theorems for which they mean something. macs, evaluations, reads: the length of the check;
    break_even_inputs: on how many inputs the network itself takes as many multiply-adds. against_brute_force:
    whether the check is shorter, and whether it is faster, in words.
    """

    path: str
    theorem: str
    what: str
    network: Literal["mlp", "attention"] | None = None
    task: str | None = None
    post_hoc: bool | None = None
    unit: Literal["accuracy", "nat/token"] = "accuracy"
    claim: dict[str, int]
    bound: float
    arithmetic: Literal["real", "float32"]
    certified_in_real_numbers: int | None = None
    vacuous: bool
    true: Figure
    mlp_ablated: Figure
    unconstrained: Annotated[Figure | None, BeforeValidator(_empty_is_none)] = None
    constant_answer: float | None = None
    vocabulary: int | None = None
    features: int | None = None
    columns: int | None = None
    macs: int = Field(ge=0)
    evaluations: int
    reads: int
    brute_force_macs: int
    break_even_inputs: int
    check_seconds: float
    check_cpu_seconds: float
    brute_force_cpu_seconds: float
    brute_force_estimated: bool
    against_brute_force: str
    verdict: str

    @field_serializer("unconstrained")
    def _absent_is_empty(self, value: Figure | None) -> dict[str, Any]:
        return {} if value is None else value.as_json()

    def in_folder(self, folder: str) -> "CertificateRow":
        """The same row, read from the parent of the certificate's folder."""
        return self.model_copy(update={"path": f"{folder}/{self.path}"})
