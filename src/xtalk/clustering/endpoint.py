"""A language model behind an OpenAI-compatible endpoint, as a judge of clusters and to describe features.

The base URL and the key come from OPENAI_BASE_URL and OPENAI_API_KEY. Every answer is cached in a folder by
the hash of its request, so nothing is asked or paid for twice, and an interrupted job goes on where it was.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import OpenAI

from xtalk.clustering.protocol import Trial
from xtalk.errors import XtalkError
from xtalk.files import write_text
from xtalk.optional import extras_named

LETTERS = "ABCDE"
_CHARACTERS_PER_TOKEN = 4
_ANSWER_TOKENS = 40
_TIMEOUT = 60
RETRIES = 6  # of a request that is refused for its rate, fails in the server or on the way; half a minute


@dataclass(frozen=True)
class Endpoint:
    """A client of the endpoint, and which model to ask; answers are kept in `cache`."""

    client: "OpenAI"
    base_url: str
    model: str
    cache: Path

    @classmethod
    def from_environment(cls, model: str, cache: Path) -> "Endpoint":
        """The endpoint of OPENAI_BASE_URL and OPENAI_API_KEY.

        Errors: XtalkError if one is not set, or the package openai is not installed.
        """
        with extras_named():
            from openai import OpenAI

        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
            if not os.environ.get(name):
                raise XtalkError(f"{name} is not set; set it to that of an OpenAI-compatible endpoint")
        client = OpenAI(timeout=_TIMEOUT, max_retries=RETRIES)
        return cls(client, os.environ["OPENAI_BASE_URL"].rstrip("/"), model, cache)

    def ask(self, prompt: str) -> str:
        """The answer to a prompt, from the cache if it is there. Errors: XtalkError in one line."""
        path = self._path(prompt)
        if path.exists():
            return str(json.loads(path.read_text(encoding="utf-8"))["answer"])
        answer = self._post(self._request(prompt))
        write_text(path, json.dumps({"prompt": prompt, "answer": answer}))
        return answer

    def forget(self, prompt: str) -> None:
        """Drop a cached answer, so that the prompt is asked again."""
        self._path(prompt).unlink(missing_ok=True)

    def estimate(self, prompts: Sequence[str]) -> tuple[int, int]:
        """How many prompts are yet to be asked, and about how many tokens that takes, answers too."""
        new = [prompt for prompt in set(prompts) if not self._path(prompt).exists()]
        tokens = sum(len(prompt) // _CHARACTERS_PER_TOKEN + _ANSWER_TOKENS for prompt in new)
        return len(new), tokens

    def _request(self, prompt: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": _ANSWER_TOKENS}

    def _path(self, prompt: str) -> Path:
        request = json.dumps([self.base_url, self._request(prompt)], sort_keys=True)
        return self.cache / f"{hashlib.sha256(request.encode()).hexdigest()}.json"

    def _post(self, body: dict[str, Any]) -> str:
        from openai import APIConnectionError, APIStatusError, OpenAIError

        try:
            content = self.client.chat.completions.create(**body).choices[0].message.content
        except APIStatusError as error:
            raise self._failed(f"answered {error.status_code} {error.response.reason_phrase}") from error
        except APIConnectionError as error:
            raise self._failed(f"gave no chat completion ({error.__cause__ or error})") from error
        except (OpenAIError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise self._failed(f"gave no chat completion ({type(error).__name__})") from error
        if content is None:
            raise self._failed("gave no chat completion (without content)")
        return content

    def _failed(self, what: str) -> XtalkError:
        return XtalkError(
            f"the endpoint {self.base_url} {what}; answers so far are kept; "
            "check OPENAI_BASE_URL, OPENAI_API_KEY and the model's name, and give the same command again"
        )


class EndpointJudge:
    """Judges by asking a language model; texts: what it reads of each latent."""

    def __init__(self, endpoint: Endpoint, texts: Mapping[int, str]) -> None:
        self._endpoint, self._texts = endpoint, texts

    def prompt(self, trial: Trial) -> str:
        """The question of a trial."""
        shown = "\n\n".join(self._texts[latent] for latent in trial.shown)
        options = "\n\n".join(
            f"{letter}:\n{self._texts[latent]}"
            for letter, latent in zip(LETTERS, trial.candidates, strict=True)
        )
        return (
            "Each feature of a language model is shown by texts in which it is active, marked by [[ ]].\n\n"
            f"These features belong to one group:\n\n{shown}\n\n"
            f"Which one of these features belongs to the same group?\n\n{options}\n\n"
            "Answer with one letter, A, B, C, D or E, and nothing else."
        )

    def __call__(self, trial: Trial) -> float:
        """The credit for a trial. Errors: XtalkError for an answer that is no letter from A to E."""
        prompt = self.prompt(trial)
        answer = self._endpoint.ask(prompt)
        match = re.fullmatch(r"\W*([A-E])\b\W*.{0,80}", answer.strip(), re.DOTALL)
        if match is None:
            self._endpoint.forget(prompt)
            said = " ".join(answer.split())[:60]
            raise XtalkError(
                f"the endpoint's model {self._endpoint.model} answered {said!r}; expected one letter from A "
                "to E; answers so far are kept; choose another model"
            )
        return float(LETTERS.index(match.group(1)) == trial.place)


def description_prompt(text: str) -> str:
    """The question what a feature stands for."""
    return (
        "A feature of a language model is active in these texts, at the tokens marked by [[ ]]:\n\n"
        f"{text}\n\nSay in at most ten words what it stands for, and nothing else."
    )


def confirm(
    endpoint: Endpoint, prompts: Sequence[str], price: float | None, confirmed: bool
) -> tuple[int, int]:
    """Say what asking would take unless it is confirmed; returns requests and tokens to come.

    price: per million tokens, in whatever currency. Errors: XtalkError, with the estimate, if not confirmed.
    """
    requests, tokens = endpoint.estimate(prompts)
    if requests and not confirmed:
        cost = f", about {tokens * price / 1e6:.2f} at {price:g} per million" if price is not None else ""
        raise XtalkError(
            f"this takes {requests} requests to {endpoint.base_url}, about {tokens} tokens{cost}; "
            "give the same command with --yes to send them"
        )
    return requests, tokens
