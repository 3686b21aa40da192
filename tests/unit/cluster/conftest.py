"""Kubeflow Pipelines as the tests of this folder find it, and no long pauses."""

import pytest
from kfp_stub import kubeflow  # noqa: F401  # a fixture

from xcflow.config import Config
from xcflow_pipelines.cluster import endpoint, submitting


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(endpoint, "PAUSES_S", (0.01, 0.01, 0.01))
    monkeypatch.setattr(submitting, "SETTLE_S", 1.2)


@pytest.fixture
def config():
    return Config()
