"""Two models of the same labels, and servers that answer with them."""

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import uvicorn

from xcflow.artifact import read_manifest
from xcflow.errors import TrackingError
from xcflow.serving.http.app import create_app
from xcflow.serving.http.connections import BoundedConnection
from xcflow.serving.http.metrics import Metrics
from xcflow.serving.http.models import Models, Wanted
from xcflow.serving.http.settings import ServerSettings
from xcflow.serving.predictor import Predictor


@pytest.fixture(scope="session")
def bundle(model):
    return model.bundle


@pytest.fixture(scope="session")
def other_bundle(catalogue, configure, train_model):
    """A model of the same labels that knows them worse."""
    return train_model(catalogue, configure(run={"seed": 7})).bundle


@pytest.fixture(scope="session")
def predictor(bundle):
    return Predictor.load(bundle)


class Shelf:
    """A registry of folders; what it is asked for while it is away is an error."""

    def __init__(self):
        self.aliases: dict[str, Wanted] = {}
        self.folders: dict[str, Any] = {}
        self.away = False
        self.fetched = 0
        self.kept: set[str] = set()

    def put(self, alias, folder, version):
        digest = read_manifest(folder).digest
        self.folders[digest] = folder
        self.aliases[alias] = Wanted(digest, version)

    def wanted(self, alias):
        if self.away:
            raise TrackingError("the registry is away")
        return self.aliases.get(alias)

    def fetch(self, wanted):
        self.fetched += 1
        folder = self.folders[wanted.digest]
        if isinstance(folder, Exception):
            raise folder
        return folder

    def forget(self, but):
        self.kept = set(but)


@pytest.fixture
def shelf(bundle):
    shelf = Shelf()
    shelf.put("champion", bundle, "1")
    return shelf


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def models(shelf, metrics):
    return Models(shelf, "xcflow", "champion", "previous", metrics)


def value(metrics, line):
    """A number by the beginning of its line."""
    found = [x for x in metrics.text().decode().splitlines() if x.startswith(line + " ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


@pytest.fixture(name="value")
def value_fixture(metrics):
    return lambda line: value(metrics, line)


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Server:
    """A running server, and how to ask it."""

    port: int
    models: Models
    metrics: Metrics
    uvicorn: uvicorn.Server

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method, path, body=None, headers=None):
        connection = self.connect()
        try:
            sent = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method, path, sent, headers or {})
            response = connection.getresponse()
            found = {name.lower(): text for name, text in response.getheaders()}
            return Answered(response.status, found, response.read())
        finally:
            connection.close()

    def predict(self, **body):
        return self.ask("POST", "/predict", body)

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def value(self, line):
        return value(self.metrics, line)

    def wait(self, condition, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.models.trouble
            time.sleep(0.01)


@contextmanager
def servers(shelf):
    """Starts servers in threads, with settings by their names."""
    running = []

    def begin(source=shelf, local=True, ready=True, **settings):
        settings = ServerSettings(**({"poll_seconds": 0.05, "passes": 1} | settings))
        metrics = Metrics()
        models = Models(source, settings.model_name, "champion", "previous", metrics)
        config = uvicorn.Config(
            create_app(models, settings, metrics, local=local),
            http=BoundedConnection,
            ws="none",
            log_level="warning",
            access_log=False,
            limit_concurrency=settings.most_connections,
        )
        uvicorn_server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=uvicorn_server.run, args=([listening],), daemon=True)
        thread.start()
        server = Server(listening.getsockname()[1], models, metrics, uvicorn_server)
        running.append((uvicorn_server, thread))
        server.wait(lambda: uvicorn_server.started)
        if ready:
            server.wait(lambda: models.current)
        return server

    yield begin
    for uvicorn_server, thread in running:
        uvicorn_server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def start(shelf):
    with servers(shelf) as begin:
        yield begin


@pytest.fixture(scope="module")
def shared(bundle):
    """A server for tests that leave it as it was."""
    shelf = Shelf()
    shelf.put("champion", bundle, "1")
    with servers(shelf) as begin:
        yield begin()
