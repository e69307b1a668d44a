"""What library functions take: a model or its name, a crosscoder or its folder, texts of any kind."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import (
    TextSource,
    TokenSequences,
    distinct,
    read_documents,
    renderer,
    token_sequences,
    tokenise,
)
from xtalk.errors import XtalkError
from xtalk.models.language_model import LanguageModel, load_model
from xtalk.reading.normalised import behind_norms

Model = LanguageModel | str | Path
"""A language model, or what `xtalk.load_model` takes: a folder or a name."""

Dictionary = Crosscoder | str | Path
"""A crosscoder, or what `xtalk.Crosscoder.load` takes: a folder or a hub name."""

Texts = Sequence[str] | Path | TextSource | TokenSequences
"""Documents; or one string: the name of a file, a folder, a dataset or "embedded", of which a `TextSource`
says the column, the split, and whether documents are conversations; or token sequences."""

SEQUENCE_LENGTH = 256
_CHARACTERS_PER_TOKEN = 8  # more than any text has on average: how far a source is read

logger = logging.getLogger("xtalk")


def model_of(model: Model) -> LanguageModel:
    """The language model; one given by name is loaded, on the CPU in float32."""
    return model if isinstance(model, LanguageModel) else load_model(model)


def crosscoder_in(model: LanguageModel, crosscoder: Dictionary) -> Crosscoder:
    """The crosscoder on the model's device in float32; the one that was given stays as it is.

    Errors: XtalkError where the model lacks its hookpoints, or is of another width. One known to be of
    another model is read all the same, with a warning.
    """
    made = crosscoder if isinstance(crosscoder, Crosscoder) else Crosscoder.load(crosscoder)
    if made.config.d_in != model.d_model:
        raise XtalkError(
            f"the crosscoder's d_in is {made.config.d_in}, and the model {model.name} has d_model "
            f"{model.d_model}; give the model that the crosscoder was trained on"
        )
    made = behind_norms(made, model)
    for name in made.config.hook_names:
        model.hookpoint(name)
    known = made.provenance
    if known.model_weights_hash not in (None, model.weights_hash):
        trained_on = f"{known.model_name} (weights {str(known.model_weights_hash)[:12]})"
        read_in = f"{model.name} (weights {model.weights_hash[:12]})"
        logger.warning("the crosscoder was trained on %s; it is read in %s", trained_on, read_in)
    if made.W_dec.dtype != torch.float32 or made.W_dec.device != model.device:
        made = copy.deepcopy(made).to(model.device, torch.float32)
    return made


def default_length(model: LanguageModel) -> int:
    """Tokens per sequence where nobody says otherwise."""
    return min(SEQUENCE_LENGTH, model.context)


def sequences_of(
    model: LanguageModel, texts: Texts, *, tokens: int, length: int | None = None
) -> TokenSequences:
    """Texts as token sequences of `length` tokens, the first `tokens` tokens of them, in whole sequences.

    length: by default 256, or the model's context if that is shorter. Copies of a document, which would count
    as independent ones, are dropped, and a warning says how many. Token sequences are taken as they are.
    Errors: XtalkError for no text, a model without a tokenizer, and sequences longer than its context.
    """
    if isinstance(texts, TokenSequences):
        return texts
    length = default_length(model) if length is None else length
    if tokens < 1:
        raise XtalkError(f"{tokens} tokens of text; expected 1 or more")
    if length > model.context:
        raise XtalkError(
            f"sequences of {length} tokens; the model's context is {model.context}; choose a shorter "
            "sequence_length"
        )
    if model.tokenizer is None:
        raise XtalkError(
            f"the model {model.name} comes without a tokenizer; put tokenizer.json into its folder, or give "
            "TokenSequences"
        )
    whole = tokenise(_documents(texts, tokens, model), model.tokenizer, length)
    count = -(-tokens // length)
    if count >= len(whole):
        return whole
    logger.info("%d of %d tokens of text are read", count * length, whole.tokens.size)
    return token_sequences(whole.tokens[:count], whole.documents[:count])


def _documents(texts: Sequence[object] | Path | TextSource, tokens: int, model: LanguageModel) -> list[str]:
    if isinstance(texts, str | Path | TextSource):
        chat = isinstance(texts, TextSource) and texts.chat and model.tokenizer is not None
        render = renderer(model.tokenizer, model.name) if chat and model.tokenizer else None
        return read_documents(texts, _CHARACTERS_PER_TOKEN * tokens, render)
    documents = [text for text in texts if isinstance(text, str)]
    if not documents or len(documents) < len(texts):
        kinds = sorted({type(text).__name__ for text in texts}) or ["nothing"]
        raise XtalkError(f"texts of {', '.join(kinds)}; expected strings, one a document, or a file's name")
    return distinct(documents)
