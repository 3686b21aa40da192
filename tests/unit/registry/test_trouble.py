"""What a real client makes of a tracking server's answers, and what is made of that."""

import http.server
import threading

import pytest

from xcflow.errors import AccessError, CredentialsError, StoreAwayError, TrackingError
from xcflow.registry.tracking import Tracker


@pytest.fixture
def answering(monkeypatch):
    """A server that gives every request the same status and text; returns a tracker of it."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    servers = []

    def start(status, text):
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = answer  # noqa: N815

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Tracker(f"http://127.0.0.1:{server.server_port}", "tests")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "text", "kind", "words"),
    [
        (401, "You are not authenticated", CredentialsError, "does not accept the user ann: check"),
        (
            403,
            "Permission denied",
            AccessError,
            r"ann has no right to this \(.*/get\), or it is not there",
        ),
        (403, "Invalid Host header - possible", TrackingError, "MLFLOW_SERVER_ALLOWED_HOSTS"),
        (503, "{}", StoreAwayError, r"cannot answer now \(503\)"),
        (502, "<html>", StoreAwayError, r"cannot answer now \(502\)"),
        (500, "<html>", TrackingError, r"cannot answer now \(500\)"),
    ],
)
def test_an_answer_is_one_line_and_a_kind(answering, status, text, kind, words):
    tracker = answering(status, text)
    with pytest.raises(kind, match=words) as raised:
        tracker.tags("run")
    assert type(raised.value) is kind
    assert "secret" not in str(raised.value)


def test_a_server_without_its_storage_is_away(answering, tmp_path):
    """The same status means a fault of the server where no file is asked for."""
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    tracker = answering(500, "Internal Server Error")
    (tmp_path / "file").write_text("x")
    files = MlflowArtifactsRepository("mlflow-artifacts:/1/run/artifacts", tracker.uri)
    with pytest.raises(StoreAwayError), tracker.trouble():
        files.log_artifact(str(tmp_path / "file"))
