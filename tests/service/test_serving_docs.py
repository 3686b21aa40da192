"""The examples of docs/serving.md, run against a live server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import serving_soak as soak

from xcflow.serving.http.metrics import Metrics
from xcflow.serving.http.settings import ServerSettings

pytestmark = [pytest.mark.slow]

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
SHELL = {"sh": ["bash", "-e", "-c"], "python": [sys.executable, "-c"]}


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with soak.running(folder, folder / "log", "--model", str(model.bundle)) as server:
        yield server


@pytest.mark.parametrize(("kind", "code"), EXAMPLES)
def test_an_example_works(server, kind, code):
    assert "localhost:8080" in code
    code = code.replace("localhost:8080", f"localhost:{server.port}")
    code = code.replace("curl ", "curl -sS --fail-with-body ")
    done = subprocess.run([*SHELL[kind], code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'"labels"|"outputs"|version|\[2, 3\]', done.stdout)


def test_each_setting_stands_there_with_its_default():
    told = dict(re.findall(r"^\| `(\w+)` \| ([\w.]+) \|", PAGE, re.MULTILINE))
    settings = {k: v for k, v in ServerSettings().__dict__.items() if k != "token"}
    assert told.keys() == settings.keys()
    for name, value in settings.items():
        shown = (
            str(value).lower()
            if isinstance(value, bool)
            else f"{value:g}"
            if isinstance(value, float)
            else str(value)
        )
        assert told[name] == shown, name


def test_each_metric_stands_there():
    told = set(re.findall(r"^\| `(xcflow_\w+)", PAGE, re.MULTILINE))
    lines = Metrics().text().decode().splitlines()
    there = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert told == {name for name in there if not name.endswith("_created")}
