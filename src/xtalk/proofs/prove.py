"""`xtalk prove`: a small network, a crosscoder on it, a certificate, and the truth beside it."""

import json
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xtalk.activations import ActivationBatches, measure_scaling
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.errors import XtalkError
from xtalk.files import write_text
from xtalk.progress import Report, silent
from xtalk.proofs.brute_force import Timing, against_brute_force, time_sequences
from xtalk.proofs.certificates import Certificate
from xtalk.proofs.t3.attention_certificate import attention_brute_force, certify_attention
from xtalk.proofs.t3.attention_network import AttentionNetwork, AttentionSizes
from xtalk.proofs.t3.certificate import (
    Detail,
    brute_force_multiply_adds,
    certify_by_brute_force,
    certify_network,
    per_input_multiply_adds,
)
from xtalk.proofs.t3.dictionary import (
    Dictionary,
    NetworkActivations,
    read_attention_dictionary,
    read_dictionary,
    weights_hash,
)
from xtalk.proofs.t3.measuring import Measured, constant_answer, measure, measure_sample
from xtalk.proofs.t3.sum_network import Activation, NetworkSizes, SumNetwork
from xtalk.proofs.t3.tasks import ProductTask, TaskName, product_task
from xtalk.proofs.t3.training import NetworkTraining, learn_task, train_network
from xtalk.training.config import TrainingConfig
from xtalk.training.train import train_crosscoder

SAMPLES = 100_000


class ProveConfig(BaseModel):
    """What to prove, and of which network.

    network: one MLP on the sum of the tokens; or one head of attention in which the last token asks, for max
    and min, post hoc only, to which activation, residual and neurons do not apply. vocabulary: tokens (for
    lookup: values), names of `classes` classes; dictionary: latents of the crosscoder; post_hoc: certify the
    network as ordinary training leaves it, cross-entropy and weight decay alone. Otherwise the bound is in
    its loss, and with weight `direct` what the direct path carries past the MLP.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        """Of the certificate's files; two configurations never share one."""
        mode = "post-hoc" if self.post_hoc else "aware"
        layer = "attention-" if self.network == "attention" else ""
        parts = [f"{self.task}-{self.n}-of-{self.vocabulary}-{layer}{mode}"]
        others = self.model_dump(exclude={"task", "n", "vocabulary", "network", "post_hoc"})
        for key, value in others.items():
            if value == type(self).model_fields[key].default:
                continue
            if key == "penalties":
                parts += [f"{penalty}-{weight}" for penalty, weight in sorted(value.items())]
            else:
                parts.append({"activation": value, "residual": "no-residual"}.get(key, f"{key}-{value}"))
        return "-".join(parts)


