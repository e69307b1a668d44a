"""The plan of a run: what it will cost, before anything is computed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import torch
from torch import Tensor

from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.reading.batches import next_token_loss
from xtalk.runs.costs import Cost, Costs, remaining
from xtalk.runs.pipeline import Pipeline
from xtalk.runs.workbench import Workbench
from xtalk.training.timing import seconds_per_step

LIMIT = 3600.0
"""Seconds that a run may take without being asked for it (`--yes`)."""
_TOKENS = 1024  # of the pass that is timed
_LEAST = 0.3  # seconds, in which a rate is measured


@dataclass(frozen=True)
class Plan:
    """What the steps of a run that are still to be done cost on this machine.

    hookpoints: by name; parameters: of the model, and of each crosscoder; training_tokens: for each; flops,
    seconds: by step; model_flops: of the model's passes per second, as measured. Memory and disk in bytes.
    """

    hookpoints: tuple[str, ...]
    crosscoders: tuple[str, ...]
    model_parameters: int
    crosscoder_parameters: int
    training_tokens: int
    evaluation_tokens: int
    flops: Mapping[str, float]
    seconds: Mapping[str, float]
    model_flops: float
    peak_bytes: int
    disk_bytes: int

    @property
    def total_seconds(self) -> float:
        """Of all steps."""
        return sum(self.seconds.values())

    def lines(self) -> list[str]:
        """The plan in words."""
        shown = ", ".join(self.hookpoints[:6]) + (", ..." if len(self.hookpoints) > 6 else "")
        steps = "; ".join(
            f"{step} {_time(seconds)} ({self.flops[step] / 1e12:.1f} TFLOP)"
            for step, seconds in self.seconds.items()
        )
        return [
            f"plan: {len(self.hookpoints)} hookpoints ({shown}) of a model of "
            f"{_millions(self.model_parameters)} parameters; crosscoders {', '.join(self.crosscoders)} of "
            f"{_millions(self.crosscoder_parameters)} each, trained on {self.training_tokens:,} tokens and "
            f"evaluated on {self.evaluation_tokens:,}",
            f"plan: {steps or 'nothing is left to do'}",
            f"plan: about {_time(self.total_seconds)} at {self.model_flops / 1e9:.0f} GFLOP/s, "
            f"{self.peak_bytes / 2**30:.1f} GB of memory, {self.disk_bytes / 2**30:.2f} GB of disk",
        ]

    def data(self) -> dict[str, Any]:
        """The plan as data, ready for JSON."""
        return {
            "hookpoints": list(self.hookpoints),
            "crosscoders": list(self.crosscoders),
            "parameters": {"model": self.model_parameters, "crosscoder": self.crosscoder_parameters},
            "tokens": {"training": self.training_tokens, "evaluation": self.evaluation_tokens},
            "steps": {
                step: {"flops": self.flops[step], "seconds": seconds}
                for step, seconds in self.seconds.items()
            },
            "seconds": self.total_seconds,
            "model_flops_per_second": self.model_flops,
            "peak_bytes": self.peak_bytes,
            "disk_bytes": self.disk_bytes,
        }

    def check(self, yes: bool) -> None:
        """Errors: XtalkError for more than an hour that nobody said `yes` to, with what to change."""
        if yes or self.total_seconds <= LIMIT:
            return
        longest = sorted(self.seconds, key=lambda step: -self.seconds[step])[:2]
        parts = " and ".join(f"{step} ({_time(self.seconds[step])})" for step in longest)
        raise XtalkError(
            f"the run would take about {_time(self.total_seconds)}, most of it for {parts}; expected an hour "
            "at most: choose fewer hookpoints (--hookpoints early.ln2 middle.ln2 late.ln2), --steps or "
            "--latents, or evaluate on less (--set evaluation.tokens=2048); or give --yes"
        )


def plan_run(workbench: Workbench, steps: Sequence[str] | None = None) -> Plan:
    """Count what the run's steps cost, by default those not up to date, and time a second of this machine."""
    if steps is None:
        pipeline = Pipeline(workbench.folder)
        steps = [step for step in pipeline.steps if not pipeline.is_current(step)]
    costs = Costs(workbench)
    left = remaining(steps, costs)
    rates = _Rates(workbench, costs)
    return Plan(
        hookpoints=tuple(map(str, workbench.hookpoints)),
        crosscoders=tuple(spec.name for spec in workbench.config.crosscoders),
        model_parameters=workbench.model.n_params,
        crosscoder_parameters=costs.crosscoder_parameters,
        training_tokens=costs.training_tokens,
        evaluation_tokens=workbench.config.evaluation.tokens,
        flops={step: cost.flops for step, cost in left.items()},
        seconds={step: rates.seconds(cost) for step, cost in left.items()},
        model_flops=rates.model,
        peak_bytes=costs.peak_bytes(),
        disk_bytes=costs.disk_bytes(),
    )


