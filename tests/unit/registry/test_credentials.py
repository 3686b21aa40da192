"""Who a process is for a tracking server, and how it trusts one."""

import ssl

import pytest

from xcflow.errors import TrackingError
from xcflow.registry import credentials
from xcflow.registry.credentials import Credentials, tls_context
from xcflow.registry.tracking import user_name

SERVER = "https://mlflow.example.org"


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No variable and no file of this machine."""
    for name, value in vars(credentials).items():
        if name.isupper() and isinstance(value, str):
            monkeypatch.delenv(value, raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def keep(folder, text):
    (folder / ".mlflow").mkdir()
    (folder / ".mlflow" / "credentials").write_text(text)


def test_nobody():
    who = Credentials.of_environment(SERVER)
    assert (who.header, str(who)) == ({}, "a user without a name")
    assert who.rejection.startswith("asks for a user: set MLFLOW_TRACKING_USERNAME and")


def test_variables(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    assert Credentials.of_environment(SERVER) == Credentials()  # half a pair is none
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p%:w")
    who = Credentials.of_environment(SERVER)
    assert who.header == {"Authorization": "Basic YW5uOnAlOnc="}
    assert user_name(SERVER) == "ann"
    assert "p%:w" not in f"{who} {who!r} {who.rejection}"


def test_a_token_yields_to_a_pair(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    who = Credentials.of_environment(SERVER)
    assert who.header == {"Authorization": "Bearer t"}
    assert "renew MLFLOW_TRACKING_TOKEN" in who.rejection
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p")
    assert Credentials.of_environment(SERVER).user == "ann"


def test_a_file_fills_what_variables_leave_open(monkeypatch, tmp_path):
    keep(tmp_path, "[mlflow]\nmlflow_tracking_username = bob\nmlflow_tracking_password = 50%\n")
    assert Credentials.of_environment(SERVER) == Credentials("bob", "50%")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    assert Credentials.of_environment(SERVER) == Credentials("ann", "50%")


def test_a_file_of_something_else(tmp_path):
    keep(tmp_path, "[other]\nmlflow_tracking_username = bob\n")
    assert Credentials.of_environment(SERVER) == Credentials()


def test_the_address_goes_first(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p")
    who = Credentials.of_environment("https://eve:a%20b@mlflow.example.org")
    assert who == Credentials("eve", "a b")


def test_tls(monkeypatch):
    assert tls_context().verify_mode == ssl.CERT_REQUIRED
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    assert tls_context().verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize("name", ["SERVER", "CLIENT"])
def test_a_certificate_that_is_not_there(monkeypatch, name):
    monkeypatch.setenv(f"MLFLOW_TRACKING_{name}_CERT_PATH", "/no/such.pem")
    with pytest.raises(TrackingError, match=r"certificate /no/such\.pem: cannot be used"):
        tls_context()
