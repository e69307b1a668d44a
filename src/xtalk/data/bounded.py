"""Reading of a text up to 20 million characters, with a warning where that leaves some out."""

import logging

from xtalk.data import read_start

logger = logging.getLogger("xtalk")

CHARACTERS = 20_000_000


def read_text(source: str) -> tuple[list[str], bool]:
    """The documents of a text, and whether some beyond 20 million characters were left out.

    A warning says so too.
    """
    documents, cut = read_start(source, CHARACTERS)
    if cut:
        read = sum(map(len, documents))
        logger.warning("%s is longer than the %d characters read of it; the rest is left out", source, read)
    return documents, cut
