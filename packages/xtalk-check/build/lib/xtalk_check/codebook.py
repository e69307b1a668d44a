"""Columns of tokens with what encloses all of their tokens."""

from dataclasses import dataclass

from flint import arb

from xtalk_check.network import Network
from xtalk_check.partition import Partition, read_partition
from xtalk_check.reading import Fields
from xtalk_check.work import Row, Work, hull


@dataclass(frozen=True)
class Codebook(Partition):
    """A partition with centres and boxes.

    For each token t of column i and each neuron k, hidden[t][k] is in centres[i][k] + boxes[i][k], and
    direct[t][c] is in direct[i][c] for each class c. Boxes of single tokens are exactly 0.
    """

    centres: list[Row]
    boxes: list[Row]
    direct: list[Row]

    @classmethod
    def read(cls, advice: Fields, network: Network, work: Work) -> "Codebook":
        """Read a partition, any of which is sound: centres and boxes are computed here, from all tokens.

        Cost: V (N + C) unions of balls, none where every token is a column of its own (null).
        """
        partition = read_partition(advice, len(network.hidden))
        members = partition.members
        work.hold(len(members) * (2 * len(network.b_hidden) + network.classes), "a codebook")
        parts = [_enclosed([network.hidden[token] for token in own]) for own in members]
        direct = [_hulls([network.direct[token] for token in own]) for own in members]
        centres, boxes = [centre for centre, _ in parts], [box for _, box in parts]
        return cls(partition.columns, partition.blocks, centres, boxes, direct)


def _enclosed(vectors: list[Row]) -> tuple[Row, Row]:
    """A centre and a box that enclose the vectors; a single one is a centre without a box."""
    if len(vectors) == 1:
        return vectors[0], [arb(0)] * len(vectors[0])
    balls = _hulls(vectors)
    centre = [ball.mid() for ball in balls]
    return centre, [ball - middle for ball, middle in zip(balls, centre, strict=True)]


def _hulls(vectors: list[Row]) -> Row:
    """Entry by entry, a ball around the entries of all vectors."""
    return vectors[0] if len(vectors) == 1 else [hull(entries) for entries in zip(*vectors, strict=True)]
