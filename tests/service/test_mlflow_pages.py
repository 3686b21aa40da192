"""MLflow's own page in a real browser: what the experiment's view shows of the runs."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from xcflow.config import TrackingConfig
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.tracking import Tracker

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Two runs of different K in a store."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    home = Home.at(tmp_path / "home")
    tracker = Tracker.at(TrackingConfig(), home)
    for clusters, precision in ((0, 0.3125), (64, 0.4375)):
        params = {"clustering": {"clusters": clusters}, "run": {"seed": 1}}
        name = f"colours-quick-K{clusters}-s1"
        run = tracker.open_run(name, name, params, {names.VERDICT: "HOLD", names.METHOD: "DEXA"})
        tracker.log_figures(run, {"test/fused/P_at_1": precision})
        tracker.end(run, names.FINISHED)
    return home


@pytest.fixture
def page(home, tmp_path):
    """The address that `xcflow mlflow` names, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = "from xcflow_pipelines.cli import main; main()"
    command = [sys.executable, "-c", script, "mlflow", "--home", str(home.root)]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        try:
            address = re.search(r"http://\S+", server.stdout.readline())[0]
            wait_for(f"http://127.0.0.1:{port}/health")
            yield address
        finally:
            server.send_signal(2)
            server.communicate()


def wait_for(address):
    deadline = time.monotonic() + 300
    while True:
        try:
            with urlopen(address, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def shown(address, profile):
    """The page's document, after its scripts ran."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--window-size=2600,1200", "--virtual-time-budget=30000"]
    done = subprocess.run(
        [*command, f"--user-data-dir={profile}", address],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return re.sub(r"<[^>]+>", " ", done.stdout)


def test_runs_stand_side_by_side_with_what_differs(page, tmp_path):
    text = shown(page, tmp_path / "table")
    assert "Error loading shared view state" not in text
    for expected in (
        "colours-quick-K0-s1",
        "colours-quick-K64-s1",
        "test/fused/P_at_1",
        "clustering.clusters",
        "verdict",
        "0.3125",
        "0.4375",
    ):
        assert expected in text, expected
