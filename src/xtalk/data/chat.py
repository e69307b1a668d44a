"""Conversations as the text that a model was trained on: its tokenizer's chat template."""

from collections.abc import Callable, Sequence
from typing import cast

from transformers import PreTrainedTokenizerBase

from xtalk.errors import XtalkError

Render = Callable[[Sequence[dict[str, str]]], str]
"""A conversation, messages of a role and a content each, as text."""


def renderer(tokenizer: PreTrainedTokenizerBase, model: str) -> Render:
    """The chat template of a model's tokenizer. Errors: XtalkError where it has none."""
    if tokenizer.chat_template is None:
        raise XtalkError(
            f"the tokenizer of {model} has no chat template; expected that of a model trained to chat; "
            "leave out --chat"
        )

    def render(messages: Sequence[dict[str, str]]) -> str:
        try:
            return cast(str, tokenizer.apply_chat_template(list(messages), tokenize=False))
        except Exception as error:  # templates raise what they like, and jinja what it must
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            roles = ", ".join(message["role"] for message in messages)
            raise XtalkError(
                f"the chat template of {model} refuses a conversation ({roles}): {reason}; correct the text"
            ) from error

    return render


def conversation(value: object, where: str) -> list[dict[str, str]]:
    """A row's value as a conversation: a list of messages, or a text, which is then the user's one message.

    Errors: XtalkError for anything else.
    """
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    messages: list[dict[str, str]] = []
    for one in cast(Sequence[object], value) if isinstance(value, list | tuple) else (None,):
        message = cast(dict[str, object], one) if isinstance(one, dict) else {}
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise XtalkError(
                f'{where} is no conversation; expected a list of messages such as {{"role": "user", '
                '"content": "..."}'
            )
        messages.append({"role": role, "content": content})
    if not messages:
        raise XtalkError(f"{where} is a conversation without messages; drop that row")
    return messages
