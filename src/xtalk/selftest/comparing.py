"""The fast paths on a device, in the precision they run in, against their twins in float64 on the CPU."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xtalk.activations import ActivationBatch
from xtalk.codes import Codes
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.nonlinearities import NONLINEARITIES, nonlinearity
from xtalk.data.tokens import token_sequences
from xtalk.interactions import measures, true_interaction
from xtalk.interactions.pairs import PairInteractions
from xtalk.interactions.penalties import PENALTIES, MlpTarget, penalty
from xtalk.models.activation_functions import GELU, RELU, SILU
from xtalk.models.language_model import load_model
from xtalk.products import affine_dots, codes_times_rows
from xtalk.selftest import interaction_loops as loops
from xtalk.selftest.cases import contributions, random_case
from xtalk.selftest.dense_training import dense_loss
from xtalk.selftest.divergence import divergence
from xtalk.selftest.interaction_loops import Case
from xtalk.training.objective import Objective
from xtalk.training.spliced import SplicedMlp, places_of, true_run

ALLOWED = {"float32": 5e-5, "bfloat16": 2e-2}
"""Of a deviation: some hundred times the rounding of one number. TF32 products are beyond it."""

_MLPS = ((RELU, False), (GELU, False), (SILU, True))
_VARIANCE = 2.5


@dataclass(frozen=True)
class Comparison:
    """A fast path against its twin: ||fast - slow|| / ||slow||, the largest over all cases."""

    name: str
    precision: str
    deviation: float

    @property
    def agrees(self) -> bool:
        """Whether the deviation is one of rounding; NaN is none."""
        return self.deviation <= ALLOWED[self.precision]

    def as_json(self) -> dict[str, Any]:
        """The comparison for --json."""
        return asdict(self) | {"allowed": ALLOWED[self.precision], "agrees": self.agrees}


def comparisons(device: torch.device) -> Iterator[Comparison]:
    """Every comparison, one after the other: measures, penalties, products, training losses, splices."""
    cases = [random_case(activation, gated) for activation, gated in _MLPS]
    for name, (fast, slow) in _MEASURES.items():
        yield Comparison(name, "float32", max(_deviation(fast(_on(c, device)), slow(c)) for c in cases))
    yield from _penalties(cases, device)
    yield from _products(device)
    for name in NONLINEARITIES:
        yield from _training(name, device)
    yield from _splices(device)


def _deviation(fast: Tensor, slow: Tensor) -> float:
    fast, slow = (x.detach().to("cpu", torch.float64) for x in (fast, slow))
    return float((fast - slow).norm() / slow.norm())


def _on(case: Case, device: torch.device) -> Case:
    """The case in float32 on the device."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, torch.float32).requires_grad_(tensor.requires_grad)

    return Case(
        moved(case.decoder_LD.detach()),
        moved(case.bias_D.detach()),
        case.latents_BK.to(device),
        moved(case.values_BK.detach()),
        case.mlp.to(device, torch.float32),
    )


def _each(case: Case, of: Callable[[int, int], Any]) -> Tensor:
    """(B, N): a figure of each token and neuron."""
    return torch.tensor([[float(of(b, k)) for k in case.neurons] for b in case.tokens])


def _fast_pairs(case: Case) -> Tensor:
    pairs = PairInteractions(len(case.decoder_LD), ("mlp",))
    pairs.add({"mlp": contributions(case)}, np.zeros(len(case.tokens), dtype=np.int64))
    return torch.from_numpy(pairs.result().interactions().toarray())


def _fast_mixed(case: Case) -> Tensor:
    at = [torch.tensor([of], device=case.values_BK.device) for of in (0, 1, 2)]
    return true_interaction.mixed_difference(contributions(case), *at)


def _slow_residual(case: Case) -> Tensor:
    pairs = (
        (loops.output(case, b, loops.keep_all(case)), loops.output(case, b, loops.keep(case, 1)))
        for b in case.tokens
    )
    return torch.stack([whole - kept for whole, kept in pairs])


