"""The endpoint judge against a local stub: prompts, cache, price, and an endpoint that fails."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from xtalk.clustering import Trial
from xtalk.clustering.endpoint import Endpoint, EndpointJudge, confirm, description_prompt
from xtalk.errors import XtalkError

RETRIES = 2
TEXTS = {i: f"- text of feature {i}, [[marked]]" for i in range(12)}
TRIAL = Trial(0, (0, 1, 2), (5, 6, 3, 7, 8), 2)


class Stub(BaseHTTPRequestHandler):
    answers: ClassVar[list[str | int]] = []
    seen: ClassVar[list[dict]] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Stub.seen.append({"path": self.path, "key": self.headers["Authorization"], **body})
        answer = Stub.answers.pop(0)
        self.send_response(answer if isinstance(answer, int) else 200)
        self.send_header("Content-Type", "text/html" if answer == "a page" else "application/json")
        self.send_header("retry-after-ms", "1")
        if answer == "cut off":
            self.send_header("Content-Length", "99")
        self.end_headers()
        if answer in ("not json", "a page", "cut off"):
            self.wfile.write(b"<html>")
        elif isinstance(answer, str):
            self.wfile.write(json.dumps({"choices": [{"message": {"content": answer}}]}).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint(tmp_path, monkeypatch) -> Endpoint:
    server = HTTPServer(("127.0.0.1", 0), Stub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr("xtalk.clustering.endpoint.RETRIES", RETRIES)
    monkeypatch.setattr(Stub, "answers", [])
    monkeypatch.setattr(Stub, "seen", [])
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1/")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    yield Endpoint.from_environment("stub-model", tmp_path / "cache")
    server.shutdown()
    server.server_close()


def test_a_trial_is_asked_once_and_its_answer_kept(endpoint: Endpoint):
    Stub.answers += ["C", "B."]
    judge = EndpointJudge(endpoint, TEXTS)
    assert judge(TRIAL) == 1.0
    assert judge(TRIAL) == 1.0  # from the cache
    [request] = Stub.seen
    assert (request["path"], request["key"], request["model"]) == (
        "/v1/chat/completions",
        "Bearer secret",
        "stub-model",
    )
    prompt = request["messages"][0]["content"]
    shown, options = prompt.split("Which one")
    assert [f"feature {i}," in shown for i in range(9)] == [True] * 3 + [False] * 6
    assert [options.index(f"feature {i},") for i in TRIAL.candidates] == sorted(
        options.index(f"feature {i},") for i in TRIAL.candidates
    )
    other = Trial(0, (0, 1), TRIAL.candidates, 2)
    assert judge(other) == 0.0
    assert not any("secret" in file.read_text() for file in endpoint.cache.iterdir())


def test_the_price_is_said_before_anything_is_sent(endpoint: Endpoint):
    judge = EndpointJudge(endpoint, TEXTS)
    prompts = [judge.prompt(TRIAL), judge.prompt(TRIAL), description_prompt(TEXTS[3])]
    with pytest.raises(XtalkError, match=r"2 requests .* about \d+ tokens, about 0.00 at 5 per .*--yes"):
        confirm(endpoint, prompts, 5.0, confirmed=False)
    assert Stub.seen == []
    assert confirm(endpoint, prompts, None, confirmed=True)[0] == 2
    Stub.answers += ["C"]
    judge(TRIAL)
    assert confirm(endpoint, prompts, None, confirmed=True)[0] == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            "I think that all of them are lovely.",
            "answered 'I think that all.*expected one letter from A to E",
        ),
        ("F", "answered 'F'"),
        ("not json", "gave no chat completion"),
        ("a page", "gave no chat completion"),
        (401, "answered 401 Unauthorized"),
    ],
)
def test_nonsense_is_one_line_and_earlier_answers_are_kept(endpoint: Endpoint, answer, message: str):
    Stub.answers += ["C", answer, "A"]
    judge, other = EndpointJudge(endpoint, TEXTS), Trial(0, (4,), TRIAL.candidates, 0)
    judge(TRIAL)
    with pytest.raises(XtalkError, match=message) as caught:
        judge(other)
    assert "\n" not in str(caught.value)
    assert "kept" in str(caught.value)
    assert judge(TRIAL) == 1.0  # no new request
    assert judge(other) == 1.0  # the nonsense was not kept
    assert len(Stub.seen) == 3


@pytest.mark.parametrize("trouble", [429, 503, "cut off"])
def test_trouble_that_passes_is_waited_for(endpoint: Endpoint, trouble):
    Stub.answers += [trouble, trouble, "C"]
    assert EndpointJudge(endpoint, TEXTS)(TRIAL) == 1.0
    assert len(Stub.seen) == 3
    assert all(request["messages"] == Stub.seen[0]["messages"] for request in Stub.seen)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (429, "answered 429 Too Many Requests"),
        (503, "answered 503 Service Unavailable"),
        ("cut off", "gave no chat completion .peer closed connection"),
    ],
)
def test_trouble_that_stays_is_one_line(endpoint: Endpoint, trouble, message: str):
    Stub.answers += [trouble] * (RETRIES + 1)
    with pytest.raises(XtalkError, match=message) as caught:
        endpoint.ask("hello")
    assert "\n" not in str(caught.value)
    assert len(Stub.seen) == RETRIES + 1


def test_an_endpoint_that_is_down_or_not_set_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("xtalk.clustering.endpoint.RETRIES", 0)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(XtalkError, match="OPENAI_API_KEY is not set"):
        Endpoint.from_environment("m", tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(XtalkError, match=r"gave no chat completion .*refused"):
        Endpoint.from_environment("m", tmp_path).ask("hello")
    monkeypatch.setenv("OPENAI_BASE_URL", "not a url")
    with pytest.raises(XtalkError, match="endpoint not a url gave no chat completion"):
        Endpoint.from_environment("m", tmp_path).ask("hello")
