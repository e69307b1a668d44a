"""What an accepted certificate says, in words; nothing here decides anything."""

from dataclasses import dataclass

from xtalk_check.reading import Fields

MILLION = 1_000_000
UNBOUNDED = 10**60
ANSWERS = {
    "max": "the largest class among the tokens",
    "min": "the smallest class among the tokens",
    "majority": "the class of more than half of the tokens; sequences without one do not count",
    "lookup": "the class of the value that the first token's key has in the sequence",
    "modular_addition": "the sum of the tokens' classes, modulo the number of answers",
}
TIES = "a tie is an error: the answer's logit must be strictly ahead of every other"
ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU (erf)", "gelu_tanh": "GELU (tanh)"}
REAL = "real numbers: the network is what its formula defines; what rounding does to it is not covered"
FLOAT32 = "float32: the network is a deployed one, under the assumptions; and of real numbers under none"
SUMS = (
    "the deployed network computes the formula's sums in that order in IEEE float32, rounding to nearest, "
    "without overflow; each sum in any order, with or without fused multiply-adds"
)
PHI = "its activation function errs by at most 2^-20 |h| at h"
SOFTMAX = "its softmax is exp(s - max s), each within a share of 2^-20, divided by their sum"
UNDERFLOW = "underflow adds less than 2^-100 to any one number"
DATA = "inputs and labels are those whose hash and list the specification has"


@dataclass(frozen=True)
class Statement:
    """The claim in words, and all that it depends on."""

    claims: list[str]
    task: str
    network: str
    ties: str
    arithmetic: str
    assumptions: list[str]


def statement(theorem: str, task: Fields, claim: Fields) -> Statement:
    """The statement of an accepted claim, from the task of the specification."""
    if theorem in ("T3", "brute_force", "T3 attention", "T3 positions"):
        return _of_sequences(theorem, task, claim)
    if theorem == "T1 language":
        return _of_language(task, claim)
    return _of_data(task, claim)


def _of_sequences(theorem: str, task: Fields, claim: Fields) -> Statement:
    name, n = task.choice("name", *ANSWERS), task.integer("n", 1, UNBOUNDED)
    tokens, answers = len(task.integers("classes", 0, UNBOUNDED)), task.integer("answers", 1, UNBOUNDED)
    if theorem == "T3 attention":
        network = "one layer of one head of attention, without positions and norms; the last token asks"
        network, function = network + _path(task), SOFTMAX
    elif theorem == "T3 positions":
        network = (
            "one layer of one head of attention, with positions and without norms; the last token asks; "
        )
        network, function = network + "a residual path", SOFTMAX
    else:
        activation = ACTIVATIONS[task.choice("activation", *ACTIVATIONS)]
        network = f"the sum of {n} embeddings, one MLP with {activation}, an unembedding" + _path(task)
        function = PHI
    arithmetic, assumptions = _arithmetic(task, function)
    return Statement(
        claims=[_share(claim, "sequences that have an answer are answered right")],
        task=f"{name} of n = {n} of {tokens} tokens, {answers} answers: {ANSWERS[name]}",
        network=network,
        ties=TIES,
        arithmetic=arithmetic,
        assumptions=assumptions,
    )


def _arithmetic(task: Fields, function: str) -> tuple[str, list[str]]:
    """The arithmetic of the specification, and what it assumes of a deployed network."""
    real = task.choice("arithmetic", "real", "float32") == "real"
    return (REAL, []) if real else (FLOAT32, [SUMS, function, UNDERFLOW])


def _of_data(task: Fields, claim: Fields) -> Statement:
    arithmetic, assumptions = _arithmetic(task, PHI)
    total = len(task.integers("labels", 0, UNBOUNDED))
    return Statement(
        claims=[_share(claim, "inputs of the data are answered right")],
        task=f"the labels of {total} inputs, whose values have SHA-256 {task.digest('data')}",
        network=f"an embedding, one MLP with {ACTIVATIONS[task.choice('activation', *ACTIVATIONS)]}, "
        "an unembedding" + _path(task),
        ties=TIES,
        arithmetic=arithmetic,
        assumptions=[DATA, *assumptions],
    )


def _of_language(task: Fields, claim: Fields) -> Statement:
    tokens = len(task.integers("targets", 0, UNBOUNDED))
    loss = _decimal(claim.integer("micronats", 0, UNBOUNDED))
    return Statement(
        claims=[f"the mean cross-entropy of the {tokens} targets is at most {loss} nats per token"],
        task=f"the next token at {tokens} places, from activations with SHA-256 {task.digest('data')}",
        network="the tail of a language model: a layer norm, one MLP with "
        f"{ACTIVATIONS[task.choice('activation', *ACTIVATIONS)]} beside the residual stream, a layer norm, "
        "an unembedding",
        ties="no answers are compared",
        arithmetic=REAL,
        assumptions=["the activations before the MLP are given; how they were computed is not covered"],
    )


def _path(task: Fields) -> str:
    return "; a residual path" if task.flag("residual") else "; no residual path"


def _share(claim: Fields, what: str) -> str:
    """So many of so many, and the share rounded down."""
    certified, total = claim.integer("certified", 0, UNBOUNDED), claim.integer("total", 0, UNBOUNDED)
    share = f" ({_decimal(certified * MILLION // total)})" if total else ""
    return f"at least {certified:,} of {total:,} {what}{share}"


def _decimal(millionths: int) -> str:
    """A number of millionths, written out."""
    whole, part = divmod(millionths, MILLION)
    return f"{whole}.{part:06}".rstrip("0").rstrip(".")
