"""A language model behind an OpenAI-compatible endpoint, as a judge of clusters and to describe features.

The base URL and the key come from OPENAI_BASE_URL and OPENAI_API_KEY. Every answer is cached in a folder by
the hash of its request, so nothing is asked or paid for twice, and an interrupted job goes on where it was.
"""

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from xtalk.clustering.protocol import Trial
from xtalk.errors import XtalkError
from xtalk.files import write_text

LETTERS = "ABCDE"
_CHARACTERS_PER_TOKEN = 4
_ANSWER_TOKENS = 40
_TIMEOUT = 60


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and which model; answers are kept in `cache`."""

    base_url: str
    key: str
    model: str
    cache: Path

    @classmethod
    def from_environment(cls, model: str, cache: Path) -> "Endpoint":
        """The endpoint of OPENAI_BASE_URL and OPENAI_API_KEY. Errors: XtalkError if one is not set."""
        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
            if not os.environ.get(name):
                raise XtalkError(f"{name} is not set; set it to that of an OpenAI-compatible endpoint")
        base_url = os.environ["OPENAI_BASE_URL"].rstrip("/")
        return cls(base_url, os.environ["OPENAI_API_KEY"], model, cache)

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
        try:
            request = urllib.request.Request(
                f"{self.base_url}/chat/completions",
                json.dumps(body).encode(),
                {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
            )
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                return str(json.loads(response.read())["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            raise self._failed(f"answered {error.code} {error.reason}") from error
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise self._failed(f"gave no chat completion ({reason})") from error

    def _failed(self, what: str) -> XtalkError:
        return XtalkError(
            f"the endpoint {self.base_url} {what}; answers so far are kept; "
            "check OPENAI_BASE_URL, OPENAI_API_KEY and the model's name, and give the same command again"
        )


class EndpointJudge:
    """Judges by asking a language model; texts: what it is told of each latent."""

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
            told = " ".join(answer.split())[:60]
            raise XtalkError(
                f"the endpoint's model {self._endpoint.model} answered {told!r}; expected one letter from A "
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
