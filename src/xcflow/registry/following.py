"""Which model an alias names now, and its bundle, for a server that runs for months.

mlflow is never loaded into the server: a sqlite store is read directly, a tracking server asked by
its REST interface, and all else (other stores, fetching files) is done by a process of its own,
which ends with its answer.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from xcflow.artifact import MANIFEST
from xcflow.config import TrackingConfig
from xcflow.disk import claimed, remove_folder
from xcflow.errors import ArtifactError, StorageError, TrackingError, XcflowError
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.bundles import fetch_bundle, stored_version
from xcflow.registry.credentials import Credentials, tls_context
from xcflow.registry.promotion import Registry
from xcflow.registry.store import public_uri
from xcflow.registry.tracking import Tracker, tracking_uri
from xcflow.registry.trouble import refused

_ANSWER_S = 10
_FETCH_S = 3600
# How the process of its own ends where the bundle is at fault, not the store.
_AT_FAULT = 3


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
        self._public_uri = public_uri(self._uri)

    def version(self, name: str) -> tuple[str, str] | None:
        """The version that an alias or a number names, None where there is none.

        Raises:
            TrackingError: The store cannot be asked.
        """
        if self._uri.startswith("sqlite:///"):
            return stored_version(self._home, self._config, name)
        if self._uri.startswith(("http://", "https://")):
            return self._asked(name)
        said = self._by_a_process("version", name, _ANSWER_S * 6)
        found = json.loads(said.splitlines()[-1])  # libraries print what they like before it
        return (found[0], found[1]) if found else None

    def fetch(self, digest: str) -> Path:
        """The folder of a bundle, fetched where it is not at hand.

        Raises:
            TrackingError: It cannot be fetched now.
            ArtifactError: What is registered is no whole bundle.
        """
        place = self._home.models / digest
        if not (place / MANIFEST).is_file():
            self._by_a_process("fetch", digest, _FETCH_S)
            _mark(self._home, digest).touch()
        return place

    def forget(self, but: Collection[str]) -> None:
        """Remove bundles that servers fetched into the home, but for those with some digests.

        Who has one loaded goes on with it: the files it mapped stay until it ends.
        """
        for mark in self._home.models.glob(_mark(self._home, "*").name):
            digest = mark.name[1:].partition(".")[0]
            if digest in but:
                continue
            place = self._home.models / digest
            with suppress(StorageError, OSError), claimed(place):
                remove_folder(place)
                mark.unlink(missing_ok=True)

    def _asked(self, name: str) -> tuple[str, str] | None:
        numbered = name.isdigit()
        method = "model-versions/get" if numbered else "registered-models/alias"
        key = "version" if numbered else "alias"
        query = urllib.parse.urlencode({"name": self._config.model_name, key: name})
        address = f"{self._public_uri.rstrip('/')}/api/2.0/mlflow/{method}?{query}"
        who = Credentials.of_environment(self._uri)
        request = urllib.request.Request(address, headers=who.header)
        try:
            with urllib.request.urlopen(
                request, timeout=_ANSWER_S, context=tls_context()
            ) as response:
                found: dict[str, Any] = json.load(response)["model_version"]
                number = str(found["version"])
                tags = {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}
        except urllib.error.HTTPError as error:
            if error.code in (400, 404):  # the alias, or the model, is not there
                return None
            if error.code in (401, 403):
                raise refused(self._uri, who, error.code, f"mlflow/{method}") from error
            raise TrackingError(f"{self._public_uri}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = "answers, but not as MLflow does"
            raise TrackingError(f"{self._public_uri}: {reason}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error)
            reason = reason or type(error).__name__
            raise TrackingError(f"{self._public_uri}: {reason}") from error
        if names.BUNDLE_DIGEST not in tags:
            raise TrackingError(f"{self._public_uri}: version {number} holds no bundle")
        return number, tags[names.BUNDLE_DIGEST]

    def _by_a_process(self, task: str, name: str, seconds: float) -> str:
        asked = {
            "home": str(self._home.root),
            "uri": self._uri,
            "model": self._config.model_name,
            "task": task,
            "name": name,
        }
        command = [sys.executable, "-m", "xcflow.registry.following"]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(asked),  # the URI may hold a password, and commands are public
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TrackingError(f"{self._public_uri}: does not answer") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["ended without a word"]
            kind = ArtifactError if done.returncode == _AT_FAULT else TrackingError
            raise kind(lines[-1])
        return done.stdout


def _mark(home: Home, digest: str) -> Path:
    """The file that says that a server fetched a bundle, which nobody else put there."""
    return home.models / f".{digest}.fetched"


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
        sys.stdout.write(_answer(json.load(sys.stdin)))
    except XcflowError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_AT_FAULT if isinstance(error, ArtifactError) else 1)


if __name__ == "__main__":
    _main()
