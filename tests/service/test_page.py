"""The page of a server in a real browser, driven through the DevTools protocol."""

import base64
import itertools
import json
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
import pytest
import uvicorn
import websocket
from PIL import Image, ImageStat

from xcflow.artifact import read_manifest
from xcflow.serving.bundle import KIND
from xcflow.serving.http.app import create_app
from xcflow.serving.http.metrics import Metrics
from xcflow.serving.http.models import Models, Wanted
from xcflow.serving.http.settings import ServerSettings

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = {f"l{i}": name for i, name in enumerate(["amber", "black", "coral", "denim", "ebony"])}
NAMES |= {"'\"><script>alert(2)</script>": HOSTILE}
TOKEN = "sésame"  # beyond ASCII, as a token may be
PATIENCE_S = 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium"),
]


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


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, write_catalogue, configure, train_model):
    """The bundles of two models of colours, of which one label's name and id are hostile."""
    rng = np.random.default_rng(4)

    def document(name):
        own = [list(NAMES)[i] for i in sorted(rng.choice(len(NAMES), 2, replace=False))]
        text = " ".join([NAMES[label] for label in own] + rng.choice(list("wxyz"), 2).tolist())
        return {"id": name, "text": text, "labels": own}

    catalogue = write_catalogue(
        tmp_path_factory.mktemp("catalogue") / "colours",
        [{"id": label, "text": name} for label, name in NAMES.items()],
        [document(f"d{i}") for i in range(60)],
        [{**document("t0"), "text": f"coral {HOSTILE}"}, *(document(f"t{i}") for i in range(1, 6))],
    )
    rates = {"champion": 0.05, "previous": 0.001}
    return {
        alias: train_model(
            catalogue, configure(module_one={"epochs": 6, "learning_rate": rate})
        ).bundle
        for alias, rate in rates.items()
    }


class Bundles:
    """A source of models: the folder of each alias."""

    def __init__(self, folders):
        self._folders = folders

    def wanted(self, alias):
        version = {"champion": "2", "previous": "1"}[alias]
        return Wanted(read_manifest(self._folders[alias], KIND).digest, version)

    def fetch(self, wanted):
        return self._folders[{"2": "champion", "1": "previous"}[wanted.version]]

    def forget(self, but):
        """Nothing was fetched."""


@contextmanager
def serving(bundles, settings, before="previous"):
    """A server in a thread; yields its address."""
    metrics = Metrics()
    models = Models(Bundles(bundles), settings.model_name, "champion", before, metrics)
    assert models.follow(), models.trouble
    app = create_app(models, settings, metrics, local=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started, PATIENCE_S)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(bundles):
    with serving(bundles, ServerSettings(most_characters=100)) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser):
    """The browser, in which nothing may go wrong during the test."""
    browser.screen()
    browser.events.clear()
    yield browser
    browser.call("Runtime.evaluate", expression="0")  # takes in what came up to here
    assert [e for e in browser.events if is_trouble(e["method"], e["params"])] == []


def is_trouble(method, params):
    """Whether something failed, was forbidden by the policy, or was run by a text."""
    if method == "Log.entryAdded":  # a refused request is told too: the page deals with those
        return params["entry"]["level"] == "error" and params["entry"]["source"] != "network"
    if method == "Runtime.consoleAPICalled":
        return params["type"] in ("error", "warning", "assert")
    return method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening")


def predict(address, text, **wishes):
    body = json.dumps({"texts": [text], **wishes}).encode()
    request = Request(f"{address}predict", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)["labels"][0]


def shown(page, column="champion"):
    """Names and percentages of the labels."""
    return page.js(
        f"[...document.querySelectorAll('#{column} .label')].map((label) => ["
        "label.querySelector('bdi').textContent, label.querySelector('.number').textContent])"
    )


def expected(labels):
    return [[label["text"], f"{100 * label['probability']:.1f} %"] for label in labels]


def ask(page, address, text, **kept):
    kept = {"text": text, **kept}
    page.open(f"{address}#{urlencode(kept)}")
    page.until("document.querySelector('#champion .note').textContent.endsWith(' ms')")


FOCUSED = "document.activeElement.textContent"


