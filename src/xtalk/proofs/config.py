"""What to prove, and of which network: a configuration for each theorem, whose defaults prove something."""

from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from xtalk.errors import XtalkError
from xtalk.proofs.t1.certificate import Form
from xtalk.proofs.t3.sum_network import Activation
from xtalk.proofs.t3.tasks import TaskName


class TheoremConfig(BaseModel):
    """What all configurations share: a name for the certificate's files, which no two of them share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stem: ClassVar[str]  # of the name
    words: ClassVar[dict[str, str]] = {}  # for a value of a field, where FIELD-VALUE reads badly

    @property
    def name(self) -> str:
        """The name of the certificate's files: the stem, and every value that is not the default."""
        return "-".join([self.stem, *self._others()])

    def _others(self, *in_stem: str) -> list[str]:
        """The values that are not the default, but for those of the fields that the stem tells."""
        parts: list[str] = []
        for key, value in self.model_dump(exclude=set(in_stem)).items():
            if value == type(self).model_fields[key].default:
                continue
            if isinstance(value, dict):
                parts += [f"{inner}-{weight}" for inner, weight in sorted(value.items())]
            else:
                parts.append(self.words.get(key, f"{key}-{{}}").format(value))
        return parts


class ProveConfig(TheoremConfig):
    """Theorem T3: a network on every sequence of n tokens.

    network: one MLP on the sum of the tokens; or one head of attention in which the last token asks, for max
    and min, post hoc only, to which activation, residual and neurons do not apply. vocabulary: tokens (for
    lookup: values), names of `classes` classes; dictionary: latents of the crosscoder; post_hoc: certify the
    network as ordinary training leaves it, cross-entropy and weight decay alone. Otherwise the bound is in
    its loss, and with weight `direct` what the direct path carries past the MLP.
    """

    words = {"activation": "{}", "residual": "no-residual"}

    network: Literal["mlp", "attention"] = "mlp"
    task: TaskName = "max"
    vocabulary: int = Field(default=64, ge=2)
    n: int = Field(default=4, ge=2)
    classes: int = Field(default=8, ge=2)
    dictionary: int = Field(default=8, ge=2)
    activation: Activation = "relu"
    residual: bool = True
    post_hoc: bool = False
    direct: float = Field(default=3.0, ge=0)
    d_model: int = Field(default=32, ge=1)
    neurons: int = Field(default=64, ge=1)
    network_steps: int = Field(default=1500, ge=1)
    aware_steps: int = Field(default=600, ge=1)
    crosscoder_steps: int = Field(default=800, ge=1)
    penalties: dict[str, float] = {}
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def name(self) -> str:
        """The name of the certificate's files: task, sizes, mode, and what is not the default."""
        mode = "post-hoc" if self.post_hoc else "aware"
        layer = "attention-" if self.network == "attention" else ""
        stem = f"{self.task}-{self.n}-of-{self.vocabulary}-{layer}{mode}"
        return "-".join([stem, *self._others("task", "n", "vocabulary", "network", "post_hoc")])


class PositionsConfig(TheoremConfig):
    """Theorem T3 for attention with positions: a head of attention as Gross et al. 2024 train theirs.

    Every token is an answer of its own. `network_steps` steps of 128 random sequences, cross-entropy
    and AdamW.
    """

    task: Literal["max", "min"] = "max"
    vocabulary: int = Field(default=64, ge=2)
    n: int = Field(default=4, ge=2)
    d_model: int = Field(default=32, ge=1)
    network_steps: int = Field(default=3000, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def name(self) -> str:
        """The name of the certificate's files: task, sizes, and what is not the default."""
        stem = f"{self.task}-{self.n}-of-{self.vocabulary}-positions"
        return "-".join([stem, *self._others("task", "n", "vocabulary")])


class DigitsConfig(TheoremConfig):
    """Theorem T1: a digits network on 449 held-out images.

    form: "tables" of each feature's effect, `entries` in the mean (more are longer and tighter); or "exact",
    by running the network. post_hoc: train an ordinary network of this seed, and its crosscoder on the bound,
    instead of the proof-aware network that ships, of seed 0.
    """

    stem = "digits"
    words = {"post_hoc": "post-hoc"}

    form: Form = "tables"
    entries: int = Field(default=4, ge=1)
    post_hoc: bool = False
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _shipped_has_seed_0(self) -> "DigitsConfig":
        if self.seed and not self.post_hoc:
            raise ValueError("the digits network that ships has seed 0; another seed needs post_hoc")
        return self


class ChartsConfig(TheoremConfig):
    """Theorem T1 in form "charts": an ordinarily trained digits network, to second order around points.

    per_label: points for each digit, the means of clusters of training images; more are longer and tighter.
    """

    stem = "digits-charts"

    per_label: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)


class LanguageConfig(TheoremConfig):
    """Theorem T1 for a language model: the loss of the embedded model's tail, from the last MLP on.

    The MLP is trained on, each neuron reading one of `features` features, for `steps` steps on `sequences`
    sequences of 256 tokens. tokens: places of the held-out text that the claim is about. knots: for each
    feature's table, in the mean; more are longer and tighter. post_hoc: the MLP as it is, of which nothing
    but a vacuous bound is known.
    """

    stem = "language"
    words = {"post_hoc": "post-hoc"}

    features: int = Field(default=128, ge=1)
    steps: int = Field(default=1500, ge=1)
    sequences: int = Field(default=3000, ge=1)
    tokens: int = Field(default=4096, ge=1)
    knots: int = Field(default=256, ge=2)
    post_hoc: bool = False
    seed: int = Field(default=0, ge=0, lt=2**31)


C = TypeVar("C", bound=TheoremConfig)


def prove_config(kind: type[C], **given: Any) -> C:
    """The configuration with these keys. Errors: XtalkError names the first that is wrong, as an option."""
    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = "--" + ".".join(map(str, first["loc"])).replace("_", "-")
        raise XtalkError(f"{option}: {first['msg']}; choose another value of {option}") from error
