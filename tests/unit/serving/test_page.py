"""The page as a server sends it: whole in itself, and nothing else may run in it."""

import base64
import hashlib
import re

import pytest
from fastapi.testclient import TestClient

from xcflow.errors import ArtifactError
from xcflow.serving.http.app import create_app
from xcflow.serving.http.metrics import Metrics
from xcflow.serving.http.models import Models
from xcflow.serving.http.settings import ServerSettings


class NoModels:
    """A source without any."""

    def wanted(self, alias):
        return None

    def fetch(self, wanted):
        raise ArtifactError("there is none")


@pytest.fixture(scope="module")
def response():
    settings, metrics = ServerSettings(token="secret"), Metrics()
    models = Models(NoModels(), "xcflow", "champion", "", metrics)
    with TestClient(create_app(models, settings, metrics, local=True)) as client:
        return client.get("/")


def test_the_page_comes_without_token_and_model(response):
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("tag", ["style", "script"])
def test_the_policy_names_the_one_script_and_the_one_style(response, tag):
    assert len(re.findall(f"<{tag}[ >]", response.text)) == 1
    [part] = re.findall(f"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
    policy = response.headers["content-security-policy"].split("; ")
    assert f"{tag}-src 'sha256-{digest}'" in policy
    assert {"default-src 'none'", "connect-src 'self'", "form-action 'none'"} <= set(policy)


@pytest.mark.parametrize(
    "pattern",
    [
        r"https?://",
        r"\b(?:src|href)=\"(?!#|data:)",
        r"\burl\(",
        r"@import",
        r"<[^<>]*\sstyle=",
        r"<[^<>]*\son\w+=",
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b",
    ],
)
def test_the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_texts(response, pattern):
    assert re.findall(pattern, response.text) == []
