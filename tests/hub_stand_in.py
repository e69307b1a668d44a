"""The Hugging Face hub's HTTP interface, as far as its client needs it, served from memory."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

TOKEN = "hf_of_the_test"
HANGS = 3.0  # seconds, of a request that the hub does not answer


@dataclass
class Repository:
    """Files by path, for every commit; branches and tags by name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make a commit of these files beside those that there are."""
        before = self.commits.get(self.refs.get(branch, ""), {})
        digest = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[digest] = before | files
        self.refs[branch] = digest
        return digest


@dataclass
class Hub:
    """Repositories by name, what was asked, and faults to make: requests whose path matches are cut short."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # uploads apart from commits, by sha256
    requests: list[str] = field(default_factory=list)
    cut: str | None = None
    refused: str | None = None
    hangs: str | None = None

    def add(self, name: str, files: dict[str, bytes], **how: bool) -> str:
        """Make a repository with one commit."""
        repository = self.repositories[name] = Repository(**how)
        return repository.commit(files)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._read(body=False)

    def do_GET(self) -> None:
        self._read(body=True)

    def do_PUT(self) -> None:
        content = self._content()
        self.hub.large[hashlib.sha256(content).hexdigest()] = content
        self._json({})

    def do_POST(self) -> None:
        content, path = self._content(), self._begin()
        if path is None:
            return None
        if path == "/api/validate-yaml":
            assert json.loads(content)["content"].startswith("---\n")
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(401, "", "Invalid username or password.")
        if path == "/api/repos/create":
            return self._create(json.loads(content))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            files = json.loads(content)["files"]
            modes = [("lfs" if f["path"].endswith(".safetensors") else "regular", f["path"]) for f in files]
            return self._json(
                {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for m, p in modes]}
            )
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(content)["objects"]
            action = {"upload": {"href": f"{self.hub.endpoint}/upload"}}
            return self._json({"transfer": "basic", "objects": [o | {"actions": action} for o in objects]})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            return self._commit(*match.groups(), content)
        return self._error(404, "", "no such call")

    def _create(self, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        there = name in self.hub.repositories
        if not there:
            self.hub.add(name, {".gitattributes": b""}, private=asked.get("visibility") == "private")
        self._json({"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name}, 409 if there else 200)

    def _commit(self, name: str, branch: str, content: bytes) -> None:
        files: dict[str, bytes] = {}
        for line in map(json.loads, content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        oid = self.hub.repositories[name].commit(files, branch)
        self._json({"commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}"})

    def _read(self, *, body: bool) -> None:
        path = self._begin()
        if path is None:
            return None
        call = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if (match := call or file) is None:
            return self._error(404, "", "no such call")
        repository = self.hub.repositories.get(match[1])
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            return self._error(401, "RepoNotFound", "Invalid username or password.")
        revision = match[2] if file else match[3] or "main"
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        if file:
            if repository.gated and not known:
                return self._error(401, "GatedRepo", f"Access to model {match[1]} is restricted.")
            if file[3] not in files:
                return self._error(404, "EntryNotFound", "Entry not found")
            return self._send(files[file[3]], commit, body=body)
        if match[2] == "tree":
            return self._json([_entry(path, content) for path, content in files.items()])
        return self._json({"id": match[1], "sha": commit, "siblings": [{"rfilename": p} for p in files]})

    def _begin(self) -> str | None:
        """The path that was asked for; None where the request is refused at once."""
        path = self.path.partition("?")[0].replace("%2F", "/")
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.hangs and re.search(self.hub.hangs, path):
            Event().wait(HANGS)
        if self.hub.refused and re.search(self.hub.refused, path):
            self._error(500, "", "the hub is unwell")
            return None
        return path

    def _send(self, content: bytes, commit: str, *, body: bool) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._head(200, len(content), {"ETag": etag, "X-Repo-Commit": commit})
        if body and self.hub.cut and re.search(self.hub.cut, self.path):
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content)

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts: list[bytes] = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, content: object, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self._head(status, len(data), {"Content-Type": "application/json"})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status: int, code: str, message: str) -> None:
        data = json.dumps({"error": message}).encode()
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._head(status, len(data), headers | {"Content-Type": "application/json"})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _upload(path: str) -> dict:
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}


def _entry(path: str, content: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if path.endswith(".safetensors"):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    return entry


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers at its endpoint for the time of the context."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def in_place_of_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, for the client in this process, with an empty cache below `folder` and no token."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its attempts
    with serving() as hub:
        url = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + url)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        yield hub
