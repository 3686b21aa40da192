"""The images, built and run for real: where nothing but the home can be written, as any user."""

import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest
import serving_soak as soak
import yaml
from containers import ROOT, Images, Mount, why_not
from tracking_server import ADMIN, free_port

from xcflow.artifact import read_manifest
from xcflow.config import TrackingConfig
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker
from xcflow_components import IMAGE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

VERSION = version("xcflow")
NAMES = {name: f"localhost/xcflow-{name}:{VERSION}" for name in ("serve", "mlflow")}
NAMES["train"] = f"localhost/{IMAGE}"
# An id that no image knows, as some clusters draw them.
DRAWN = 1_000_770_000
HOME = "/home/xcflow"
TOKEN = "a-token"
CREDENTIALS = """\
[default]
aws_access_key_id = the-key
aws_secret_access_key = the-secret
"""
COMPILERS = {"as", "c++", "cc", "clang", "cpp", "g++", "gcc", "ld", "make", "rustc"}
START_S = 240


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for variable in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_"))]:
        monkeypatch.delenv(variable)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    built = Images(tmp_path_factory.mktemp("images"))
    built.make_base()
    if reason := built.why_nothing_runs():
        pytest.skip(reason)
    built.build("train", "serve", "mlflow")  # the largest first: what follows needs less room
    yield built
    built.remove()


@pytest.fixture
def place(tmp_path):
    """A folder that containers of any user may write to."""
    folder = tmp_path / "place"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def packages(root):
    """What is installed in an image."""
    found = root.glob("opt/venv/lib/python*/site-packages/*.dist-info")
    return {path.name.partition("-")[0].lower().replace("_", "-") for path in found}


@pytest.mark.parametrize("name", NAMES)
def test_an_image_says_what_it_is(images, name):
    config = images.inspect(NAMES[name])
    labels = {key.rpartition(".")[2]: text for key, text in config["Labels"].items()}
    assert labels["title"] == f"xcflow-{name}"
    assert labels["version"] == VERSION
    assert labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["created"])
    assert config["User"] == "10001:0"
    check = config["Healthcheck"]["Test"]
    assert check == ["NONE"] if name == "train" else check[0] == "CMD"


@pytest.mark.parametrize("name", NAMES)
def test_an_image_holds_nothing_of_its_making_and_nothing_writable(images, name):
    with images.mounted(NAMES[name]) as root:
        programs = {path.name for folder in ("bin", "usr/bin", "usr/local/bin", "opt/venv/bin")
                    if (root / folder).is_dir() for path in (root / folder).iterdir()}  # fmt: skip
        assert not programs & COMPILERS
        for left in ("build", "source", "dist", "wheels", "etc/pip.conf", "root/.cache"):
            assert not (root / left).exists(), left
        assert not any((root / "run").glob("secrets/*"))
        assert "pip" not in packages(root)
        loose = [
            path
            for folder, _, files in os.walk(root / "opt")
            for path in (Path(folder, file) for file in (".", *files))
            if not path.is_symlink() and (path.stat().st_mode & 0o022 or path.stat().st_uid)
        ]
        assert loose == []
        home = (root / "home/xcflow").stat()
        assert (home.st_uid, home.st_gid, home.st_mode & 0o777) == (10001, 0, 0o770)
        assert (root / "opt/venv/bin/xcflow").exists() == (name != "mlflow")


def test_images_hold_what_they_need_and_no_more(images):
    with images.mounted(NAMES["serve"]) as root:
        heavy = {"torch", "transformers", "kfp", "mlflow", "flask", "sqlalchemy", "pandas"}
        assert not packages(root) & heavy
    with images.mounted(NAMES["mlflow"]) as root:
        assert packages(root) >= {"mlflow", "psycopg2-binary", "boto3", "flask-wtf"}
        assert not packages(root) & {"torch", "kfp", "xcflow"}
    with images.mounted(NAMES["train"]) as root:
        assert packages(root) >= {"torch", "kfp", "mlflow", "xcflow"}
        assert not [name for name in packages(root) if name.startswith("nvidia")]


