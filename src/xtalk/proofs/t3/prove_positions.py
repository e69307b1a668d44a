"""From a configuration to a proof by theorem T3 positions: train as Gross et al. 2024, certify, measure."""

from fractions import Fraction
from functools import partial

import torch

from xtalk.progress import Report, silent
from xtalk.proofs.config import PositionsConfig
from xtalk.proofs.proof import Proof
from xtalk.proofs.t3.attention_network import AttentionSizes
from xtalk.proofs.t3.brute_force import time_inputs
from xtalk.proofs.t3.measuring import SAMPLES, constant_answer, figure, measure
from xtalk.proofs.t3.positions_network import PositionsNetwork, PositionsRunner
from xtalk.proofs.t3.tasks import ProductTask, product_task
from xtalk.proofs.t3.training import NetworkTraining, learn_task


def train_positions(
    config: PositionsConfig, *, progress: Report = silent
) -> tuple[PositionsNetwork, ProductTask]:
    """The network of a configuration, and its task; trained on the task alone."""
    task = product_task(config.task, config.vocabulary, config.n, config.vocabulary)
    sizes = AttentionSizes(task.vocabulary, task.answers, config.d_model, config.d_model)
    network = PositionsNetwork(sizes, task.n, torch.Generator().manual_seed(config.seed))
    training = NetworkTraining(
        config.network_steps, batch=128, lr=1e-3, weight_decay=0.01, scheduled=False, seed=config.seed
    )
    learn_task(network, task, training, progress=partial(progress, "train the network"))
    network.fold_scale()
    return network, task


def prove_positions(config: PositionsConfig, progress: Report = silent) -> Proof:
    """Train a network, certify it by theorem T3 positions, and measure it.

    Errors: XtalkError for sizes of no task.
    """
    network, task = train_positions(config, progress=progress)
    certificate, seed = network.certify(task), config.seed + 1000
    true = figure(measure(network, task, SAMPLES, seed))
    constant = constant_answer(task, SAMPLES, seed)
    bound = certificate.claim["certified"] / certificate.claim["total"]
    return Proof(
        certificate=certificate,
        what=f"{task.name} of {task.n}, {task.vocabulary} tokens, attention with positions, post hoc",
        bound=bound,
        vacuous=bound <= constant,
        true=true,
        mlp_ablated=figure(measure(network, task, SAMPLES, seed, ablated=True)),
        unconstrained=true,
        brute_force_macs=task.total * network.per_input_multiply_adds(task),
        per_input=Fraction(network.per_input_multiply_adds(task)),
        brute_force=time_inputs(PositionsRunner(network, task)),
        further={
            "network": "attention",
            "task": task.name,
            "post_hoc": True,
            "constant_answer": constant,
            "vocabulary": task.vocabulary,
        },
    )
