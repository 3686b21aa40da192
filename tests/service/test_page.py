"""The page of a server in a real browser, driven through the DevTools protocol."""

import base64
import importlib.util
import itertools
import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import uvicorn
import websocket

from xcflow.artifact import read_manifest
from xcflow.serving.bundle import KIND
from xcflow.serving.http.app import create_app
from xcflow.serving.http.metrics import Metrics
from xcflow.serving.http.models import Models, Wanted
from xcflow.serving.http.settings import ServerSettings

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
UNIT = Path(__file__).parents[1] / "unit"
HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = ["amber", "black", "coral", "denim", "ebony", HOSTILE]
PATIENCE_S = 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium"),
]


def helpers(path):
    """What another folder's tests make their models with."""
    spec = importlib.util.spec_from_file_location(path.parent.name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Browser:
    """A headless Chromium with one tab."""

    def __init__(self, profile):
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port_file = profile / "DevToolsActivePort"
        until(lambda: port_file.exists() and port_file.read_text().count("\n"), 60)
        port = port_file.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
        self._socket = websocket.create_connection(
            tabs[0]["webSocketDebuggerUrl"], timeout=60, suppress_origin=True
        )
        self._numbers = itertools.count(1)
        self.events = []
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def close(self):
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def call(self, method, **params):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def js(self, expression):
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression):
        until(lambda: self.js(f"Boolean({expression})"), PATIENCE_S, expression)

    def open(self, address):
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && Boolean(document.querySelector('h1'))")

    def screen(self, width=1100, height=900, scheme="light"):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def type(self, text):
        for letter in text:
            self.call("Input.insertText", text=letter)

    def press(self, *keys):
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowUp": 38, "ArrowDown": 40}
        codes |= {"ArrowLeft": 37, "ArrowRight": 39}
        for key in keys:
            text = {"text": "\r"} if key == "Enter" else {}
            press = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
            self.call("Input.dispatchKeyEvent", type="keyDown", **press, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **press)

    def click(self, element):
        """Click in the middle of what an expression gives."""
        self.js(f"({element}).scrollIntoView({{block: 'center'}})")
        box = self.js(f"(({element}).getBoundingClientRect()).toJSON()")
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        mouse = {**place, "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **mouse)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **mouse)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


def until(asked, seconds, what=""):
    end = time.monotonic() + seconds
    while not (found := asked()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found
