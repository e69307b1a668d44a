"""From a configuration to a proof by theorem T1: a digits network on its held-out images."""

from fractions import Fraction

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.progress import Report, silent
from xtalk.proofs.certificates import Certificate
from xtalk.proofs.config import ChartsConfig, DigitsConfig
from xtalk.proofs.proof import Proof
from xtalk.proofs.row import Figure
from xtalk.proofs.t1.certificate import certify_accuracy, certify_exactly
from xtalk.proofs.t1.charts import certify_by_charts, charts_of
from xtalk.proofs.t1.digits import (
    Split,
    digits,
    load_digits_network,
    train_digits,
    train_ordinary_digits,
)
from xtalk.proofs.t1.network import FiniteNetwork, Mlp, accuracy, answers
from xtalk.proofs.t1.training import FiniteTraining
from xtalk.proofs.timing import least_seconds


def prove_digits(config: DigitsConfig, progress: Report = silent) -> Proof:
    """Certify the digits network that ships, or an ordinary one, on the images that it has not seen."""
    data = digits(config.seed)
    network, crosscoder = digits_network(config.post_hoc, config.seed, progress)
    certificate = certify_accuracy(
        network,
        crosscoder,
        data.test_TI,
        data.test_labels_T,
        config.form,
        entries=config.entries,
    )
    return digits_proof(certificate, network, data, "post hoc" if config.post_hoc else "proof-aware")


def prove_charts(config: ChartsConfig, progress: Report = silent) -> Proof:
    """Train a digits network for the task alone, and certify it to second order around points."""
    data = digits(config.seed)
    network, _ = train_ordinary_digits(data, FiniteTraining(bound=0.0, seed=config.seed), progress=progress)
    charts = charts_of(network, data.train_RI, data.train_labels_R, config.per_label, config.seed)
    certificate = certify_by_charts(network, charts, data.test_TI, data.test_labels_T)
    return digits_proof(certificate, network, data, f"{len(charts.labels_M)} charts, post hoc")


def digits_network(post_hoc: bool, seed: int, progress: Report = silent) -> tuple[FiniteNetwork, Crosscoder]:
    """The proof-aware network that ships and its crosscoder; or an ordinary one, trained now, two minutes."""
    if not post_hoc:
        return load_digits_network()
    return train_digits(seed, post_hoc=True, progress=progress)


def digits_proof(certificate: Certificate, network: FiniteNetwork, data: Split, how: str) -> Proof:
    """A certificate of a digits network with the figures beside it; no network came before the bound."""
    inputs_TI, labels_T = data.test_TI, data.test_labels_T
    every = certify_exactly(network, inputs_TI, labels_T).verdict.length.multiply_adds
    bound = certificate.claim["certified"] / certificate.claim["total"]
    constant = int(labels_T.bincount().max()) / len(labels_T)

    def measured(mlp: Mlp) -> Figure:
        value = accuracy(network, inputs_TI, labels_T, data.train_RI, mlp)
        return Figure(value=value, exhaustive=True)

    return Proof(
        certificate=certificate,
        what=f"digits, {len(labels_T)} held out, {how}",
        bound=bound,
        vacuous=bound <= constant,
        true=measured("whole"),
        mlp_ablated=measured("ablated"),
        unconstrained=None,
        brute_force_macs=every,
        per_input=Fraction(every, len(labels_T)),
        brute_force=least_seconds(lambda: answers(network, inputs_TI)),
        further={"constant_answer": constant},
    )