_MEASURES: dict[str, tuple[Callable[[Case], Tensor], Callable[[Case], Tensor]]] = {
    "interaction T": (
        lambda case: measures.interaction(contributions(case)),
        lambda case: torch.tensor([loops.interaction(case, b) for b in case.tokens]),
    ),
    "dominant share": (
        lambda case: measures.dominant_share(contributions(case)),
        lambda case: _each(case, lambda b, k: loops.share(case, b, k, 1)),
    ),
    "share of the two largest": (
        lambda case: measures.few_hot_shares(contributions(case), (2,))[2],
        lambda case: _each(case, lambda b, k: loops.share(case, b, k, 2)),
    ),
    "pair matrix": (_fast_pairs, lambda case: loops.pair_sums(case)[0] / len(case.tokens)),
    "mixed difference": (_fast_mixed, lambda case: loops.mixed_difference(case, 0, 1, 2)[None]),
    "dominant residual": (
        lambda case: true_interaction.dominant_residual(contributions(case)),
        _slow_residual,
    ),
}


def _differentiable(case: Case) -> tuple[Case, list[Tensor]]:
    """The case with gradients to decoder, bias and code values, and these."""
    inputs = [x.clone().requires_grad_() for x in (case.decoder_LD, case.bias_D, case.values_BK)]
    return Case(inputs[0], inputs[1], case.latents_BK, inputs[2], case.mlp), inputs


def _gradient(value: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """With respect to all inputs, as one vector; zeros where the value does not depend on one."""
    found = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten().to("cpu", torch.float64) for part in found])


def _penalties(cases: Sequence[Case], device: torch.device) -> Iterator[Comparison]:
    found: dict[tuple[str, str], float] = {}
    for case in cases:
        target_BD = torch.randn(case.values_BK.shape[0], len(case.mlp.b_out), generator=_generator()).double()
        slow_case, slow_inputs = _differentiable(case)
        slow = loops.penalties(slow_case, target_BD, _VARIANCE)
        for name in PENALTIES:
            for precision in ALLOWED:
                fast_case, fast_inputs = _differentiable(_on(case, device))
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    target = MlpTarget(target_BD.to(device, torch.float32), _VARIANCE)
                    fast = penalty(name)(contributions(fast_case), target)
                pairs = {
                    "value": (fast, slow[name]),
                    "gradient": (_gradient(fast, fast_inputs), _gradient(slow[name], slow_inputs)),
                }
                for what, pair in pairs.items():
                    key = f"penalty {name}, {what}", precision
                    found[key] = max(found.get(key, 0.0), _deviation(*pair))
    for (name, precision), deviation in found.items():
        yield Comparison(name, precision, deviation)


def _products(device: torch.device) -> Iterator[Comparison]:
    """Products of codes with rows, of some hundred tokens and latents; the twins are dense."""
    B, K, L, X = 203, 7, 509, 61
    generator = _generator()
    latents_BK = torch.rand(B, L, generator=generator).topk(K, dim=1).indices
    values_BK, rows_LX, x_BX, bias_L = (
        torch.randn(shape, generator=generator).double() for shape in ((B, K), (L, X), (B, X), (L,))
    )

    def results(values_BK: Tensor, rows_LX: Tensor, x_BX: Tensor, bias_L: Tensor, fast: bool) -> list[Tensor]:
        inputs = [t.clone().requires_grad_() for t in (values_BK, rows_LX, x_BX, bias_L)]
        values_BK, rows_LX, x_BX, bias_L = inputs
        at_BK = latents_BK.to(values_BK.device)
        if fast:
            used_BK = torch.ones_like(at_BK, dtype=torch.bool)
            decoded_BX = codes_times_rows(Codes(at_BK, values_BK, L), rows_LX)
            known_BK = ((x_BX @ rows_LX.T) + bias_L).gather(1, at_BK).detach()
            encoded_BK = affine_dots(known_BK, x_BX, rows_LX, bias_L, at_BK, used_BK)
        else:
            decoded_BX = Codes(at_BK, values_BK, L).dense() @ rows_LX
            encoded_BK = (x_BX @ rows_LX.T + bias_L).gather(1, at_BK)
        down, up = (decoded_BX * x_BX.detach()).sum(), (encoded_BK * values_BK.detach()).sum()
        return [decoded_BX, _gradient(down, inputs), encoded_BK, _gradient(up, inputs)]

    drawn = values_BK, rows_LX, x_BX, bias_L
    slow = results(*drawn, fast=False)
    fast = results(*(t.to(device, torch.float32) for t in drawn), fast=True)
    names = "decoding from active rows", "decoding, gradient", "encoding of active rows", "encoding, gradient"
    for name, *pair in zip(names, fast, slow, strict=True):
        yield Comparison(name, "float32", _deviation(*pair))


