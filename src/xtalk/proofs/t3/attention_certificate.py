"""Certificates of theorem T3 for attention: which tokens are treated alike, asking and answering."""

import hashlib
from math import comb
from typing import Literal, get_args

from xtalk.proofs.certificates import Certificate, certify, container
from xtalk.proofs.t3.attention_network import AttentionNetwork, attention_spec
from xtalk.proofs.t3.bound import Columns
from xtalk.proofs.t3.tasks import ProductTask

Alike = Literal["tokens", "asking columns", "columns"]
"""Every token for itself; asking tokens by columns; all tokens by columns: ever shorter and looser."""
ALIKE: tuple[Alike, ...] = get_args(Alike)
_SCORE_BITS = 12


def certify_attention(
    network: AttentionNetwork, task: ProductTask, columns: Columns, alike: Alike
) -> Certificate:
    """The certificate that claims the most, with every column an anchor and one block for the rest.

    Errors: XtalkError where the checker refuses the certificate.
    """
    of_token, numbers = list(columns.of_token), list(range(len(columns)))
    by_column = {"columns": of_token, "blocks": numbers}
    each = {"columns": None, "blocks": list(range(task.vocabulary))}
    advice = {
        "query": each if alike == "tokens" else by_column,
        "anchor": by_column if alike == "columns" else {"columns": None, "blocks": of_token},
        "rest": {"columns": of_token, "blocks": [0] * len(columns)}
        if alike == "columns"
        else {"columns": None, "blocks": [0] * task.vocabulary},
        "bits": _SCORE_BITS,
    }
    weights = container(network.state_dict())
    spec = attention_spec(task, hashlib.sha256(weights).hexdigest())
    return certify(spec, weights, advice, task.total)


def attention_brute_force(task: ProductTask) -> int:
    """Multiply-adds of every input once, up to the order of the first n - 1 tokens, weights multiplied."""
    return task.vocabulary * comb(task.vocabulary + task.n - 2, task.n - 1) * task.n * task.answers