def prove_config(**given: Any) -> ProveConfig:
    """The configuration with these keys. Errors: XtalkError names the first that is wrong or idle."""
    if given.get("network") == "attention" and "activation" in given:
        raise XtalkError(
            f"--activation {given['activation']} is of --network mlp, and attention has none; leave it out"
        )
    try:
        return ProveConfig(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise XtalkError(f"{where}: {first['msg']}; choose another --{where}") from error


@dataclass(frozen=True)
class Subject:
    """A network to certify, with the crosscoder trained on it and what it was before the bound."""

    config: ProveConfig
    task: ProductTask
    network: SumNetwork | AttentionNetwork
    unconstrained: SumNetwork | AttentionNetwork
    crosscoder: Crosscoder
    dictionary: Dictionary

    @property
    def words(self) -> str:
        """The network and its task, for people."""
        trained = "post hoc" if self.config.post_hoc else "proof-aware"
        task = self.task.name.replace("_", " ")
        layer = "attention, " if self.config.network == "attention" else ""
        return f"{task} of {self.task.n}, {self.task.vocabulary} tokens, {layer}{trained}"

    @property
    def brute_force_multiply_adds(self) -> int:
        """What going through every input costs."""
        if isinstance(self.network, AttentionNetwork):
            return attention_brute_force(self.task)
        return brute_force_multiply_adds(self.task, self.network.sizes.neurons)

    @property
    def per_input_multiply_adds(self) -> int:
        """What one input costs."""
        if isinstance(self.network, AttentionNetwork):
            return self.task.n * self.task.answers
        return per_input_multiply_adds(self.task, self.network.sizes.neurons)


@dataclass(frozen=True)
class Truth:
    """What a network really does: as it is, without its MLP, before the bound; what a constant answer does;
    and how long brute force takes.
    """

    true: Measured
    mlp_ablated: Measured
    unconstrained: Measured
    constant: float
    brute_force: Timing


@dataclass(frozen=True)
class Proof:
    """A certificate with the figures that stand beside it; `detail` is None for brute force."""

    subject: Subject
    truth: Truth
    detail: Detail | None
    certificate: Certificate

    @property
    def bound(self) -> float:
        """The fraction of inputs on which the network is certified to be right."""
        claim = self.certificate.claim
        return claim["certified"] / claim["total"]

    @property
    def vacuous(self) -> bool:
        """Whether a constant answer does as well as is certified."""
        return self.bound <= self.truth.constant

    def row(self, path: Path) -> dict[str, Any]:
        """The certificate's entry in metrics.json."""
        subject, truth, verdict = self.subject, self.truth, self.certificate.verdict
        length = verdict.length
        return {
            "path": path.name,
            "theorem": verdict.theorem,
            "what": subject.words,
            "network": subject.config.network,
            "task": subject.config.task,
            "post_hoc": subject.config.post_hoc,
            "claim": self.certificate.claim,
            "bound": self.bound,
            "vacuous": self.vacuous,
            "true": _plain(truth.true),
            "mlp_ablated": _plain(truth.mlp_ablated),
            "unconstrained": _plain(truth.unconstrained),
            "constant_answer": truth.constant,
            "vocabulary": subject.task.vocabulary,
            "features": subject.dictionary.features,
            "columns": len(subject.dictionary.columns),
            "macs": length.multiply_adds,
            "evaluations": length.evaluations,
            "reads": length.reads,
            "brute_force_macs": subject.brute_force_multiply_adds,
            "break_even_inputs": -(-length.multiply_adds // subject.per_input_multiply_adds),
            "check_seconds": verdict.seconds,
            **speed(self.certificate, subject.brute_force_multiply_adds, truth.brute_force),
            "verdict": verdict.verdict,
        }


def speed(certificate: Certificate, brute_force_macs: int, brute_force: Timing) -> dict[str, Any]:
    """The part of an entry of metrics.json that tells shorter from faster; seconds are those of one core."""
    macs, seconds = certificate.verdict.length.multiply_adds, certificate.cpu_seconds
    return {
        "check_cpu_seconds": seconds,
        "brute_force_cpu_seconds": brute_force.seconds,
        "brute_force_estimated": brute_force.estimated,
        "against_brute_force": against_brute_force(macs, brute_force_macs, seconds, brute_force),
    }


def prove(config: ProveConfig, folder: Path, *, progress: Report = silent) -> dict[str, Any]:
    """Train, certify and measure, and leave NAME.json, NAME.spec.json, NAME.weights and NAME.figures.json.

    Returns the entry of metrics.json. Errors: XtalkError for sizes that make no task.
    """
    subject = train_subject(config, progress=progress)
    proof = prove_subject(subject, measure_subject(subject), default_detail(subject))
    name = config.name
    row = proof.row(proof.certificate.save(folder, name))
    write_text(folder / f"{name}.figures.json", json.dumps(row, indent=1, allow_nan=False) + "\n")
    return row


def describe(row: dict[str, Any]) -> str:
    """An entry of `prove` in words, for the terminal."""

    def measured(name: str) -> str:
        figure = row[name]
        low, high = figure["ci95"]
        how = "all inputs" if figure["exhaustive"] else f"measured, 95 % interval {low:.4f} to {high:.4f}"
        return f"{figure['value']:.4f} ({how})"

    claim, constant = row["claim"], row["constant_answer"]
    lines = [
        ("certified", f"{row['bound']:.4f}, {claim['certified']:,} of {claim['total']:,} inputs"),
        ("", f"VACUOUS: a constant answer is right on {constant:.4f}" if row["vacuous"] else ""),
        ("true", measured("true")),
        (f"without {'the layer' if row['network'] == 'attention' else 'the MLP'}", measured("mlp_ablated")),
        ("before the bound", "the same network" if row["post_hoc"] else measured("unconstrained")),
        ("dictionary", f"{row['features']} features, {row['columns']} columns of {row['vocabulary']} tokens"),
        ("length", f"{row['macs']:,} multiply-adds, checked in {row['check_seconds']:.2f} s"),
        ("brute force", f"{row['brute_force_macs']:,} multiply-adds"),
        ("the check is", row["against_brute_force"]),
        ("break-even", f"{row['break_even_inputs']:,} inputs have as many multiply-adds"),
    ]
    return "\n".join(f"{name:18}{text}" for name, text in lines if text)


def train_subject(config: ProveConfig, *, progress: Report = silent) -> Subject:
    """The network, a crosscoder on it, and its dictionary.

    The network learns the task. Unless post_hoc, a crosscoder's dictionary then enters the bound, and the
    network trains on with the bound in its loss. The dictionary is that of a crosscoder trained on the final
    network.
    """
    task = product_task(config.task, config.vocabulary, config.n, config.classes)
    if config.network == "attention":
        return _train_attention_subject(config, task, progress)
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
    crosscoder = train_dictionary(config, task, network, progress=progress)
    dictionary = read_dictionary(crosscoder, network, task)
    if not config.post_hoc:
        training = NetworkTraining(
            config.aware_steps, lr=3e-3, bound=1.0, direct=direct, seed=config.seed + 1
        )
        train_network(network, task, training, dictionary.columns, partial(progress, "train with the bound"))
        crosscoder = train_dictionary(config, task, network, progress=progress)
        dictionary = read_dictionary(crosscoder, network, task)
    return Subject(config, task, network, unconstrained, crosscoder, dictionary)


def _train_attention_subject(config: ProveConfig, task: ProductTask, progress: Report) -> Subject:
    if not config.post_hoc:
        raise XtalkError("no bound is in the loss of an attention network; expected --post-hoc with it")
    if task.name not in ("max", "min"):
        raise XtalkError(f"{task.name} is no task of an attention network; expected max or min")
    sizes = AttentionSizes(task.vocabulary, task.answers, config.d_model, config.d_model)
    network = AttentionNetwork(sizes, torch.Generator().manual_seed(config.seed))
    training = NetworkTraining(config.network_steps, seed=config.seed)
    learn_task(network, task, training, progress=partial(progress, "train the network"))
    crosscoder = train_dictionary(config, task, network, progress=progress)
    dictionary = read_attention_dictionary(crosscoder, network, task)
    return Subject(config, task, network, network, crosscoder, dictionary)


def default_detail(subject: Subject) -> Detail:
    """The shortest certificate that tables tokens; for modular addition, every multiset of columns."""
    if subject.task.name == "modular_addition":
        return Detail(blocks=len(subject.dictionary.columns))
    return Detail()


def measure_subject(subject: Subject) -> Truth:
    """The figures that stand beside every certificate of a network."""
    seed = subject.config.seed + 1000

    def measured(network: SumNetwork | AttentionNetwork, ablated: bool = False) -> Measured:
        if isinstance(network, AttentionNetwork):
            return measure_sample(network, subject.task, SAMPLES, seed, ablated)
        return measure(network, subject.task, SAMPLES, seed, ablated)

    true = measured(subject.network)
    return Truth(
        true,
        measured(subject.network, ablated=True),
        true if subject.config.post_hoc else measured(subject.unconstrained),
        constant_answer(subject.task, SAMPLES, seed),
        time_sequences(subject.network, subject.task),
    )


def prove_subject(subject: Subject, truth: Truth, detail: Detail | None) -> Proof:
    """Certify a network at one level of detail, None for brute force. Errors: as `certify_network`.

    An attention network is certified with every token for itself, whatever the detail.
    """
    if isinstance(subject.network, AttentionNetwork):
        certificate = certify_attention(subject.network, subject.task, subject.dictionary.columns, "tokens")
    elif detail is None:
        certificate = certify_by_brute_force(subject.network, subject.task)
    else:
        certificate = certify_network(subject.network, subject.task, subject.dictionary.columns, detail)
    return Proof(subject, truth, detail, certificate)


def train_dictionary(
    config: ProveConfig,
    task: ProductTask,
    network: SumNetwork | AttentionNetwork,
    *,
    progress: Report = silent,
) -> Crosscoder:
    """A crosscoder on a network's activations. Errors: XtalkError for penalties where there is no MLP."""
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
    scaling = measure_scaling(stream, 8192)
    report = partial(progress, f"train the crosscoder on {weights_hash(network)[:6]}")
    mlps = network if isinstance(network, SumNetwork) else {}
    return train_crosscoder(sizes, training, stream, mlps, scaling, progress=report).crosscoder


def _plain(measured: Measured) -> dict[str, Any]:
    low, high = measured.interval
    return {
        "value": measured.value,
        "ci95": [low, high],
        "right": measured.right,
        "inputs": measured.inputs,
        "exhaustive": measured.exhaustive,
    }