class Answering:
    """A server in a container."""

    def __init__(self, container, url=""):
        self.container = container
        self._url = url

    def ask(self, path, body=None):
        """Status and answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, data, {"Authorization": f"Bearer {TOKEN}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def wait_until_ready(self):
        self.wait_until(lambda: "\n" in self.container.said())
        found = re.match(r"serving .* on http://0\.0\.0\.0:(\d+)\n", self.container.said())
        assert found, self.container.said()
        self._url = f"http://127.0.0.1:{found[1]}"
        self.wait_until(self.is_ready)

    def is_ready(self):
        try:
            return self.ask("/v2/health/ready")[0] == 200
        except OSError:
            return False

    def is_well(self):
        try:
            return self.ask("/health")[0] == 200
        except OSError:
            return False

    def wait_until(self, condition):
        end = time.monotonic() + START_S
        while not condition():
            assert self.container.runs(), self.container.said()
            assert time.monotonic() < end, self.container.said()
            time.sleep(0.2)

    def metrics(self):
        return self.ask("/metrics")[1]

    def labels_of(self, text):
        status, body = self.ask("/predict", {"texts": [text], "k": 2})
        assert status == 200, body
        return {label["text"] for label in json.loads(body)["labels"][0]}


@pytest.fixture
def bundle(model, tmp_path):
    """A bundle that every user may read."""
    folder = shutil.copytree(model.bundle, tmp_path / "bundle")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def test_a_server_answers_as_any_user_where_nothing_can_be_written(images, bundle):
    with images.running(
        NAMES["serve"],
        ["--model", "/bundle", "--port", "0"],
        uid=DRAWN,
        mounts=[Mount(HOME), Mount("/bundle", bundle, writable=False)],
        environment={"XCFLOW_SERVE_TOKEN": TOKEN},
    ) as container:
        server = Answering(container)
        server.wait_until_ready()
        assert server.labels_of("amber goat x") == {"amber", "goat"}
        container.send("TERM")
        assert container.wait(60) == 0
        assert "what was accepted is answered" in container.said()


def test_a_server_without_a_token_does_not_start(images):
    with images.running(NAMES["serve"], uid=DRAWN, mounts=[Mount(HOME)]) as container:
        assert container.wait(START_S) != 0
        (line,) = container.said().splitlines()
        assert "XCFLOW_SERVE_TOKEN" in line


def test_a_server_follows_a_tracking_server_by_its_client_alone(images, model, server, tmp_path):
    home, tracking = Home.at(tmp_path / "home"), TrackingConfig(uri=server.uri)
    registry = Registry(Tracker.at(tracking, home), "xcflow", home)
    variables = {"XCFLOW_SERVE_TOKEN": TOKEN, "MLFLOW_TRACKING_URI": server.uri}
    with images.running(
        NAMES["serve"],
        ["--port", "0", "--set", "poll_seconds=0.2"],
        uid=DRAWN,
        mounts=[Mount(HOME)],
        environment=variables,
    ) as container:
        number = soak.registered(registry, model.bundle)
        answering = Answering(container)
        answering.wait_until_ready()
        assert answering.labels_of("amber goat x") == {"amber", "goat"}
        assert json.loads(answering.ask("/model")[1])["version"] == number
        server.kill()
        answering.wait_until(lambda: b"xcflow_registry_errors_total 0" not in answering.metrics())
        assert answering.labels_of("black heron") == {"black", "heron"}


def run_step(images, name, place, inputs, *settings):
    """Run a step in the image; each folder is the catalogue, the pretrained model or an output."""
    arguments = ["step", name, "--output", f"/place/{name}"]
    for key, folder in inputs.items():
        arguments += ["--input", f"{key}=/place/{folder}"]
    for setting in settings:
        arguments += ["--set", setting]
    mounts = [Mount(HOME), Mount("/place", place)]
    with images.running(NAMES["train"], arguments, uid=10001, mounts=mounts) as container:
        assert container.wait(START_S) == 0, container.said()


def test_steps_run_as_another_user_where_nothing_can_be_written(
    images, catalogue, pretrained, place
):
    shutil.copytree(catalogue, place / "catalogue")
    shutil.copytree(pretrained, place / "pretrained")
    for path in place.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    small = ("data.catalogue_word_min_count=1", "encoder.model=/place/pretrained", "run.threads=1")
    short = ("module_one.epochs=1", "module_one.batch_size=20", "encoder.bf16=off")
    run_step(images, "validate_data", place, {"catalogue": "catalogue"}, *small)
    dataset = {"dataset": "validate_data"}
    run_step(images, "cluster_labels", place, dataset, *small)
    run_step(
        images, "train_encoder", place, dataset | {"clusters": "cluster_labels"}, *small, *short
    )
    assert read_manifest(place / "train_encoder", "encoder", verify=True)
    assert (place / "train_encoder").stat().st_uid == 10001


def test_what_a_cluster_starts_in_the_image_is_there(images):
    imports = "import boto3, kfp.dsl.executor_main, mlflow, onnxruntime, xcflow_components"
    with images.running(
        NAMES["train"], ["-c", imports], uid=DRAWN, mounts=[Mount(HOME)], entrypoint=["python3"]
    ) as container:
        assert container.wait(START_S) == 0, container.said()


def test_the_stack_of_one_machine(images, postgres, endpoint, model, tmp_path, monkeypatch):
    stack = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))["services"]
    secrets = {
        "database_password": "any, this one asks for none",
        "s3_credentials": CREDENTIALS,
        "admin_password": ADMIN,
        "session_key": "any text that is long",
    }
    for name, text in secrets.items():
        (tmp_path / name).write_text(text)
    tmp_path.chmod(0o755)
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    # What Compose does by names in its networks is done by addresses here.
    here = {
        "AWS_ENDPOINT_URL": endpoint,
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": str(port),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}",
        "MLFLOW_TRACKING_URI": uri,
        **postgres.variables("mlflow"),
    }
    admin = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": ADMIN}
    server = {"MLFLOW_TRACKING_USERNAME": "serve", "MLFLOW_TRACKING_PASSWORD": "the reader's own"}

    def starts(service, variables=None, command=()):
        described = stack[service]
        image = re.search(r"xcflow-(\w+):", described["image"])[1]
        environment = {**described["environment"], **here, **(variables or {})}
        mounts = [Mount(HOME), Mount("/run/secrets", tmp_path, writable=False)]
        for config in described.get("configs", ()):
            source = ROOT / "docker" / f"{config['source']}.py"
            mounts.append(Mount(config["target"], source, writable=False))
        return images.running(
            NAMES[image],
            [*described.get("command", ()), *command],
            uid=10001,
            mounts=mounts,
            environment=environment,
            entrypoint=described.get("entrypoint"),
        )

    for _ in range(2):  # done again it changes nothing
        with starts("bucket") as once:
            assert once.wait(START_S) == 0, once.said()
    with starts("mlflow") as mlflow:
        tracking = Answering(mlflow, uri)
        tracking.wait_until(tracking.is_well)
        with starts("user", admin | {"XCFLOW_USER_PASSWORD": "the reader's own"}) as once:
            assert once.wait(START_S) == 0, once.said()
        for name, text in admin.items():
            monkeypatch.setenv(name, text)
        home = Home.at(tmp_path / "home")
        registry = Registry(Tracker.at(TrackingConfig(uri=uri), home), "xcflow", home)
        number = soak.registered(registry, model.bundle)
        serving = server | {"XCFLOW_SERVE_TOKEN": TOKEN}
        with starts("serve", serving, ["--port", "0"]) as container:
            answering = Answering(container)
            answering.wait_until_ready()
            assert answering.labels_of("amber goat x") == {"amber", "goat"}
            assert json.loads(answering.ask("/model")[1])["version"] == number
