"""From a configuration to a proof by theorem T1 language: the embedded model's tail on its held-out text."""

import logging
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from time import monotonic

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from xtalk.data import read_documents, split_documents, tokenise
from xtalk.errors import XtalkError
from xtalk.models.language_model import LanguageModel, load_model
from xtalk.models.mlp import MlpWeights
from xtalk.progress import Report, silent
from xtalk.proofs.config import LanguageConfig
from xtalk.proofs.proof import Proof
from xtalk.proofs.row import Figure
from xtalk.proofs.t1_language.certificate import certify_loss
from xtalk.proofs.t1_language.tail import LanguageTail, resid_mid, tail_of
from xtalk.proofs.t1_language.training import FeatureMlp, LanguageTraining, one_feature_each, train_mlp
from xtalk.proofs.timing import Timing, least_seconds

LENGTH = 256  # tokens of a sequence
CLUSTERING = 65_536  # inputs, for their covariance
_HELD_OUT = 0.05  # of the embedded text
_TOKENS_AT_ONCE, _SEQUENCES_AT_ONCE = 512, 32
_TRIED_STEPS, _TRIED_TOKENS, _TRIED_SEQUENCES = 3, (8, 72), 16  # to estimate from
_AGAINST_EXACT = 1.5  # seconds of a check, against those of form "exact"

logger = logging.getLogger("xtalk")


@dataclass(frozen=True)
class Places:
    """The tail of a model and T places of its held-out text, which a claim is about."""

    model: LanguageModel
    tail: LanguageTail
    x_TD: Float[Tensor, "T D"]
    targets_T: Int[Tensor, "T"]

    def loss(self, mlp: MlpWeights) -> float:
        """The mean cross-entropy with this MLP in the tail, in nat, computed in float64."""
        return self.tail.losses(self.x_TD, self.targets_T, mlp.to(dtype=torch.float64)).mean().item()

    def ablated(self, mlp: MlpWeights) -> float:
        """The same with the MLP's mean output over the places in its place."""
        exact = mlp.to(dtype=torch.float64)
        mean_D = exact(self.tail.to(torch.float64).norm_in(self.x_TD.double())).mean(0)
        return self.tail.losses(self.x_TD, self.targets_T, lambda n_BD: mean_D).mean().item()

    @torch.no_grad()
    def seconds(self) -> Timing:
        """What the tail's losses take in float32, which is brute force."""

        def run() -> None:
            batches = zip(
                self.x_TD.split(_TOKENS_AT_ONCE), self.targets_T.split(_TOKENS_AT_ONCE), strict=True
            )
            for x_BD, targets_B in batches:
                F.cross_entropy(self.tail.logits(x_BD, self.tail.mlp(self.tail.norm_in(x_BD))), targets_B)

        return least_seconds(run)


