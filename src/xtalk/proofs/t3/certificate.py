"""Certificates of theorem T3 for a sum network: which tokens are treated alike, and how finely."""

import hashlib
from dataclasses import dataclass
from typing import Any

from xtalk.proofs.certificates import Certificate, certify, container
from xtalk.proofs.t3.bound import Columns
from xtalk.proofs.t3.sum_network import SumNetwork
from xtalk.proofs.t3.tasks import ProductTask

_SCORE_BITS = 8


@dataclass(frozen=True)
class Detail:
    """How finely a certificate looks: the dial between its length and its tightness.

    tokens: whether the effect of a position is tabled for each token, or for each column with a box around
    its tokens. blocks: into how many groups of columns, by class, the positions beside the anchor are told
    apart; with as many as there are columns every multiset of columns is gone through, and what is bounded is
    only what the tokens of one column do to one another. token_anchors: whether each token is an anchor of
    its own, or each column with all its tokens is one.
    """

    tokens: bool = True
    blocks: int = 1
    token_anchors: bool = False


def certify_network(network: SumNetwork, task: ProductTask, columns: Columns, detail: Detail) -> Certificate:
    """The certificate of theorem T3 with this detail that claims the most.

    Modular addition has no anchors: it needs as many blocks as columns. Errors: XtalkError where the checker
    refuses the certificate.
    """
    return certify(*_question(network, task, "T3"), _advice(columns, detail), task.total)


def certify_by_brute_force(network: SumNetwork, task: ProductTask) -> Certificate:
    """The certificate that goes through every input: the longest and the tightest."""
    return certify(*_question(network, task, "brute_force"), {}, task.total)


def brute_force_multiply_adds(task: ProductTask, neurons: int) -> int:
    """What the checker's `brute_force` costs: N (n + C) a sequence, up to order where none matters."""
    return task.distinct * per_input_multiply_adds(task, neurons)


def per_input_multiply_adds(task: ProductTask, neurons: int) -> int:
    """What one input costs, all products of weights shared."""
    return neurons * (task.n + task.answers)


def _question(network: SumNetwork, task: ProductTask, theorem: str) -> tuple[dict[str, Any], bytes]:
    """What a verifier asks, and the weights it is asked of."""
    weights = container(network.state_dict())
    sizes, digest = network.sizes, hashlib.sha256(weights).hexdigest()
    return task.spec(theorem, sizes.activation, sizes.residual, digest), weights


def _advice(columns: Columns, detail: Detail) -> dict[str, Any]:
    of_token, K, V = list(columns.of_token), len(columns), len(columns.of_token)
    block_K = [column * detail.blocks // K for column in range(K)]
    if detail.tokens:
        anchor = {"columns": None, "blocks": list(range(V)) if detail.token_anchors else of_token}
        rest = {"columns": None, "blocks": [block_K[column] for column in of_token]}
    else:
        anchor = {"columns": of_token, "blocks": list(range(K))}
        rest = {"columns": of_token, "blocks": block_K}
    return {"anchor": anchor, "rest": rest, "bits": _SCORE_BITS}
