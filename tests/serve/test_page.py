"""The page in a real browser without a network: a photo is sent, its overlay and its mesh appear and turn."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.serve.conftest import encoded
from tests.serve.test_run import running

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.server, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]
DEMO = [sys.executable, "-m", "metro.cli.app", "demo", "--no-browser"]
STATUS = "document.getElementById('status').textContent"
FLAGS = [
    *("--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--mute-audio"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=1200,1100"),
    *("--remote-debugging-port=0", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
]


class Tab:
    """A page of the browser, spoken to in its DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.sent = socket, 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == self.sent:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def value(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition: str) -> None:
        deadline = time.monotonic() + 60
        while not self.value(condition):
            assert time.monotonic() < deadline, (condition, self.value("document.body.innerText"))
            time.sleep(0.05)

    def picture(self, element: str) -> np.ndarray:
        """What an element looks like, (H, W, 3) BGR."""
        box = self.value(f"{element}.getBoundingClientRect().toJSON()")
        box = {side: box[side] for side in ("x", "y", "width", "height")}
        shot = self.call("Page.captureScreenshot", clip={**box, "scale": 1}, captureBeyondViewport=True)
        return cv2.imdecode(np.frombuffer(base64.b64decode(shot["data"]), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            written = tmp_path / "profile" / "DevToolsActivePort"
            deadline = time.monotonic() + 60
            while not written.exists() or not written.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            port = written.read_text().splitlines()[0]
            tabs = httpx2.get(f"http://127.0.0.1:{port}/json/list").json()
            address = next(one["webSocketDebuggerUrl"] for one in tabs if one["type"] == "page")
            with connect(address, max_size=None) as socket:
                yield Tab(socket)
        finally:
            browser.terminate()


def test_a_photo_becomes_an_overlay_and_a_mesh_that_turns(tab: Tab, tmp_path: Path, somebody: np.ndarray) -> None:
    photo = tmp_path / "mine.png"
    photo.write_bytes(encoded(somebody))
    with running(DEMO) as (address, _):
        for domain in ("Page", "Network", "Runtime", "DOM"):
            tab.call(f"{domain}.enable")
        tab.call("Page.navigate", url=f"{address}/")
        tab.until("document.readyState === 'complete' && typeof table !== 'undefined'")
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        file = tab.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        tab.call("DOM.setFileInputFiles", nodeId=file, files=[str(photo)])
        tab.until("document.querySelector('#files a') && document.getElementById('overlay').naturalWidth === 320")
        assert tab.value(STATUS).startswith("1 person in mine.png. Box: found by blazepose")
        names = tab.value("[...document.querySelectorAll('#files a')].map(a => a.download).join(' ')")
        assert names == "mine_overlay.png mine.glb mine.obj mine.json"
        load = "a => fetch(a.href).then(one => one.blob()).then(content => content.size)"
        sizes = tab.value(f"Promise.all([...document.querySelectorAll('#files a')].map({load}))")
        assert min(sizes) > 500

        # The mesh is there, blue on pale grey, and turns by key.
        before = tab.picture("document.getElementById('canvas')")
        blue = (before[..., 0].astype(int) - before[..., 2] > 40).mean()
        assert 0.02 < blue < 0.6
        tab.value("document.getElementById('canvas').focus()")
        for _ in range(5):
            tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight")
        assert (tab.picture("document.getElementById('canvas')") != before).any(2).mean() > 0.01

        # A box drawn on the picture is the person.
        frame = tab.value("(r => [r.x, r.y, r.width])(document.getElementById('overlay').getBoundingClientRect())")
        corners = [(frame[0] + x * frame[2] / 320, frame[1] + y * frame[2] / 320) for x, y in ((60, 20), (150, 220))]
        for kind, (x, y) in zip(("mousePressed", "mouseMoved", "mouseReleased"), (*corners, corners[1]), strict=True):
            tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        tab.until(f"{STATUS}.endsWith('Box: as given.')")
        record = tab.value("fetch(document.querySelector('#files a:last-child').href).then(one => one.json())")
        np.testing.assert_allclose(record["people"][0]["box_xywh"], [60, 20, 90, 200], atol=1.5)

        tab.value("document.querySelector('.examples button').click()")
        tab.until(f"{STATUS}.includes('example-1.jpg')")

        # What is no photo is said in words.
        photo.write_text("words")
        tab.call("DOM.setFileInputFiles", nodeId=file, files=[str(photo)])
        tab.until("document.getElementById('status').classList.contains('wrong')")
        assert "mine.png: not an image in a known format" in tab.value(STATUS)

        requests = [event["params"] for event in tab.events if event["method"] == "Network.requestWillBeSent"]
        asked = [one["request"]["url"] for one in requests]
        assert len(asked) >= 9
        assert all(url.startswith((f"{address}/", "blob:", "data:")) for url in asked)
        told = [event for event in tab.events if event["method"] == "Runtime.exceptionThrown"]
        assert told == []
