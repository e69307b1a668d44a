"""The record of report_data.json: what a report needs beyond metrics.json.

Every number is computed elsewhere; a report only formats it. Crosscoders are referred to by their name in
metrics.json. A block is its number in the model; "mean" is the mean over `provenance.blocks_averaged`. "all"
stands for all MLPs that the crosscoder reads, but the first block's, rebuilt at once, "all_with_0" for these
and the first block's.
"""

from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from xtalk.statistics import interval as statistics

Scheme = Literal[
    "full",
    "keep_8",
    "keep_4",
    "keep_2",
    "keep_1",
    "drop_second",
    "drop_largest",
    "drop_random",
    "keep_random",
    "keep_most_active",
    "shrink",
]
"""How the contributions that rebuild an MLP's output are chosen (docs/method.md, Fidelity)."""

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

ResidMid = Literal["model", "crosscoder"]
Baseline = Literal["mean", "zero"]
Together = Literal["all", "all_with_0"]
Status = Literal["measured", "estimated", "certified"]


def _ordered(interval: statistics.Interval) -> statistics.Interval:
    if interval.low > interval.high:
        raise ValueError(f"interval {list(interval)} has low above high; expected [value, low, high]")
    return interval


Interval = Annotated[statistics.Interval, AfterValidator(_ordered)]
"""[value, low, high], 95 %."""


class Strict(BaseModel):
    """A frozen record in which an unknown key or a number that is not finite is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True)


class FewHotPoint(Strict):
    """The m largest contributions per neuron: their share of sum_i |p_ki|, and Phi_mean with only them."""

    m: PositiveInt
    share: Interval
    fidelity: Interval


class FewHot(Strict):
    """A few-hot curve; resid_mid is the model's."""

    crosscoder: str
    block: NonNegativeInt | Literal["mean"]
    points: list[FewHotPoint] = Field(min_length=1)


class Ablation(Strict):
    """Fidelity of the MLP output rebuilt from the contributions that each scheme keeps.

    lost, ablation: what the scheme and the baseline cost, nat per token; weighed: phi with blocks weighed by
    their ablation's cost, 1 - (sum over blocks of lost) / (sum of ablation).
    """

    crosscoder: str
    block: NonNegativeInt | Literal["mean"] | Together
    resid_mid: ResidMid
    baseline: Baseline
    phi: dict[Scheme, Interval]
    weighed: dict[Scheme, Interval] = {}
    lost: dict[Scheme, Interval] = {}
    ablation: Interval | None = None


class Tightness(Strict):
    """Quantiles over tokens of the interaction bound Lip(phi) T over the true residual's norm: 1 is exact."""

    crosscoder: str
    block: NonNegativeInt
    q05: float
    q25: float
    q50: float
    q75: float
    q95: float


class InteractionMatrix(Strict):
    """Pair interactions of a site's strongest latents; row i dominates, or is the query's or destination's.

    A label describes a latent, for example by its top token; its number is added where it is shown.
    """

    crosscoder: str
    site: Literal["mlp", "qk", "ov", "norm"] = "mlp"
    block: NonNegativeInt | Literal["sum"]
    normaliser: Literal["none", "co_occurrence", "relative"]
    latents: list[NonNegativeInt] = Field(min_length=1)
    labels: list[str]
    values: list[list[float]]

    @model_validator(mode="after")
    def _square(self) -> "InteractionMatrix":
        n = len(self.latents)
        if len(self.labels) != n or len(self.values) != n or any(len(row) != n for row in self.values):
            raise ValueError(f"{n} latents need {n} labels and {n} x {n} values")
        return self


class TokenCount(Strict):
    """How often a latent fired on a token."""

    text: str
    count: NonNegativeInt


class LogitEffect(Strict):
    """A token whose logit a latent changes through the last residual stream, and by how much."""

    text: str
    effect: float


