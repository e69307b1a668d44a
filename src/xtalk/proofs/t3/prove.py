"""From a configuration to a proof by theorem T3: train, read a crosscoder's dictionary, certify, measure."""

from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Generic, TypeVar

import torch

from xtalk.activations import ActivationBatches, measure_scaling
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.errors import XtalkError
from xtalk.progress import Report, silent
from xtalk.proofs.certificates import Certificate
from xtalk.proofs.config import ProveConfig
from xtalk.proofs.proof import Proof
from xtalk.proofs.t3.activations import NetworkActivations, weights_hash
from xtalk.proofs.t3.attention_network import AttentionNetwork, AttentionSizes
from xtalk.proofs.t3.brute_force import time_inputs
from xtalk.proofs.t3.columns import Dictionary
from xtalk.proofs.t3.measuring import SAMPLES, Measured, constant_answer, figure, measure
from xtalk.proofs.t3.network import Network
from xtalk.proofs.t3.sum_network import NetworkSizes, SumNetwork
from xtalk.proofs.t3.tasks import ProductTask, product_task
from xtalk.proofs.t3.training import NetworkTraining, learn_task, train_network
from xtalk.proofs.timing import Timing
from xtalk.training.config import TrainingConfig
from xtalk.training.train import train_crosscoder

N = TypeVar("N", bound=Network, covariant=True)


@dataclass(frozen=True)
class Subject(Generic[N]):
    """A network to certify, the network before the bound, and the dictionary of a crosscoder on it."""

    config: ProveConfig
    task: ProductTask
    network: N
    unconstrained: N
    dictionary: Dictionary

    @property
    def words(self) -> str:
        """The network and its task, for people."""
        trained = "post hoc" if self.config.post_hoc else "proof-aware"
        task = self.task.name.replace("_", " ")
        layer = "attention, " if self.config.network == "attention" else ""
        return f"{task} of {self.task.n}, {self.task.vocabulary} tokens, {layer}{trained}"


@dataclass(frozen=True)
class Truth:
    """How often a network is right as it is, without its layer, and before the bound; how often a constant
    answer is; and how long brute force takes.
    """

    true: Measured
    mlp_ablated: Measured
    unconstrained: Measured
    constant: float
    brute_force: Timing


def prove_sequences(config: ProveConfig, progress: Report = silent) -> Proof:
    """Train a network, certify it by theorem T3, and measure it. Errors: XtalkError for sizes of no task."""
    subject = train_subject(config, progress=progress)
    certificate = subject.network.certify(subject.task, subject.dictionary.columns)
    return sequences_proof(subject, measure_subject(subject), certificate)


def sequences_proof(subject: Subject[Network], truth: Truth, certificate: Certificate) -> Proof:
    """A certificate of a subject, of any detail, with the figures beside it."""
    config, task, network = subject.config, subject.task, subject.network
    bound = certificate.claim["certified"] / certificate.claim["total"]
    return Proof(
        certificate=certificate,
        what=subject.words,
        bound=bound,
        vacuous=bound <= truth.constant,
        true=figure(truth.true),
        mlp_ablated=figure(truth.mlp_ablated),
        unconstrained=figure(truth.unconstrained),
        brute_force_macs=network.brute_force_multiply_adds(task),
        per_input=Fraction(network.per_input_multiply_adds(task)),
        brute_force=truth.brute_force,
        further={
            "network": config.network,
            "task": config.task,
            "post_hoc": config.post_hoc,
            "constant_answer": truth.constant,
            "vocabulary": task.vocabulary,
            "features": subject.dictionary.features,
            "columns": len(subject.dictionary.columns),
        },
    )


def measure_subject(subject: Subject[Network]) -> Truth:
    """The figures that stand beside every certificate of a network."""
    seed = subject.config.seed + 1000
    measured = partial(measure, task=subject.task, samples=SAMPLES, seed=seed)
    true = measured(subject.network)
    return Truth(
        true,
        measured(subject.network, ablated=True),
        true if subject.config.post_hoc else measured(subject.unconstrained),
        constant_answer(subject.task, SAMPLES, seed),
        time_inputs(subject.network.runner(subject.task)),
    )


