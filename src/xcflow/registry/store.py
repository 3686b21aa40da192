"""The client of a tracking store, and what is wrong with the store in a few words."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from xcflow.errors import MissingExtraError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"


def connect(uri: str) -> MlflowClient:
    """The client of the store at ``uri``; nothing is asked of it yet.

    Raises:
        MissingExtraError: mlflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # By default an absent server is asked for many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
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


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line; mlflow wraps a refused connection in a paragraph."""
    from requests import exceptions  # type: ignore[import-untyped]

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, exceptions.Timeout):
            return "does not answer"
        if isinstance(cause, exceptions.ConnectionError):
            return "cannot be reached"
        cause = cause.__cause__ or cause.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def public_uri(uri: str) -> str:
    """The URI without a password."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host))