class Context(Strict):
    """A stretch of text with a latent's activation at every token; `peak` is the place of the strongest."""

    tokens: list[str] = Field(min_length=1)
    activations: list[float]
    peak: NonNegativeInt

    @model_validator(mode="after")
    def _aligned(self) -> "Context":
        if len(self.activations) != len(self.tokens) or self.peak >= len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens need as many activations and a peak among them")
        return self


class Feature(Strict):
    """A latent of the features table."""

    crosscoder: str
    latent: NonNegativeInt
    firing_rate: float = Field(ge=0, le=1, description="fraction of tokens on which it is active")
    mean_activation: float = Field(description="mean over the tokens on which it is active")
    interaction_share: float = Field(ge=0, description="its part of the crosscoder's total interaction")
    top_tokens: list[TokenCount]
    raised: list[LogitEffect] = Field([], description="at its mean activation; less the mean over tokens")
    lowered: list[LogitEffect] = []
    contexts: list[Context]


class Validation(Strict):
    """How well a measure of interaction ranks what interventions on pairs do; Spearman, 95 % over pairs.

    lead: over the better form of co-activation; beyond_size: partial, given the size of both features.
    """

    crosscoder: str
    block: NonNegativeInt | Literal["mean"]
    measure: str
    effect: Literal["output", "loss"]
    weighting: Literal["occurrence", "text"]
    pairs: PositiveInt
    rho: Interval
    documents: tuple[float, float, float] = Field(description="rho, its interval over documents")
    lead: Interval
    beyond_size: Interval


class WokenNeuron(Strict):
    """A dormant neuron that a trigger or another text wakes: how often it is on, and what drives it there.

    on_other: at what fraction of the tokens after the trigger, or of the other text. driver: the latent, -1
    for none; cluster: that latent's, -1 for none.
    """

    block: NonNegativeInt
    neuron: NonNegativeInt
    on_reference: float
    on_other: float
    on_other_in_control: float | None
    driver: int
    cluster: int


class Association(Strict):
    """A cluster, and how many of its units are marked; p by permutation, q the false discovery rate."""

    group: NonNegativeInt
    units: NonNegativeInt
    marked: NonNegativeInt
    expected: float
    odds_ratio: float
    p_value: float
    q_value: float


class DormancyData(Strict):
    """Dormant neurons: those that wake, and the clusters that go with them most."""

    woken: list[WokenNeuron]
    clusters: list[Association] = Field(description="units: neurons they drive; marked: dormant")
    clusters_of_woken: list[Association] = Field(description="units: as on what wakes; marked: woken")
    clusters_of_rare_latents: list[Association] = Field(description="units: their latents; marked: rare")


class Quantity(Strict):
    """How a kind of number was obtained: measured, estimated from a sample, or certified."""

    quantity: str
    status: Status
    how: str


class Provenance(Strict):
    """Where the numbers come from."""

    text: str = Field(description="the evaluation text in words: which, and whose")
    text_hash: str
    held_out: bool | None = Field(description="null: nobody knows whether the dictionary was trained on it")
    tokens: PositiveInt = Field(description="tokens evaluated")
    documents: PositiveInt
    seeds: list[int] = Field(min_length=1)
    blocks_averaged: list[NonNegativeInt] = Field(min_length=1)
    model_hash: str
    numbers: list[Quantity]


class Strongest(Strict):
    """The latents of a crosscoder that interact most: their pairs in the MLPs, and what they fire on."""

    matrix: InteractionMatrix
    features: list[Feature]


class ReportData(Strict):
    """report_data.json."""

    schema_: Literal["xtalk.report/1"] = Field("xtalk.report/1", alias="schema")
    kind: Literal["run", "measure"] = "run"
    headline: str = Field(description="the crosscoder that the summary describes")
    unpenalised: str = Field(description="the crosscoder it is compared with")
    provenance: Provenance
    ablations: list[Ablation]
    few_hot: list[FewHot] = []
    tightness: list[Tightness] = []
    interaction_matrices: list[InteractionMatrix] = []
    features: list[Feature] = []
    validation: list[Validation] = []
    dormancy: DormancyData | None = None
