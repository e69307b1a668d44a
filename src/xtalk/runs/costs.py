"""What a run costs, counted from its configuration and the model's sizes: FLOPs by step, memory and disk.

A multiplication and an addition count as two. Counted are the large products: the model's passes, the
contributions of penalties, passes of the model with rebuilt outputs. How fast each kind runs, and how long a
crosscoder's own step takes with the penalties that stay at their MLP, is measured (`runs/plan.py`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from xtalk.activations import estimate_bytes
from xtalk.data import TokenSequences
from xtalk.evaluation.schemes import SCHEMES
from xtalk.models.language_model import LanguageModel
from xtalk.runs.config import CrosscoderSpec
from xtalk.runs.workbench import Workbench
from xtalk.training.config import calibration_tokens
from xtalk.training.preparation import SPLICE_SAMPLE
from xtalk.training.sampling import drawn
from xtalk.training.spliced import SPLICES

_SINKS = 16  # sequences
_BASE_BYTES = 700 << 20  # of Python with torch, transformers and compiled loops
_MICRO_BATCH_BYTES = 1 << 30  # of a micro-batch with logits (models/devices.py)
_READINGS = 4  # passes over held-out text that look at codes: interactions, clusters, dormant neurons


@dataclass(frozen=True)
class Passes:
    """FLOPs of a model per token: of one block, and of the head that makes logits."""

    blocks: int
    block: float
    head: float

    @staticmethod
    def of(model: LanguageModel, length: int) -> "Passes":
        """From the number of parameters; attention to half of `length` tokens."""
        head = model.vocabulary * model.d_model
        tables = [m.weight for m in model.hf.modules() if isinstance(m, nn.Embedding)]
        looked_up = sum(table.numel() for table in tables)
        if not model.hf.config.tie_word_embeddings:
            looked_up += head
        weights = (model.n_params - looked_up) / model.n_blocks
        attention = 2 * length * model.d_model
        return Passes(model.n_blocks, 2 * weights + attention, 2.0 * head)

    def up_to(self, block: int) -> float:
        """Of a pass that ends behind a block."""
        return (block + 1) * self.block

    def above(self, block: int) -> float:
        """Of a pass from behind a block to the logits."""
        return (self.blocks - 1 - block) * self.block + self.head


@dataclass(frozen=True)
class Cost:
    """FLOPs of one step of a run, by what they are of, and its steps of a crosscoder's training.

    model: passes that capture activations; scored: passes on to the logits and the loss of each token;
    spliced: those with gradients, in the training's dtype; products: contributions in training. penalties: of
    the training steps, those that stay at their MLP.
    """

    model: float = 0.0
    scored: float = 0.0
    spliced: float = 0.0
    products: float = 0.0
    training_steps: int = 0
    penalties: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def flops(self) -> float:
        """All that is counted."""
        return self.model + self.scored + self.spliced + self.products


class Costs:
    """The costs of a run's steps, from what its workbench has: the model and the text."""

    def __init__(self, workbench: Workbench) -> None:
        self._workbench, self.config = workbench, workbench.config
        model = workbench.model
        self.passes = Passes.of(model, self.config.sequence_length)
        self.last = max(point.block for point in workbench.hookpoints)
        self.mlps = [point.block for point in workbench.hookpoints if point.site == "ln2"]
        self._paths = 2 if model.mlp_weights(0).gated else 1
        self.P, self.D, self.N = len(workbench.hookpoints), model.d_model, model.d_mlp
        self.L, self.B = self.config.crosscoder.d_sae, self.config.training.batch_tokens

    @property
    def crosscoder_parameters(self) -> int:
        """Of one crosscoder."""
        return (2 * self.L + 1) * self.P * self.D + 2 * self.L

    @property
    def training_tokens(self) -> int:
        """That each crosscoder is trained and calibrated on."""
        return self.config.training.tokens_needed

    def of(self, step: str) -> Cost:
        """Of a step by its name; steps that do not grow with the model count nothing."""
        kind, _, name = step.partition("/")
        specs = {spec.name: spec for spec in self.config.crosscoders}
        match kind:
            case "harvest":
                return self._harvest()
            case "train":
                return self._training(specs[name])
            case "baselines":
                return Cost(scored=self._evaluated() * self._baselines())
            case "evaluate" if name:
                return Cost(scored=self._evaluated() * self._evaluation())
            case "interact" | "cluster" | "dormant":
                return Cost(model=self._evaluated() * _READINGS * self.passes.up_to(self.last))
            case _:
                return Cost()

    def _harvested(self, tokens: int) -> float:
        """Of activations for training; read from the disk if the run stores them."""
        return 0.0 if self.config.harvest.store else tokens * self.passes.up_to(self.last)

    def _harvest(self) -> Cost:
        harvest, passes = self.config.harvest, self.passes
        looked_at = 0 if harvest.keep_sinks else _SINKS * self.config.sequence_length
        flops = looked_at * passes.up_to(self.last) + self._harvested(harvest.scaling_tokens)
        if harvest.store:
            flops += self._workbench.train_sequences.tokens.size * passes.up_to(self.last)
        metric = [passes.up_to(block) + 2 * passes.above(block) for block in self.mlps]
        return Cost(model=flops, scored=harvest.loss_metric_tokens * sum(metric))

    def _training(self, spec: CrosscoderSpec) -> Cost:
        steps, passes = self.config.training.steps, self.passes
        harvested = self._harvested(self.training_tokens)
        first = spec == self.config.crosscoders[0]
        if first:  # what all crosscoders start from
            harvested += self._harvested(calibration_tokens(self.B))
        above = [passes.above(block) for block in self.mlps]
        whole = passes.up_to(passes.blocks - 1) + passes.head
        spliced, local = 0.0, {name: w for name, w in spec.penalties.items() if name not in SPLICES}
        if first and any(name in SPLICES for other in self.config.crosscoders for name in other.penalties):
            spliced = SPLICE_SAMPLE * self.config.sequence_length * (2 * whole + sum(above))
        if kinds := [SPLICES[name] for name in spec.penalties if name in SPLICES]:
            training = self.config.training
            every = drawn(len(above), training.sample_blocks, 0, 0) is None
            alone = sum(above) if every else sum(above) / len(above)
            passed = sum(alone if kind.together is None else above[0] for kind in kinds)
            run_on = self.splice_tokens() * (1 - training.splice_from) * steps
            spliced += run_on * (whole + 2 * passed)
        products = steps * self._products(spec.penalties)
        return Cost(harvested, 0.0, spliced, products, steps, local)

    def splice_tokens(self) -> float:
        """Of the whole sequences that a batch has tokens of, which a splice runs on.

        Tokens are mixed within a buffer, so a batch that goes past the end of one has some of all sequences
        of the next one too.
        """
        buffer = self.config.harvest.buffer_sequences
        counted = int(self._workbench.counted.mask(self._workbench.train_sequences.tokens[:buffer]).sum())
        buffers = 1 + (self.B - math.gcd(self.B, counted)) / counted  # in the mean over batches
        return min(buffers * buffer, self.B) * self.config.sequence_length

    def _products(self, penalties: Mapping[str, float]) -> float:
        """Forward and backward of all contributions of a step, and of the outputs rebuilt from them."""
        if not penalties:
            return 0.0
        contributions = 6 * self._paths * self.L * self.D * self.N
        outputs = 6 * self.B * self.D * self.N * (self._paths + len(penalties))
        return len(self.mlps) * float(contributions + outputs)

    def _evaluated(self) -> int:
        return self.config.evaluation.tokens

    def _baselines(self) -> float:
        passes = self.passes
        whole = passes.up_to(passes.blocks - 1)
        return 3 * whole + passes.head + sum(passes.above(block) for block in self.mlps)

    def _evaluation(self) -> float:
        """One pass of the blocks above for each scheme, at each MLP and at all at once; and for streams."""
        points, passes = self._workbench.hookpoints, self.passes
        mids = {point.block for point in points if point.site == "resid_mid"}
        each = sum((1 + (block in mids)) * passes.above(block) for block in self.mlps)
        together = passes.above(min(self.mlps)) if self.mlps else 0.0
        streams = sum(passes.above(p.block) for p in points if p.site in ("resid_pre", "resid_post"))
        whole = passes.up_to(passes.blocks - 1) + passes.head
        return 2 * whole + (len(SCHEMES) + 1) * (each + together) + streams

    def peak_bytes(self) -> int:
        """Of the largest step, roughly: training with all it holds, or a micro-batch with logits."""
        model = self._workbench.model
        width = self._workbench.dtype.itemsize
        held = model.n_params * width + 2 * len(self.mlps) * (1 + self._paths) * self.D * self.N * 4
        length = self.config.sequence_length
        buffer = self.config.harvest.buffer_sequences * length * self.P * self.D * width
        training = 5 * 4 * self.crosscoder_parameters + 4 * self.B * (6 * self.P * self.D + 3 * self.L)
        penalised = [spec.penalties for spec in self.config.crosscoders if spec.penalties]
        if penalised:
            training += 12 * len(self.mlps) * self._paths * (self.L + 4 * self.B) * self.N
        kinds = max((sum(name in SPLICES for name in names) for names in penalised), default=0)
        if kinds:  # logits and their gradients, and what the blocks above keep for theirs
            above = self.passes.blocks - 1 - min(self.mlps, default=0)
            per_token = model.vocabulary * (3 + 5 * kinds) + 24 * kinds * above * self.D
            training += 4 * int(self.splice_tokens()) * per_token
        return _BASE_BYTES + held + buffer + max(training, _MICRO_BATCH_BYTES)

    def disk_bytes(self) -> int:
        """Crosscoders, one checkpoint at a time, and the store if the run keeps one."""
        crosscoders = 4 * self.crosscoder_parameters * (len(self.config.crosscoders) + 3)
        if not self.config.harvest.store:
            return crosscoders
        sequences: TokenSequences = self._workbench.train_sequences
        size = len(sequences), sequences.length, self.P, self.D
        return crosscoders + estimate_bytes(*size, self._workbench.dtype)


def remaining(steps: Sequence[str], costs: Costs) -> dict[str, Cost]:
    """The cost of each step that costs something."""
    return {step: cost for step in steps if (cost := costs.of(step)).flops or cost.training_steps}
