"""The client of a tracking store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from xcflow.errors import MissingExtraError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"

_TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_UPLOAD_TIMEOUT_S = 300


def connect(uri: str) -> MlflowClient:
    """The client of the store at ``uri``; nothing is asked of it yet.

    Raises:
        MissingExtraError: mlflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # By default an absent server is asked for many minutes; what could not be sent is sent later.
    os.environ.setdefault(_TIMEOUT_VARIABLE, "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    # Standard output is for answers.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        import mlflow
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MissingExtraError("mlflow", "tracking") from error
    # Parts of a client ask for the store of the process. Setting it sets the environment too,
    # which would reach everything that this process starts.
    before = os.environ.get(URI_VARIABLE)
    mlflow.set_tracking_uri(uri)
    os.environ.pop(URI_VARIABLE, None)
    if before is not None:
        os.environ[URI_VARIABLE] = before
    return MlflowClient(uri, registry_uri=uri)


@contextmanager
def patient() -> Iterator[None]:
    """Give a server the time to store large files before it has to answer."""
    before = os.environ[_TIMEOUT_VARIABLE]
    os.environ[_TIMEOUT_VARIABLE] = str(max(int(before), _UPLOAD_TIMEOUT_S))
    try:
        yield
    finally:
        os.environ[_TIMEOUT_VARIABLE] = before


def public_uri(uri: str) -> str:
    """The URI without a password."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host))
