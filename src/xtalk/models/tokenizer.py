"""The tokenizer of a model, which reads text as the file says that it comes from."""

import logging
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from xtalk.errors import XtalkError

logger = logging.getLogger("xtalk")

FILE = "tokenizer.json"
SAMPLE = (
    "a a b",
    "The cat sat; it didn't move.",
    " Leading,  two  and   three spaces",
    "Lines\n\nand\ttabs \n",
    "1234567890 3.14 -7",
    "naïve café, e\u0301",
    "été № ½ “quoted” — dash",
    "Привет, мир",
    "你好世界。",
    "مرحبا 🙂👩‍💻",
    "def f(x): return x**2  # 𝑥²",
    "www.example.com/a_b?c=d&E=F",
)


def load_tokenizer(folder: Path, *, code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, with the token ids of its tokenizer.json on a sample, if it has one.

    transformers may make another tokenizer of the model's type than its file holds; the file's is then taken,
    and that is logged. code: whether Python files of the folder may run. Errors: XtalkError shows both
    readings where they still differ.
    """
    location = str(folder)
    tokenizer = AutoTokenizer.from_pretrained(location, local_files_only=True, trust_remote_code=code)
    if not (folder / FILE).is_file():
        return tokenizer
    stored = Tokenizer.from_file(str(folder / FILE))
    stored.no_truncation()
    stored.no_padding()
    if (difference := _difference(tokenizer, stored)) is None:
        return tokenizer
    logger.warning("the tokenizer of %s reads %s; the file is used", location, difference)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(location, local_files_only=True)
    if (difference := _difference(tokenizer, stored)) is None:
        return tokenizer
    raise XtalkError(
        f"the tokenizer of {location!r} reads {difference}; expected the ids of tokenizer.json; save the "
        "tokenizer again with save_pretrained, or get its files again"
    )


def _difference(tokenizer: PreTrainedTokenizerBase, stored: Tokenizer) -> str | None:
    """The first text of the sample that two tokenizers read differently, with both readings."""
    for text in SAMPLE:
        expected = stored.encode(text, add_special_tokens=False)
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if list(ids) != expected.ids:
            found = tokenizer.convert_ids_to_tokens(ids)
            by = type(tokenizer).__name__
            return (
                f"{text!r} as {found} ({by} of transformers), but as {expected.tokens} by its tokenizer.json"
            )
    return None
