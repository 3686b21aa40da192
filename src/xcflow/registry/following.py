"""Which model an alias names now, and its bundle, for a server that runs for months.

mlflow is never loaded into the server: a sqlite store is read directly, a tracking server asked by
its REST interface, and all else (other stores, fetching files) is done by a process of its own,
which ends with its answer.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from xcflow.artifact import MANIFEST
from xcflow.config import TrackingConfig
from xcflow.errors import TrackingError, XcflowError
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.bundles import fetch_bundle, quick_version
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker, tracking_uri

_ANSWER_S = 10
_FETCH_S = 3600


class RegisteredModels:
    """Versions of a registered model; answers as ``(number, bundle's digest)``.

    Args:
        home: Keeps fetched bundles.
        config: Where models are registered, and under which name.
    """

    def __init__(self, home: Home, config: TrackingConfig) -> None:
        self._home = home
        self._config = config
        self._uri = tracking_uri(config, home)

    def version(self, name: str) -> tuple[str, str] | None:
        """The version that an alias or a number names, None where there is none.

        Raises:
            TrackingError: The store cannot be asked.
        """
        if self._uri.startswith("sqlite:///"):
            return quick_version(self._home, self._config, name)
        if self._uri.startswith(("http://", "https://")):
            return self._asked(name)
        found = json.loads(self._by_a_process("version", name, _ANSWER_S * 6))
        return (found[0], found[1]) if found else None

    def fetch(self, digest: str) -> Path:
        """The folder of a bundle, fetched where it is not at hand.

        Raises:
            TrackingError: It cannot be fetched.
        """
        place = self._home.models / digest
        if not (place / MANIFEST).is_file():
            self._by_a_process("fetch", digest, _FETCH_S)
        return place

    def _asked(self, name: str) -> tuple[str, str] | None:
        method, key = (
            ("model-versions/get", "version")
            if name.isdigit()
            else (
                "registered-models/alias",
                "alias",
            )
        )
        query = urllib.parse.urlencode({"name": self._config.model_name, key: name})
        address = f"{self._uri.rstrip('/')}/api/2.0/mlflow/{method}?{query}"
        request = urllib.request.Request(address, headers=_credentials())
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_S) as response:
                found: dict[str, Any] = json.load(response)["model_version"]
        except urllib.error.HTTPError as error:
            if error.code in (400, 404):  # the alias, or the model, is not there
                return None
            raise TrackingError(f"{self._uri}: {error}") from error
        except (OSError, ValueError, KeyError) as error:
            raise TrackingError(f"{self._uri}: {getattr(error, 'reason', error)}") from error
        tags = {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}
        if names.BUNDLE_DIGEST not in tags:
            raise TrackingError(f"{self._uri}: version {found['version']} holds no bundle")
        return str(found["version"]), tags[names.BUNDLE_DIGEST]

    def _by_a_process(self, task: str, name: str, seconds: float) -> str:
        asked = {
            "home": str(self._home.root),
            "uri": self._uri,
            "model": self._config.model_name,
            "task": task,
            "name": name,
        }
        command = [sys.executable, "-m", "xcflow.registry.following", json.dumps(asked)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise TrackingError(f"{self._uri}: does not answer") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["ended without a word"]
            raise TrackingError(lines[-1])
        return done.stdout


def _credentials() -> dict[str, str]:
    """Who asks, from the variables that mlflow itself reads."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if not (user and password):
        return {}
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _answer(asked: dict[str, str]) -> str:
    """What the process of its own does."""
    home = Home.at(asked["home"])
    config = TrackingConfig(uri=asked["uri"], model_name=asked["model"])
    tracker = Tracker.at(config, home)
    if asked["task"] == "fetch":
        return str(fetch_bundle(tracker, home, asked["name"]))
    registry = Registry(tracker, config.model_name, home)
    name = asked["name"]
    found = registry.version(name) if name.isdigit() else registry.aliased(name)
    return json.dumps((found.number, found.digest) if found else None)


def _main() -> None:
    try:
        sys.stdout.write(_answer(json.loads(sys.argv[1])))
    except XcflowError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
