"""The command and mlflow/server.env start the same server."""

from pathlib import Path

from xcflow_pipelines.champions import SERVER

SETTINGS = Path(__file__).parents[2] / "mlflow" / "server.env"


def test_one_set_of_settings():
    lines = [line.strip() for line in SETTINGS.read_text(encoding="utf-8").splitlines()]
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert settings == SERVER
