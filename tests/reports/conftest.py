"""Tracks to draw, the way back from a page's data to numbers, and a headless browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyena_glt.reports import ContigTrack

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "<!--",
    "-->]]>",
    "chr1\u2028alert(1)\u2029",
    "\x00\x07\x1b[31mred\x1b[0m",
    "\udcff\udcfe",
    '=cmd|" /C calc"!A0',
    "x" * 5000,
    "\u202ednuor rehto eht\u202c",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;script&gt;&#60;b&#62;",
    "../../etc/passwd",
    "(A:1,B:2);\t\r\n\\u003cscript\\u003e\\",
)


@pytest.fixture(scope="session")
def hostile() -> tuple[str, ...]:
    return HOSTILE


@pytest.fixture(scope="session")
def make_track():
    """`make_track(length, seed=0, name="chr1", ...)` gives random patches, scores, entropies."""

    def make(length: int, seed: int = 0, mean: float = 16.0, **fields: Any) -> ContigTrack:
        random = np.random.default_rng(seed)
        starts = random.random(length) < 1 / mean
        starts[:1] = True
        edges = np.append(np.flatnonzero(starts), length)
        lengths = np.diff(edges)
        made = {
            "name": "chr1",
            "patch_scores": random.gamma(9, 0.15, lengths.size).astype(np.float32),
            "entropies": (1.386 - random.gamma(2, 0.03, length)).astype(np.float32),
        }
        return ContigTrack(length=length, patch_lengths=lengths.astype(np.int64), **{**made, **fields})

    return make


class Decoder:
    """The page's numbers, decoded step by step and without the package."""

    @staticmethod
    def data(html: str) -> dict[str, Any]:
        found = re.findall(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
        assert len(found) == 1
        return json.loads(found[0])

    @staticmethod
    def varints(text: str) -> list[int]:
        values, value, shift = [], 0, 0
        for byte in base64.b64decode(text):
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                values.append(value)
                value, shift = 0, 0
        return values

    @staticmethod
    def numbers(payload: dict[str, Any], bits: int) -> np.ndarray:
        codes = np.frombuffer(base64.b64decode(payload["codes"]), f"<u{bits // 8}").astype(np.float64)
        top = 2**bits - 1
        values = payload["low"] + codes * (payload["high"] - payload["low"]) / (top - 1)
        return np.where(codes == top, np.nan, values)

    @staticmethod
    def half_step(payload: dict[str, Any], bits: int) -> float:
        return 0.5 * (payload["high"] - payload["low"]) / (2**bits - 2) + 1e-9


@pytest.fixture(scope="session")
def decode() -> Decoder:
    return Decoder()


def chromium() -> str:
    """Path of a Chromium, or skip."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    pytest.skip("no Chromium found: install chromium, or put google-chrome on the PATH")


class Browser:
    """One page of a headless Chromium, driven over the DevTools pipe (JSON messages that end in NUL)."""

    def __init__(self, folder: Path) -> None:
        command = [chromium(), *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
        for_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        redirect = f'exec "$@" 3<&{for_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", redirect, "browser", *command],
            pass_fds=(for_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(for_browser)
        os.close(from_browser)
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        self.rest, self.sent = b"", 0
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def receive(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has gone"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def run(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a page afresh and wait until its script says that it is ready."""
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri() + fragment)
        for _ in range(200):
            if self.run("document.documentElement?.dataset.ready") == "true":
                return self.settle()
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.run('document.getElementById(`failure`)?.textContent')}")

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector: str) -> list[str]:
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText)")

    def box(self, selector: str) -> dict[str, float]:
        """Place of an element in the window, scrolled into view first."""
        return self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); return e.getBoundingClientRect().toJSON(); })()"
        )

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
        self.settle()

    def press(self, x: float, y: float, clicks: int = 1) -> None:
        for count in range(1, clicks + 1):
            self.mouse("mousePressed", x, y, button="left", clickCount=count)
            self.mouse("mouseReleased", x, y, button="left", clickCount=count)

    def drag(self, x: float, y: float, to_x: float) -> None:
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        for step in (0.5, 1.0):
            self.mouse("mouseMoved", x + step * (to_x - x), y, button="left", buttons=1)
        self.mouse("mouseReleased", to_x, y, button="left", clickCount=1)

    def key(self, key: str, modifiers: int = 0) -> None:
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=modifiers, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, modifiers=modifiers)
        self.settle()

    def window(self, width: int, height: int, scheme: str = "light") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def complaints(self) -> list[Any]:
        """Console messages, exceptions, dialogs and log entries since the page was opened."""
        self.run("1")
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        kinds += ("Page.javascriptDialogOpening",)
        return [event["params"] for event in self.events if event.get("method") in kinds]

    def requests(self) -> list[str]:
        """Addresses asked for since the page was opened."""
        self.run("1")
        asked = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in asked]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self._write)
        os.close(self._read)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture
def chromium_command(tmp_path: Path) -> list[str]:
    """Chromium and its flags, with a profile of its own."""
    return [chromium(), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