def _training(architecture: str, device: torch.device) -> Iterator[Comparison]:
    """Loss, codes and gradients of a training step. bf16 chooses the same latents and rounds no value."""
    D, L, hook_names = 13, 256, ("blocks.0.ln2", "blocks.1.ln2")
    config = CrosscoderConfig(d_in=D, d_sae=L, k=5, hook_names=hook_names, architecture=architecture)
    dead_L, generator = torch.arange(3, L, 7), _generator()
    slow, fast = Crosscoder(config).double(), Crosscoder(config)
    with torch.no_grad():
        for name, parameter in slow.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) / D**0.5
            parameter.copy_(0.7 + drawn.abs() if name == "threshold" else drawn)
        slow.b_enc[dead_L] -= 9
    fast.load_state_dict(slow.state_dict())
    fast.to(device).lay_out_for_training()
    x_BPD = torch.randn(67, len(hook_names), D, generator=generator)
    sparsity = 0.7 if nonlinearity(architecture).needs_sparsity_loss else 0.0
    loss, f_BL = dense_loss(slow, x_BPD.double(), dead_L, 0.3, sparsity)
    expected = {"loss": loss, "codes": f_BL, "gradient": _gradient(loss, _learned(slow))}
    for precision in ALLOWED:
        objective = Objective([], {}, 0.3, sparsity, precision == "bfloat16")
        loss, codes, _ = objective(fast, x_BPD.to(device), dead_L.to(device), 1.0)
        found = {"loss": loss, "codes": codes.dense(), "gradient": _gradient(loss, _learned(fast))}
        for what, value in found.items():
            yield Comparison(f"training {architecture}, {what}", precision, _deviation(value, expected[what]))


def _learned(crosscoder: Crosscoder) -> list[Tensor]:
    return [parameter for parameter in crosscoder.parameters() if parameter.requires_grad]


def _splices(device: torch.device) -> Iterator[Comparison]:
    """A rebuilt output in the embedded model, run on from its block, against the whole model on the CPU."""
    length, block, B = 12, 1, 9
    generator = _generator()
    tokens_mS = torch.randint(0, 500, (3, length), generator=generator)
    places = torch.randperm(3 * length, generator=generator)[:B]
    batch = ActivationBatch(
        torch.zeros(B, 1, 1), tokens_mS.flatten()[places], places // length, places % length
    )
    slow_model, fast_model = load_model("embedded", device="cpu"), load_model("embedded", device=device)
    outputs = torch.randn(2, B, fast_model.d_model, generator=generator)
    sequences = token_sequences(tokens_mS.int().numpy(), np.zeros(tokens_mS.shape, dtype=np.int32))

    slow_inputs = [x.clone().requires_grad_() for x in outputs]
    slow = divergence(slow_model, sequences.tokens, batch, block, *slow_inputs)
    fast_inputs = [x.to(device).requires_grad_() for x in outputs]
    batch = replace(batch, activations=batch.activations.to(device))
    run = true_run(fast_model, [block], places_of(batch, sequences))
    weights = fast_model.mlp_weights(block).to(device)
    D = fast_model.d_model
    spliced = SplicedMlp(fast_model, block, weights, torch.zeros(D, device=device), ablated=float(D))
    term = ("", None)
    fast = spliced.divergences(run, {term: fast_inputs[0]}, {term: fast_inputs[1]})[term]
    yield Comparison("splice, value", "float32", _deviation(fast, slow))
    gradients = _gradient(fast, fast_inputs), _gradient(slow, slow_inputs)
    yield Comparison("splice, gradient", "float32", _deviation(*gradients))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
