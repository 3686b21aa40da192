"""What a server asks a registry, and what it makes of whatever comes back."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading

import pytest
import requests

from xcflow.config import TrackingConfig
from xcflow.errors import ArtifactError, TrackingError
from xcflow.registry.following import RegisteredModels
from xcflow.registry.trouble import is_away

CONFIG = TrackingConfig(experiment="tests", model_name="model")


@pytest.fixture
def promoted(registry, make_bundle, judged):
    folder, digest = make_bundle("a")
    registry.promote(folder, judged(digest), run=None)
    return digest


def test_a_sqlite_store_is_read(home, promoted):
    models = RegisteredModels(home, CONFIG)
    assert models.version("champion") == models.version("1") == ("1", promoted)
    assert models.version("previous") is None
    assert models.version("7") is None
    assert models.fetch(promoted) == home.models / promoted
    relative = TrackingConfig(uri="sqlite:///no/such.db", model_name="model")
    with pytest.raises(TrackingError, match="there is no tracking store at"):
        RegisteredModels(home, relative).version("champion")
    home.database.unlink()
    with pytest.raises(TrackingError, match="there is no tracking store at"):
        models.version("champion")


def test_a_bundle_is_fetched_by_a_process_that_tells_faults_from_troubles(home, promoted):
    models = RegisteredModels(home, CONFIG)
    shutil.rmtree(home.models)
    assert (models.fetch(promoted) / "weights.txt").read_text() == "a"
    shutil.rmtree(home.models)
    with pytest.raises(TrackingError, match="no registered model holds the bundle 000000"):
        models.fetch("0" * 64)
    (stored,) = (x for x in home.artifacts.rglob("weights.txt"))
    stored.write_text("b")
    with pytest.raises(ArtifactError, match="altered"):
        models.fetch(promoted)


def test_only_what_servers_fetched_is_removed_again(registry, make_bundle, judged, home, promoted):
    folder, other = make_bundle("b")
    registry.promote(folder, judged(other, promoted), run=None)
    models = RegisteredModels(home, CONFIG)
    shutil.rmtree(home.models / promoted)
    models.fetch(promoted)
    models.fetch(other)  # is there by the promotion
    models.forget({promoted})
    assert {path.name for path in home.models.glob("[!.]*")} == {promoted, other}
    models.forget({other})
    assert [path.name for path in home.models.iterdir()] == [other]
    assert (models.fetch(promoted) / "weights.txt").read_text() == "a"


def test_fetching_leaves_nothing_but_the_bundle(home, promoted, monkeypatch, tmp_path):
    shutil.rmtree(home.models)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    RegisteredModels(home, CONFIG).fetch(promoted)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert {path.name for path in home.models.glob("*")} == {promoted, f".{promoted}.fetched"}


@pytest.fixture
def answering():
    """A server that gives every request the same bytes; returns its address and what came."""
    listening, came = socket.create_server(("127.0.0.1", 0)), []

    def start(content):
        def run():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    came.append(connection.recv(65536).decode())
                    connection.sendall(content)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/", came

    yield start
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def response(body, status="200 OK"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(content)) + content


def version(tags):
    pairs = [{"key": key, "value": value} for key, value in tags.items()]
    return {"model_version": {"version": "3", "tags": pairs}}


def test_a_tracking_server_is_asked(home, answering, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    uri, came = answering(response(version({"bundle_digest": "abc"})))
    models = RegisteredModels(home, TrackingConfig(uri=uri, model_name="a model"))
    assert models.version("champion") == models.version("3") == ("3", "abc")
    assert "/mlflow/registered-models/alias?name=a+model&alias=champion " in came[0]
    assert "/mlflow/model-versions/get?name=a+model&version=3 " in came[1]
    assert re.search("authorization: bearer secret", came[0], re.IGNORECASE)


@pytest.mark.parametrize("status", ["404 Not Found", "400 Bad Request"])
def test_an_alias_that_is_not_there(home, answering, status):
    uri, _ = answering(response({"error_code": "RESOURCE_DOES_NOT_EXIST"}, status))
    assert RegisteredModels(home, TrackingConfig(uri=uri)).version("champion") is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (response({}, "500 Internal Server Error"), "500"),
        (response({}, "401 Unauthorized"), "asks for a user: set MLFLOW_TRACKING_USERNAME"),
        (response({}, "403 Forbidden"), "no right to this .mlflow/registered-models/alias"),
        (response(b"<html>"), "not as MLflow does"),
        (response([]), "not as MLflow does"),
        (response({}), "not as MLflow does"),
        (response({"model_version": []}), "not as MLflow does"),
        (response({"model_version": {"version": "1", "tags": [1]}}), "not as MLflow does"),
        (response(version({"other": ""})), "version 3 holds no bundle"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "IncompleteRead"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "SSH"),
        (b"", "closed"),
    ],
)
def test_whatever_a_server_answers_is_a_trouble_with_a_reason(home, answering, content, reason):
    uri, _ = answering(content)
    with pytest.raises(TrackingError, match=reason):
        RegisteredModels(home, TrackingConfig(uri=uri)).version("champion")


def test_a_server_that_is_away(home):
    with socket.create_server(("127.0.0.1", 0)) as free:
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(TrackingError, match="refused"):
        RegisteredModels(home, TrackingConfig(uri=uri)).version("champion")


def test_a_server_never_loads_mlflow():
    code = (
        "import sys, xcflow.registry.following, xcflow.serving.http.app; "
        "sys.exit('mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_machine_without_databases_tells_what_may_pass(monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlalchemy.exc", None)
    assert is_away(requests.exceptions.ConnectionError())
    assert not is_away(ValueError())
