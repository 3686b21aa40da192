"""The client of a tracking store, and what is wrong with the store in a few words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from xcflow.disk import refusal
from xcflow.errors import MissingExtraError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"

_TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_UPLOAD_TIMEOUT_S = 300
_TOO_BUSY = (429, 502, 503, 504)


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
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # answers stand there
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
        # After several attempts requests speaks of a connection error, whatever the reason was.
        if isinstance(cause, exceptions.Timeout) or "timed out" in str(cause):
            return "does not answer"
        if isinstance(cause, exceptions.ConnectionError):
            return "cannot be reached"
        cause = cause.__cause__ or cause.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_away(error: BaseException) -> bool:
    """Whether the same question may be answered later: no connection, no room, too busy."""
    from mlflow.exceptions import MlflowException
    from requests import exceptions
    from sqlalchemy.exc import OperationalError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, exceptions.HTTPError):
            return cause.response is not None and cause.response.status_code in _TOO_BUSY
        if isinstance(cause, OperationalError | exceptions.ConnectionError | exceptions.Timeout):
            return True
        if isinstance(cause, MlflowException):
            status: int = cause.get_http_status_code()  # type: ignore[no-untyped-call]
            if status in _TOO_BUSY:
                return True
        if refusal(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


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
