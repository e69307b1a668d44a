"""Reading of a text up to 20 million characters, with a warning where that leaves some out."""

import logging

from transformers import PreTrainedTokenizerBase

from xtalk.data import TextSource, read_start, renderer

logger = logging.getLogger("xtalk")

CHARACTERS = 20_000_000


def read_text(
    source: str | TextSource, tokenizer: PreTrainedTokenizerBase | None, model: str
) -> tuple[list[str], bool]:
    """The documents of a text, and whether some beyond 20 million characters were left out.

    A warning says so too. tokenizer, model: whose chat template conversations are read in.
    """
    chat = isinstance(source, TextSource) and source.chat
    rendered = renderer(tokenizer, model) if chat and tokenizer is not None else None
    documents, cut = read_start(source, CHARACTERS, rendered)
    if cut:
        read = sum(map(len, documents))
        logger.warning("%s is longer than the %d characters read of it; the rest is left out", source, read)
    return documents, cut
