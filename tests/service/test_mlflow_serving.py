"""MLflow's own server of a registered model: the same answers."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from xcflow.registry.pyfunc import save_pyfunc
from xcflow.serving.answers import best_labels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TEXTS = ["amber goat x", "black heron", "", "zebra"]


@pytest.fixture
def address(model, tmp_path):
    save_pyfunc(model.bundle, tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(tmp_path / "model")]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env=environment(tmp_path)
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, 9)
        server.wait()


def environment(folder):
    known = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls uvicorn
    return known | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PATH": programs}


def wait_for(address, server, log):
    deadline = time.monotonic() + 200
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)


def test_answers_are_the_predictors(address, model):
    body = {"dataframe_split": {"columns": ["text"], "data": [[t] for t in TEXTS]}}
    asked = json.dumps(body | {"params": {"k": 3}}).encode()
    request = urllib.request.Request(address, asked, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        rows = json.load(response)["predictions"]
    predictor = model.predictor()
    # One by one, as a server is asked; and equal, not nearly so.
    for text, row in zip(TEXTS, rows, strict=True):
        (labels,) = best_labels(predictor, [text], 3)
        assert row["labels"] == [label["id"] for label in labels]
        assert row["scores"] == [label["score"] for label in labels]
        assert row["probabilities"] == [label["probability"] for label in labels]