def train_subject(config: ProveConfig, *, progress: Report = silent) -> Subject[Network]:
    """The network of a configuration, a crosscoder on it, and its dictionary."""
    return {"mlp": train_sum, "attention": train_attention}[config.network](config, progress=progress)


def train_sum(config: ProveConfig, *, progress: Report = silent) -> Subject[SumNetwork]:
    """A network with one MLP, and its dictionary.

    The network learns the task. Unless post_hoc, a crosscoder's dictionary then enters the bound, and the
    network trains on with the bound in its loss. The dictionary is that of a crosscoder trained on the final
    network.
    """
    task = product_task(config.task, config.vocabulary, config.n, config.classes)
    if task.name == "modular_addition" and not config.post_hoc:
        raise XtalkError(
            "modular addition has no anchor, so training has no bound to lower; expected --post-hoc with it"
        )
    sizes = NetworkSizes(
        task.vocabulary, task.answers, config.d_model, config.neurons, config.activation, config.residual
    )
    network = SumNetwork(sizes, torch.Generator().manual_seed(config.seed))
    direct = 0.0 if config.post_hoc else config.direct
    training = NetworkTraining(config.network_steps, direct=direct, seed=config.seed)
    train_network(network, task, training, progress=partial(progress, "train the network"))
    unconstrained = deepcopy(network)
    dictionary = train_dictionary(config, task, network, progress=progress)
    if not config.post_hoc:
        training = NetworkTraining(
            config.aware_steps, lr=3e-3, bound=1.0, direct=direct, seed=config.seed + 1
        )
        train_network(network, task, training, dictionary.columns, partial(progress, "train with the bound"))
        dictionary = train_dictionary(config, task, network, progress=progress)
    return Subject(config, task, network, unconstrained, dictionary)


def train_attention(config: ProveConfig, *, progress: Report = silent) -> Subject[AttentionNetwork]:
    """A network with one head of attention, and its dictionary; post hoc only, for max and min."""
    task = product_task(config.task, config.vocabulary, config.n, config.classes)
    if not config.post_hoc:
        raise XtalkError("no bound is in the loss of an attention network; expected --post-hoc with it")
    if task.name not in ("max", "min"):
        raise XtalkError(f"{task.name} is no task of an attention network; expected max or min")
    sizes = AttentionSizes(task.vocabulary, task.answers, config.d_model, config.d_model)
    network = AttentionNetwork(sizes, torch.Generator().manual_seed(config.seed))
    training = NetworkTraining(config.network_steps, seed=config.seed)
    learn_task(network, task, training, progress=partial(progress, "train the network"))
    dictionary = train_dictionary(config, task, network, progress=progress)
    return Subject(config, task, network, network, dictionary)


def train_dictionary(
    config: ProveConfig, task: ProductTask, network: Network, *, progress: Report = silent
) -> Dictionary:
    """The dictionary of a crosscoder that is trained on a network's activations.

    Errors: XtalkError for penalties where there is no MLP.
    """
    training = TrainingConfig(
        steps=config.crosscoder_steps,
        batch_tokens=256,
        lr=5e-3,
        warmup_steps=50,
        penalties=config.penalties,
        dead_after_tokens=20_000,
        bfloat16=False,
        seed=config.seed,
    )
    source = NetworkActivations(network, task, training.tokens_needed, config.seed + 1)
    stream = ActivationBatches(source, training.batch_tokens, config.seed, buffer_sequences=4096)
    sizes = CrosscoderConfig(
        d_in=config.d_model,
        d_sae=config.dictionary,
        k=min(task.n, config.dictionary),
        hook_names=network.hook_names,
    )
    report = partial(progress, f"train the crosscoder on {weights_hash(network)[:6]}")
    scaling = measure_scaling(stream, 8192)
    trained = train_crosscoder(sizes, training, stream, network.penalised, scaling, progress=report)
    return network.dictionary(trained.crosscoder, task)
