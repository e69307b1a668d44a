"""Columns of tokens with what encloses all of their tokens."""

from dataclasses import dataclass

from flint import arb

from xtalk_check.network import Network
from xtalk_check.partition import Partition, read_partition
from xtalk_check.reading import Fields
from xtalk_check.work import Work, hull


@dataclass(frozen=True)
class Codebook(Partition):
    """A partition with centres and boxes.

    For each token t of column i and each neuron k, hidden[t][k] is in centres[i][k] + boxes[i][k], and
    direct[t][c] is in direct[i][c] for each class c. Boxes of single tokens are exactly 0.
    """

    centres: list[list[arb]]
    boxes: list[list[arb]]
    direct: list[list[arb]]

    @classmethod
    def read(cls, advice: Fields, network: Network, work: Work) -> "Codebook":
        """Read a partition, any of which is sound: centres and boxes are computed here, from all tokens.

        Cost: V (N + C) unions of balls, none where every token is a column of its own (null).
        """
        partition = read_partition(advice, len(network.hidden))
        members = partition.members
        work.hold(len(members) * (2 * len(network.b_hidden) + network.classes), "a codebook")
        hidden = [_hulls([network.hidden[token] for token in own]) for own in members]
        direct = network.direct or [[arb(0)] * network.classes] * len(network.hidden)
        centres = [
            row if len(own) == 1 else [ball.mid() for ball in row]
            for own, row in zip(members, hidden, strict=True)
        ]
        boxes = [
            [arb(0) if ball is centre else ball - centre for ball, centre in zip(row, middle, strict=True)]
            for row, middle in zip(hidden, centres, strict=True)
        ]
        logits = [_hulls([direct[token] for token in own]) for own in members]
        return cls(partition.columns, partition.blocks, centres, boxes, logits)


def _hulls(vectors: list[list[arb]]) -> list[arb]:
    """Entry by entry, a ball around the entries of all vectors."""
    return vectors[0] if len(vectors) == 1 else [hull(entries) for entries in zip(*vectors, strict=True)]