class _Rates:
    """How fast each kind of work is on this machine, each timed for a moment on the run's own model."""

    def __init__(self, workbench: Workbench, costs: Costs) -> None:
        self._workbench, self._costs = workbench, costs
        self._config, self._model = workbench.config, workbench.model
        length = self._config.sequence_length
        tokens = torch.arange(max(1, _TOKENS // length) * length) % self._model.vocabulary
        self._tokens_mS = tokens.view(-1, length).to(workbench.device)
        point = Hookpoint(costs.last, "resid_post")
        seconds = _seconds(lambda: self._model.capture(self._tokens_mS, [point]))
        self.model = tokens.numel() * costs.passes.up_to(costs.last) / seconds
        self._steps: dict[frozenset[str], float] = {}

    def seconds(self, cost: Cost) -> float:
        """Of a step of the run."""
        return (
            cost.model / self.model
            + (cost.scored / self._scored if cost.scored else 0.0)
            + (cost.spliced / self._spliced if cost.spliced else 0.0)
            + (cost.training_steps * self._step(cost.penalties) if cost.training_steps else 0.0)
        )

    @cached_property
    def _scored(self) -> float:
        """FLOPs per second of running the model on, from the middle MLP, to the loss of each token."""

        def run() -> Tensor:
            with torch.no_grad():
                logits_mSV = self._model.continue_from(*self._from, self._tokens_mS)
                return next_token_loss(logits_mSV, self._tokens_mS)

        return self._flops / _seconds(run)

    @cached_property
    def _spliced(self) -> float:
        """The same with gradients, in the training's dtype, to the divergence from other predictions."""
        bfloat16 = self._config.training.uses_bfloat16(self._workbench.device)
        block, post_mSD = self._from

        def run() -> Tensor:
            leaf_mSD = post_mSD.clone().requires_grad_()
            with torch.autocast(self._workbench.device.type, torch.bfloat16, enabled=bfloat16):
                logits_mSV = self._model.continue_from(block, leaf_mSD, self._tokens_mS)
                log_mSV = logits_mSV.float().log_softmax(-1)
                (log_mSV * log_mSV.detach().exp()).sum().backward()
            assert leaf_mSD.grad is not None
            return leaf_mSD.grad

        return 2 * self._flops / _seconds(run)

    @cached_property
    def _from(self) -> tuple[int, Tensor]:
        """The output of the block in the middle of those with MLPs."""
        blocks = sorted(self._costs.mlps) or [self._costs.last]
        block = blocks[len(blocks) // 2]
        point = Hookpoint(block, "resid_post")
        return block, self._model.capture(self._tokens_mS, [point])[:, :, 0]

    @property
    def _flops(self) -> float:
        return self._tokens_mS.numel() * self._costs.passes.above(self._from[0])

    def _step(self, penalties: Mapping[str, float]) -> float:
        """Seconds of a crosscoder's step: without penalties, and what they add at one MLP, for each MLP."""
        made = self._workbench.crosscoder_config, self._config.training, self._workbench.device
        alone = self._steps.get(frozenset()) or seconds_per_step(*made)
        self._steps[frozenset()] = alone
        if not penalties:
            return alone
        if frozenset(penalties) not in self._steps:
            mlp = self._model.mlp_weights(self._costs.mlps[0])
            self._steps[frozenset(penalties)] = seconds_per_step(*made, penalties, mlp)
        return alone + len(self._costs.mlps) * max(0.0, self._steps[frozenset(penalties)] - alone)


def _seconds(run: Callable[[], Tensor]) -> float:
    """Of a call, the median of several after the first."""
    run()
    taken: list[float] = []
    while sum(taken) < _LEAST:
        started = time.perf_counter()
        if run().is_cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return median(taken)


def _millions(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
