"""The start script of the tracking server says what it lacks, in one line for each variable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MLFLOW = Path(__file__).parents[2] / "mlflow"
COMPLETE = {
    "PGHOST": "127.0.0.1",
    "PGPORT": "1",
    "PGDATABASE": "mlflow",
    "PGUSER": "mlflow",
    "MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/mlflow",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "twelve letters",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "sixteen letters or so",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost:5000",
    "DATABASE_WAIT_SECONDS": "0",
}
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def said(**variables):
    done = subprocess.run(
        ["sh", MLFLOW / "start-server.sh"],
        capture_output=True,
        text=True,
        env={"PATH": PATH} | variables,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert all(line.startswith("start-server.sh: ") for line in done.stderr.splitlines())
    return done.stderr


@pytest.mark.parametrize(
    "name", [x for x in COMPLETE if x not in ("PGPORT", "DATABASE_WAIT_SECONDS")]
)
def test_a_missing_variable(name):
    (line,) = said(**{k: v for k, v in COMPLETE.items() if k != name}).splitlines()
    assert f"{name} is not set: " in line


def test_all_that_is_missing_is_said_at_once():
    assert said().count(" is not set: ") == 7


@pytest.mark.parametrize("name", ["MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"])
def test_a_short_secret(name):
    assert f"{name} is too short: at least 1" in said(**COMPLETE | {name: "short"})


def test_secrets_from_files(tmp_path):
    name = "MLFLOW_AUTH_ADMIN_PASSWORD"
    rest = {k: v for k, v in COMPLETE.items() if k != name}
    assert "cannot be read" in said(**rest, MLFLOW_AUTH_ADMIN_PASSWORD_FILE=str(tmp_path / "none"))
    (tmp_path / "secret").write_text("short\n")
    assert f"{name} is too short" in said(
        **rest, MLFLOW_AUTH_ADMIN_PASSWORD_FILE=str(tmp_path / "secret")
    )


def test_a_database_that_is_not_there():
    pytest.importorskip("psycopg2")
    (line,) = said(**COMPLETE).splitlines()
    assert "the database cannot be used: " in line
    assert "refused" in line


def test_a_patience_that_is_none():
    pytest.importorskip("psycopg2")
    (line,) = said(**COMPLETE | {"DATABASE_WAIT_SECONDS": "a while"}).splitlines()
    assert "DATABASE_WAIT_SECONDS=a while: expected a number of seconds" in line


def test_no_password_stands_in_the_settings():
    lines = (MLFLOW / "basic_auth.ini").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split(" = ", 1) for line in lines if " = " in line and line[0] != "#")
    assert "admin_password" not in settings
    assert settings["default_permission"] == "READ"
    assert "@" not in settings["database_uri"]
