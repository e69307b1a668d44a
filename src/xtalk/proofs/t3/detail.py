"""How finely a certificate of theorem T3 looks, and the advice that says so."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from xtalk.proofs.t3.columns import Columns
from xtalk.proofs.t3.tasks import ProductTask

Alike = Literal["tokens", "asking columns", "columns"]
"""Attention: each token for itself; asking tokens by columns; all by columns: ever shorter and looser."""
ALIKE: tuple[Alike, ...] = get_args(Alike)
_SUM_BITS, _ATTENTION_BITS = 8, 12  # after the binary point, of scores


@dataclass(frozen=True)
class Detail:
    """How finely a certificate of a sum network looks: the dial between its length and its tightness.

    tokens: whether the effect of a position is tabled for each token, or for each column with a box around
    its tokens. blocks: into how many groups of columns, by class, the positions beside the anchor are told
    apart; with as many as there are columns every multiset of columns is gone through, and what is bounded is
    only what the tokens of one column do to one another. token_anchors: whether each token is an anchor of
    its own, or each column with all its tokens is one.
    """

    tokens: bool = True
    blocks: int = 1
    token_anchors: bool = False


def default_detail(task: ProductTask, columns: Columns) -> Detail:
    """The shortest that tables tokens; for modular addition (it has no anchor) every multiset of columns."""
    return Detail(blocks=len(columns)) if task.name == "modular_addition" else Detail()


def sum_advice(columns: Columns, detail: Detail) -> dict[str, Any]:
    """The advice of a sum network's certificate."""
    of_token, K, V = list(columns.of_token), len(columns), len(columns.of_token)
    block_K = [column * detail.blocks // K for column in range(K)]
    if detail.tokens:
        anchor = {"columns": None, "blocks": list(range(V)) if detail.token_anchors else of_token}
        rest = {"columns": None, "blocks": [block_K[column] for column in of_token]}
    else:
        anchor = {"columns": of_token, "blocks": list(range(K))}
        rest = {"columns": of_token, "blocks": block_K}
    return {"anchor": anchor, "rest": rest, "bits": _SUM_BITS}


def attention_advice(columns: Columns, alike: Alike) -> dict[str, Any]:
    """The advice of an attention network's certificate: every column an anchor, one block for the rest."""
    of_token, K, V = list(columns.of_token), len(columns), len(columns.of_token)
    by_column = {"columns": of_token, "blocks": list(range(K))}
    each = {"columns": None, "blocks": list(range(V))}
    return {
        "query": each if alike == "tokens" else by_column,
        "anchor": by_column if alike == "columns" else {"columns": None, "blocks": of_token},
        "rest": {"columns": of_token, "blocks": [0] * K}
        if alike == "columns"
        else {"columns": None, "blocks": [0] * V},
        "bits": _ATTENTION_BITS,
    }
