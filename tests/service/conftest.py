"""A real tracking server that a test can stop, hang and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

START_S = 240


class Server:
    """An MLflow server with a sqlite store and its artifacts in a folder."""

    def __init__(self, folder):
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("w") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=environment
            )
        end = time.monotonic() + START_S
        while not self._answers():
            assert time.monotonic() < end, (self._folder / "server.log").read_text()
            time.sleep(0.2)

    def _answers(self):
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except OSError:
            return False

    def send(self, number):
        os.killpg(self._process.pid, number)

    def kill(self):
        if self._process:
            self.send(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()