def read_places(tokens: int) -> Places:
    """The first `tokens` places of the embedded model's held-out text."""
    model = load_model("embedded")
    sequences = embedded_text(model, tokens // (LENGTH - 1) + 1, held_out=True)
    x_TD, targets_T = resid_mid(model, sequences)
    return Places(model, tail_of(model), x_TD[:tokens], targets_T[:tokens])


def embedded_text(model: LanguageModel, sequences: int, *, held_out: bool) -> Int[Tensor, "n S"]:
    """Sequences of the embedded text: of the held-out documents, or of the others."""
    train, test = split_documents(read_documents(), _HELD_OUT, 0)
    if model.tokenizer is None:
        raise XtalkError(f"{model.name} has no tokenizer; expected the embedded model")
    tokens = tokenise(test if held_out else train, model.tokenizer, LENGTH).tokens
    return torch.tensor(tokens[:sequences]).long()


def training_inputs(model: LanguageModel, sequences: int, progress: Report = silent) -> Float[Tensor, "R D"]:
    """What the tail reads at every place of the text that is not held out."""
    tokens_nS = embedded_text(model, sequences, held_out=False)

    def parts() -> Iterator[Tensor]:
        for done in range(0, len(tokens_nS), _SEQUENCES_AT_ONCE):
            batch = tokens_nS[done : done + _SEQUENCES_AT_ONCE]
            yield resid_mid(model, batch)[0]
            progress("read the text", done + len(batch), len(tokens_nS))

    return torch.cat(list(parts()))


def projected(tail: LanguageTail, x_RD: Float[Tensor, "R D"], features: int, seed: int) -> FeatureMlp:
    """The tail's MLP with each neuron's reading projected on one of the features; nothing is trained."""
    generator = torch.Generator().manual_seed(seed)
    return one_feature_each(tail.mlp, tail.norm_in(x_RD[:CLUSTERING]), features, generator)


def exact_multiply_adds(tail: LanguageTail, tokens: int, *, mlp: bool = True) -> int:
    """What the checker's form "exact" costs; without `mlp`, what every form pays beside its MLP."""
    D, V = tail.unembed.shape
    neurons = tail.mlp.W_in.shape[1] if mlp else 0
    return tokens * per_token_multiply_adds(D, V, neurons) + 2 * V * D


def per_token_multiply_adds(D: int, V: int, N: int) -> int:
    """Norms, MLP, unembedding and cross-entropy of one token."""
    return 6 * D + 2 * D * N + D * V + V


def prove_language(config: LanguageConfig, progress: Report = silent) -> Proof:
    """Train the embedded model's last MLP, one feature for each neuron, and certify the tail's loss."""
    places = read_places(config.tokens)
    tail = places.tail
    logger.info(plan(config, places))
    x_RD = training_inputs(places.model, config.sequences, progress)
    mlp = projected(tail, x_RD, config.features, config.seed)
    if not config.post_hoc:
        training = LanguageTraining(config.steps, seed=config.seed)
        train_mlp(mlp, tail, x_RD, training, partial(progress, "train the MLP"))
    network = tail.mlp if config.post_hoc else mlp.weights()
    progress("check the certificate, twice", 0, 1)
    certificate = certify_loss(tail, mlp, places.x_TD, places.targets_T, network=network, knots=config.knots)
    progress("check the certificate, twice", 1, 1)
    bound = certificate.claim["micronats"] / 1e6
    ablated, before = places.ablated(network), places.ablated(tail.mlp)
    D, V = tail.unembed.shape
    return Proof(
        certificate=certificate,
        what=f"tail of the embedded language model, {'post hoc' if config.post_hoc else 'proof-aware'}",
        bound=bound,
        vacuous=bound >= min(ablated, before),
        true=Figure(value=places.loss(network), exhaustive=True),
        mlp_ablated=Figure(value=ablated, exhaustive=True),
        unconstrained=Figure(value=places.loss(tail.mlp), exhaustive=True),
        brute_force_macs=exact_multiply_adds(tail, config.tokens),
        per_input=Fraction(per_token_multiply_adds(D, V, tail.mlp.W_in.shape[1])),
        brute_force=places.seconds(),
        further={"unit": "nat/token", "post_hoc": config.post_hoc, "features": len(mlp.directions)},
    )


def _exact_seconds(places: Places, tokens: int) -> float:
    """What the check of form "exact" takes on the first tokens."""
    certificate = certify_loss(places.tail, None, places.x_TD[:tokens], places.targets_T[:tokens])
    return certificate.verdict.seconds


def plan(config: LanguageConfig, places: Places) -> str:
    """What will be done and how long it takes here, from a moment of each part."""
    tail, sample = places.tail, places.x_TD[: _TRIED_SEQUENCES * LENGTH]
    tokens_nS = embedded_text(places.model, _SEQUENCES_AT_ONCE, held_out=True)
    began = monotonic()
    resid_mid(places.model, tokens_nS)
    reading = (monotonic() - began) / _SEQUENCES_AT_ONCE * config.sequences
    mlp = projected(tail, sample, config.features, config.seed)
    steps = 0 if config.post_hoc else config.steps
    train_mlp(deepcopy(mlp), tail, sample, LanguageTraining(1))  # the first step is slower
    began = monotonic()
    train_mlp(deepcopy(mlp), tail, sample, LanguageTraining(_TRIED_STEPS))
    training = (monotonic() - began) / _TRIED_STEPS * steps
    once, more = (_exact_seconds(places, count) for count in _TRIED_TOKENS)
    each = max(0.0, more - once) / (_TRIED_TOKENS[1] - _TRIED_TOKENS[0])
    checking = 2 * _AGAINST_EXACT * (once + each * config.tokens)
    minutes = (reading + training + checking) / 60
    return (
        f"plan: read {config.sequences:,} sequences (about {reading:.0f} s), train the last MLP for "
        f"{steps:,} steps ({training:.0f} s), check {config.tokens:,} tokens twice ({checking:.0f} s): about "
        f"{minutes:.1f} minutes; --steps and --tokens make it shorter"
    )
