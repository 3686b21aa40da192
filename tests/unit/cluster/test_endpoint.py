"""Where the endpoint is, who asks, and what its troubles mean: one line each."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from kfp_stub import Fault

from xcflow.cluster_config import ClusterConfig
from xcflow.errors import ClusterError
from xcflow_pipelines.cluster.endpoint import POD_TOKEN, Endpoint, EndpointAwayError


def answered(**cluster):
    Endpoint.of(ClusterConfig(**cluster)).require_answer()


def test_the_profile_goes_before_the_environment(kubeflow):
    assert Endpoint.of(ClusterConfig()).host == kubeflow.url
    assert Endpoint.of(ClusterConfig(host="https://other/")).host == "https://other"
    assert Endpoint.of(ClusterConfig(host="kubeflow.team")).host == "https://kubeflow.team"


def test_nobody_says_where_it_is(monkeypatch):
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    with pytest.raises(ClusterError, match=r"set cluster.host in the profile, or \$KF_PIPELINES"):
        answered()


def test_links_lead_to_the_pages(kubeflow):
    endpoint = Endpoint.of(ClusterConfig(ui="https://pages/"))
    assert endpoint.run_page("id") == "https://pages/#/runs/details/id"


def test_nobody_there_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(EndpointAwayError, match=r"cannot be reached .* is the address right"):
        answered(host=f"http://127.0.0.1:{port}")


def test_another_server_is_one_line(kubeflow):
    with pytest.raises(ClusterError, match=r"not as Kubeflow Pipelines does \(404\): the address"):
        answered(host=f"{kubeflow.url}/elsewhere")


def test_a_name_that_nobody_knows_is_one_line():
    with pytest.raises(EndpointAwayError, match="cannot be reached"):
        answered(host="http://kubeflow.invalid")


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"drop": "before"}])
def test_passing_trouble_is_outlasted(kubeflow, fault):
    kubeflow.faults = [Fault("GET", "/healthz", times=3, **fault)]
    answered()


def test_lasting_trouble_is_one_line(kubeflow):
    kubeflow.faults = [Fault("GET", "/healthz", status=500, times=99)]
    with pytest.raises(EndpointAwayError, match=r"fails \(500\): told to fail"):
        answered()


def test_an_answer_that_takes_too_long_is_one_line(kubeflow, monkeypatch):
    monkeypatch.setattr("xcflow_pipelines.cluster.endpoint.TIMEOUT_S", (5, 0.1))
    kubeflow.faults = [Fault("GET", "/healthz", delay=0.5, times=99)]
    with pytest.raises(EndpointAwayError, match="cannot be reached"):
        answered()


def test_without_the_token_one_is_not_let_in(kubeflow):
    kubeflow.token = "right"
    with pytest.raises(ClusterError, match=r"is not allowed \(401\): .* check the token"):
        answered()


def test_a_token_from_the_environment(kubeflow, monkeypatch):
    kubeflow.token = "right"
    monkeypatch.setenv("XCFLOW_KFP_TOKEN", "right\n")
    answered()
    monkeypatch.setenv("XCFLOW_KFP_TOKEN", "wrong")
    with pytest.raises(ClusterError, match="is not allowed"):
        answered()


def test_a_token_in_a_file_is_read_anew_for_each_request(kubeflow, monkeypatch, tmp_path):
    path = tmp_path / "token"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(path))
    path.write_text("first")
    kubeflow.token = "first"
    endpoint = Endpoint.of(ClusterConfig())
    endpoint.require_answer()
    path.write_text("second")
    kubeflow.token = "second"
    endpoint.require_answer()


def test_a_token_that_cannot_be_read_is_one_line(kubeflow, monkeypatch, tmp_path):
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="none: the token cannot be read: No such file"):
        answered()
    assert POD_TOKEN.is_absolute()


@pytest.mark.parametrize("content", ["one\ntwo", "t€ken", "tök", b"\xff\xfe\x00"])
def test_what_is_no_token_is_one_line(kubeflow, monkeypatch, tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(path))
    with pytest.raises(ClusterError, match="token: holds no token: expected one word of ASCII"):
        answered()


def test_a_page_where_one_has_to_log_in_is_no_endpoint():
    class LogIn(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>log in</html>")

    server = HTTPServer(("127.0.0.1", 0), LogIn)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with pytest.raises(ClusterError, match=r"not as Kubeflow Pipelines does \(text/html\)"):
            answered(host=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


def test_certificates_that_are_not_there_are_one_line(tmp_path):
    with pytest.raises(ClusterError, match=r"none\.pem: no such file of certificates"):
        answered(host="https://127.0.0.1:1", ca_file=str(tmp_path / "none.pem"))