def test_labels_appear_while_one_types(page, address):
    page.open(address)
    assert page.js("document.querySelector('#champion .note').textContent").startswith("None yet")
    page.click("document.getElementById('text')")
    page.type("amber denim")
    labels = predict(address, "amber denim")
    assert {label["text"] for label in labels[:2]} == {"amber", "denim"}
    until(lambda: shown(page) == expected(labels), PATIENCE_S)
    page.until(r"/^6 labels, \d+ ms$/.test(document.querySelector('#champion .note').textContent)")
    assert page.js("document.querySelector('#champion .note').getAttribute('role')") == "status"
    sent = [e["params"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    requests = [params["request"] for params in sent]
    asked = [request for request in requests if request["url"].endswith("/predict")]
    assert 1 <= len(asked) < len("amber denim")
    assert not any('"explain"' in request["postData"] for request in asked)
    facts = page.js("document.getElementById('facts').innerText")
    with urlopen(f"{address}model", timeout=30) as answer:
        model = json.load(answer)
    for fact in ("2", model["digest"][:12], model["catalogue_digest"][:12]):
        assert fact in facts


def test_rows_stay_while_one_types_on(page, address):
    ask(page, address, "amber denim")
    page.js("window.kept = [...document.querySelectorAll('#champion li')]; 0")
    page.js("document.getElementById('text').focus(); document.getElementById('text').select()")
    page.type("coral black")
    until(lambda: shown(page) == expected(predict(address, "coral black")), PATIENCE_S)
    assert page.js("kept.every((item) => item.isConnected)")


def test_a_late_answer_is_not_shown(page, address):
    page.open(address)
    page.js(
        "window.real = window.fetch; window.fetch = async (path, options) => {"
        "  const isFirst = options.body?.includes('[\"amber\"]');"
        "  if (isFirst) await new Promise((go) => setTimeout(go, 900));"
        "  return real(path, options); }; 0"
    )
    page.click("document.getElementById('text')")
    page.type("amber")
    time.sleep(0.4)  # the question is on its way
    page.type(" denim")
    labels = expected(predict(address, "amber denim"))
    until(lambda: shown(page) == labels, PATIENCE_S)
    time.sleep(1)
    assert shown(page) == labels


def test_a_click_tells_why_and_another_hides_it(page, address):
    ask(page, address, "amber denim")
    page.click("document.querySelector('.label')")
    page.until("document.querySelector('.why .voices')")
    text = page.js("document.querySelector('.why').innerText")
    [label] = predict(address, "amber denim", k=1, explain=True)
    for part in ("Encoder", "Classifier", "Neighbours", "Words", "training document"):
        assert part in text
    for part in (*label["why"]["evidence"], *label["why"]["siblings"]):
        assert part["text"] in text
    for voice in label["why"]["voices"].values():
        assert f"{voice['contribution']:+.2f}".replace("-", "\N{MINUS SIGN}") in text
    assert page.js("document.querySelector('.label').getAttribute('aria-expanded')") == "true"
    page.click("document.querySelector('.label')")
    assert page.js("document.querySelector('.why').hidden")


def test_keys_do_all_that_a_mouse_does(page, address):
    ask(page, address, "amber denim", compare="1")
    page.until("document.querySelector('#previous .label')")
    page.js("document.getElementById('text').focus()")
    names = [name for name, _ in shown(page)]
    page.press("ArrowDown", "ArrowDown")
    if page.js("document.activeElement.id") == "text":  # the first took the caret to the end
        page.press("ArrowDown")
    page.press("ArrowUp", "ArrowDown")
    assert page.js(FOCUSED).startswith(names[1])
    page.press("Enter")
    page.until("document.querySelector('#champion li:nth-child(2) .voices')")
    page.press("ArrowRight")
    assert page.js(FOCUSED).startswith(shown(page, "previous")[1][0])
    page.press("ArrowLeft", "Escape")
    assert page.js("document.querySelector('#champion li:nth-child(2) .why').hidden")
    assert page.js(FOCUSED).startswith(names[1])
    page.press("Escape")
    assert page.js("document.activeElement.id") == "text"


def test_examples_are_asked_and_the_address_keeps_the_question(page, address):
    page.open(address)
    page.until("document.querySelector('#example-list button')")
    text = page.js("document.querySelector('#example-list button').textContent")
    page.click("document.querySelector('#example-list button')")
    page.until("document.querySelector('#champion .label')")
    assert page.js("document.getElementById('text').value") == text
    assert shown(page) == expected(predict(address, text))
    kept = page.js("location.hash")
    page.open(address + kept.replace("k=10", "k=5"))
    page.until("document.querySelectorAll('#champion .label').length === 5")
    assert page.js("document.getElementById('text').value") == text
    assert page.js("document.getElementById('k').value") == "5"


def test_the_previous_model_answers_beside_the_champion(page, address):
    ask(page, address, "amber denim", k="5")
    assert page.js("document.getElementById('previous').hidden")
    page.until("!document.getElementById('compare-label').hidden")
    page.click("document.getElementById('compare')")
    page.until("!document.getElementById('shared').hidden")
    ours = predict(address, "amber denim", k=5)
    theirs = predict(address, "amber denim", k=5, model="previous")
    assert ours != theirs
    assert (shown(page), shown(page, "previous")) == (expected(ours), expected(theirs))
    ids = [label["id"] for label in theirs]
    marks = page.js("[...document.querySelectorAll('#champion .mark')].map((m) => m.textContent)")
    assert marks == [
        f"also no. {ids.index(label['id']) + 1}" if label["id"] in ids else "only here"
        for label in ours
    ]
    heads = page.js("[...document.querySelectorAll('#columns h2')].map((h) => h.textContent)")
    assert heads == ["Champion, version 2", "Previous, version 1"]
    assert "compare=1" in page.js("location.hash")


def test_an_address_that_compares_is_answered_where_nothing_is_to_be_compared(page, bundles):
    with serving(bundles, ServerSettings(), before="") as address:
        page.open(f"{address}#text=amber&compare=1")
        page.until("document.getElementById('previous').hidden")
        page.until("document.querySelectorAll('#champion .label').length === 6")
        assert page.js("document.getElementById('compare-label').hidden")
        assert page.js("document.querySelector('#champion h2').textContent") == "Labels"
        assert "compare" not in page.js("location.hash")


def test_hostile_texts_are_shown_as_texts(page, address):
    ask(page, address, HOSTILE, compare="1")
    assert HOSTILE in [name for name, _ in shown(page)]
    page.until("document.querySelector('#previous .label')")
    page.js("document.querySelectorAll('.label').forEach((label) => label.click())")
    page.until("document.querySelectorAll('.voices').length === 12")
    page.until("document.querySelector('#example-list button')")
    assert HOSTILE in page.js("document.getElementById('example-list').textContent")
    assert page.js("document.getElementById('text').value") == HOSTILE
    assert page.js("document.querySelectorAll('img, section script, section style').length") == 0


def test_the_policy_stops_what_is_not_the_pages_own(browser, address):
    browser.open(address)
    browser.events.clear()
    browser.js("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')")
    until(lambda: browser.js("0") == 0 and any_blocked(browser.events), PATIENCE_S)
    assert not any(e["method"] == "Page.javascriptDialogOpening" for e in browser.events)


def any_blocked(events):
    entries = [e["params"]["entry"] for e in events if e["method"] == "Log.entryAdded"]
    return any("Content Security Policy" in entry["text"] for entry in entries)


def test_a_token_is_asked_for_and_borne(page, bundles):
    with serving(bundles, ServerSettings(token=TOKEN)) as address:
        page.open(f"{address}#text=amber")
        page.until("document.getElementById('token-dialog').open")
        page.press("Escape")
        page.click("document.getElementById('token-again')")
        page.type("wrong")
        page.press("Enter")
        page.until("document.getElementById('token-note').textContent.includes('not accepted')")
        page.until("document.getElementById('token-dialog').open")
        page.type(TOKEN)
        page.press("Enter")
        page.until("document.querySelectorAll('#champion .label').length === 6")
        page.until("document.querySelector('#facts dd')")
        assert page.js("document.getElementById('token-again').hidden")
        page.js("location.hash = 'api'")
        page.until("document.querySelector('.route')")
        assert "Authorization: Bearer $" in page.js("document.querySelector('pre').textContent")
        page.call("Page.reload")
        page.until("document.querySelector('.route')")
        assert not page.js("document.getElementById('token-dialog').open")


def test_errors_are_told_and_passing_ones_asked_again(page, address):
    note = "document.querySelector('#champion .note').textContent"
    page.open(f"{address}#text={'x' * 101}")
    page.until(f"{note}.includes('a text may hold 100 characters')")
    ask(page, address, "amber")
    page.js(
        "window.real = window.fetch; window.fetch = async () => new Response("
        "'{\"error\": \"many wait already\"}', {status: 429, headers: {'Retry-After': '1'}}); 0"
    )
    page.click("document.getElementById('text')")
    page.type(" denim")
    page.until(f"{note} === 'many wait already; asking again in 1 s'")
    page.js("window.fetch = window.real; 0")
    page.until(f"{note}.endsWith(' ms')")
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.emulateNetworkConditions", offline=True, **offline)
    page.type(" coral")
    page.until(f"{note}.startsWith('The server does not answer')")
    page.call("Network.emulateNetworkConditions", offline=False, **offline)
    until(lambda: shown(page) == expected(predict(address, "amber denim coral")), PATIENCE_S)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_api_is_shown_with_examples_that_work(page, address):
    page.open(f"{address}#api")
    page.until("document.querySelector('.route')")
    text = page.js("document.getElementById('routes').textContent")
    with urlopen(f"{address}openapi.json", timeout=30) as answer:
        paths = json.load(answer)["paths"]
    assert all(path in text for path in paths)
    for part in ("min_probability", "number from 0 to 1", "filters.only", "list of strings"):
        assert part in text
    commands = page.js("[...document.querySelectorAll('pre')].map((e) => e.textContent)")
    assert len(commands) == sum(len(methods) for methods in paths.values())
    for command in commands:
        quiet = f"{command} -s -o /dev/null -w '%{{http_code}}'"
        done = subprocess.run(["sh", "-c", quiet], capture_output=True, text=True, check=True)
        assert done.stdout == "200", command


@pytest.mark.parametrize("view", ["", "#api", "#text=amber+denim&compare=1"])
def test_a_phone_need_not_scroll_sideways(page, address, view):
    page.screen(360, 740)
    page.open(address + view)
    page.until("document.querySelector('#facts dd')")
    if view:
        page.until("document.querySelector('#previous .label, .route')")
        page.js(
            "document.querySelectorAll('.label').forEach((label) => label.click());"
            "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
        )
        page.until("document.querySelector('.voices, .route')")
    assert page.js("document.scrollingElement.scrollWidth") <= 360


# The least contrast between a text and what lies behind it.
CONTRAST = """(() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => rgb(color).slice(0, 3).map((x) => x / 255)
    .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    const color = getComputedStyle(e).backgroundColor;
    return rgb(color)[3] === 0 ? behind(e.parentElement) : color;
  };
  const ratios = [...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3))
    .map((e) => [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a))
    .map(([high, low]) => (high + 0.05) / (low + 0.05));
  return Math.min(...ratios);
})()"""


@pytest.mark.parametrize(("scheme", "least", "most"), [("light", 230, 255), ("dark", 10, 60)])
def test_light_and_dark_can_be_read(page, address, tmp_path, scheme, least, most):
    page.screen(scheme=scheme)
    ask(page, address, "amber denim", k="5", compare="1")
    page.until("!document.getElementById('shared').hidden")
    page.click("document.querySelector('.label')")
    page.until("document.querySelector('.voices')")
    page.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert least < ImageStat.Stat(picture.convert("L")).median[0] <= most
    assert page.js(CONTRAST) >= 4.5
    page.js("location.hash = 'api'")
    page.until("document.querySelector('.route')")
    assert page.js(CONTRAST) >= 4.5


@pytest.mark.parametrize("view", ["", "#api", "#text=amber+denim&compare=1"])
def test_a_screen_reader_finds_a_name_for_every_control(page, address, view):
    page.open(address + view)
    page.until(
        "document.querySelector('#example-list button') && "
        "document.querySelector('#previous .label, .route') || !location.hash"
    )
    page.until("document.querySelector('#example-list button')")
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"] and is_focusable(node)
    ]
    assert len(controls) > 5
    assert [role for role, name in controls if not name.strip()] == []
    if "compare" in view:
        assert ("switch", "Compare with the previous model") in controls
        assert ("textbox", "Text") in controls


def is_focusable(node):
    found = {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
    return found.get("focusable") and node["role"]["value"] != "RootWebArea"
