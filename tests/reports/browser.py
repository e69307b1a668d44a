"""A headless Chromium, driven over its own pipe: pages are opened, clicked, typed into and asked."""

import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-pipe --window-size=1280,900"
)
PATIENCE = 90.0  # seconds for an answer
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "ArrowLeft": (37, ""), "ArrowUp": (38, "")}
KEYS |= {"ArrowRight": (39, ""), "ArrowDown": (40, ""), " ": (32, " "), "Home": (36, ""), "End": (35, "")}


class Browser:
    """The browser's end of the pipe (Chrome DevTools Protocol: JSON messages that end with NUL)."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._buffer = read, write, b""
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Calls a method and returns its result; events that come meanwhile are kept."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params} | (
            {"sessionId": session} if session else {}
        )
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def wait(self, method: str, session: str) -> None:
        """Waits for an event."""
        while not any(e.get("method") == method and e.get("sessionId") == session for e in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], PATIENCE)[0], "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, fragment: str = "", *, dark: bool = False, ready: str = "true") -> "Page":
        """A page in a tab of its own, once it has loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        opened = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            opened.send(f"{domain}.enable")
        opened.send("Performance.enable", timeDomain="threadTicks")
        opened.media(dark=dark)
        opened.send("Page.navigate", url=f"{page.as_uri()}{'#' + fragment if fragment else ''}")
        self.wait("Page.loadEventFired", session)
        assert opened.js(ready)
        return opened


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of this tab."""
        return self._browser.send(method, self._session, **params)

    def js(self, expression: str) -> Any:
        """The value of an expression; promises are waited for."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What an element shows."""
        return self.js(f"document.querySelector({json.dumps(selector)}).innerText")

    def media(self, kind: str = "", *, dark: bool = False) -> None:
        """Shows the page as on paper, or to somebody who prefers dark or light."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=kind, features=[scheme])

    def key(self, key: str, *, shift: bool = False) -> None:
        """Presses a key where the focus is."""
        code, text = KEYS.get(key, (ord(key[0].upper()), key))
        about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Types where the focus is."""
        self.send("Input.insertText", text=text)

    def place(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """A point of an element, as fractions of its size, on the screen; scrolls to it."""
        found = json.dumps(selector)
        return tuple(
            self.js(
                f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const b = "
                f"e.getBoundingClientRect(); return [b.x + {x} * b.width, b.y + {y} * b.height]; }})"
                f"(document.querySelector({found}))"
            )
        )

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Clicks an element."""
        self.click_at(*self.place(selector, x, y))

    def click_at(self, x: float, y: float) -> None:
        """Clicks a point of the screen."""
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def move(self, x: float, y: float) -> None:
        """Moves the pointer to a point of the screen."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def settle(self) -> None:
        """Waits until what was asked for is painted."""
        self.js("new Promise(done => requestAnimationFrame(() => setTimeout(done, 30)))")

    def faults(self) -> list[str]:
        """What went wrong, or left the page: exceptions, errors in the log, and requests of other files."""
        found: list[str] = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            method, params = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"])[:300])
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not (
                    url.startswith(("data:", "blob:"))
                    or (url.startswith("file:") and url.partition("#")[0].endswith(".html"))
                ):
                    found.append(url)
            elif method == "Page.javascriptDialogOpening":
                found.append("dialog")
        return found

    def metrics(self) -> dict[str, float]:
        """Chromium's own figures: JSHeapUsedSize in bytes, Nodes, TaskDuration in seconds of the thread."""
        return {one["name"]: one["value"] for one in self.send("Performance.getMetrics")["metrics"]}


def downloaded(browser: Browser, page: Page, selector: str, path: Path) -> bytes:
    """What a click saves, at a path that has the name it saves under."""
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(path.parent))
    page.click(selector)
    for _ in range(600):
        if path.exists():
            return path.read_bytes()
        time.sleep(0.05)
    raise AssertionError(f"{path} was not saved; {page.faults()}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own, which goes with it."""
    assert CHROMIUM is not None
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = f'exec "$0" {FLAGS} --user-data-dir="$1" 3<&{theirs_in} 4>&{theirs_out}'
        process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, profile],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Browser(ours_in, ours_out)
        finally:
            process.terminate()
            process.wait(timeout=30)
            os.close(ours_in)
            os.close(ours_out)
