"""Columns: groups of tokens that a proof treats as one, by a centre and a box around it."""

from collections.abc import Sequence
from dataclasses import dataclass

from flint import arb, arb_mat

from xtalk_check.errors import Rejected
from xtalk_check.network import Network
from xtalk_check.reading import Fields
from xtalk_check.work import Work, hull, rows

STRENGTH = 1 << 40  # largest feature entry and strength, in units of 2^-bits


@dataclass(frozen=True)
class Codebook:
    """A partition of the tokens into columns.

    For each token t of column i and each neuron k, hidden[t][k] is in centres[i][k] + boxes[i][k], and
    direct[t][c] is in direct[i][c] for each class c. `boxes` is zero where columns are single tokens.
    """

    assignment: Sequence[int]
    centres: list[list[arb]]
    boxes: list[list[arb]]
    direct: list[list[arb]]

    @classmethod
    def read(cls, advice: Fields, name: str, network: Network, work: Work) -> "Codebook":
        """Read a codebook of the certificate; null makes every token a column of its own.

        Otherwise the certificate holds the column of each token, features (vectors in the space of the
        embeddings) and for each column a code: its centre is the sum of strength x feature over its pairs.
        Where there are no features, the centre is the middle of the box. Any advice is sound: the box is
        computed here, from all tokens. Cost: features x D N, codes x features x N.
        """
        tokens = len(network.hidden)
        zeros = [arb(0)] * len(network.b_hidden)
        direct = network.direct or [[arb(0)] * network.classes] * tokens
        if advice.null(name):
            return cls(range(tokens), network.hidden, [zeros] * tokens, direct)
        given = advice.fields(name)
        assignment = given.integers("assignment", 0, tokens - 1, tokens)
        members: list[list[int]] = [[] for _ in range(max(assignment) + 1)]
        for token, column in enumerate(assignment):
            members[column].append(token)
        if not all(members):
            raise Rejected(f"the codebook {name} has a column without tokens")
        centres = _centres(given, len(members), network, work)
        given.done()
        boxes: list[list[arb]] = []
        for i, own in enumerate(members):
            box = [hull(values) for values in zip(*(network.hidden[token] for token in own), strict=True)]
            if len(centres) == i:
                centres.append([ball.mid() for ball in box])
            boxes.append([ball - centre for ball, centre in zip(box, centres[i], strict=True)])
        hulls = [
            [hull(values) for values in zip(*(direct[token] for token in own), strict=True)]
            for own in members
        ]
        return cls(assignment, centres, boxes, hulls)


def _centres(given: Fields, columns: int, network: Network, work: Work) -> list[list[arb]]:
    """The columns' centres as the certificate decodes them, or none."""
    size = network.embed.ncols()
    features = given.table("features", -STRENGTH, STRENGTH, size)
    codes = given.table("codes", -STRENGTH, STRENGTH)
    scale = arb(2) ** -given.integer("bits", 0, 60)
    if not features and not codes:
        return []
    if len(codes) != columns:
        raise Rejected(f"{len(codes)} codes for {columns} columns")
    weight = arb_mat(columns, len(features))
    for column, code in enumerate(codes):
        if len(code) % 2:
            raise Rejected(f"a code has {len(code)} entries, which are no pairs")
        for feature, strength in zip(code[::2], code[1::2], strict=True):
            if not 0 <= feature < len(features):
                raise Rejected(f"a code has the feature {feature}; there are {len(features)}")
            weight[column, feature] += strength * scale
    dictionary = work.product(
        arb_mat(len(features), size, [v * scale for f in features for v in f]), network.w_in
    )
    return rows(work.product(weight, dictionary))
