"""What is wrong with a tracking store, in one line, and whether it may pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from xcflow.disk import refusal
from xcflow.errors import AccessError, CredentialsError, StoreAwayError, TrackingError
from xcflow.registry.credentials import Credentials
from xcflow.registry.store import public_uri

_UNKNOWN_USER, _FORBIDDEN, _FAULT = 401, 403, 500
_TOO_BUSY = (429, 502, 503, 504)
# What the client keeps of a server's answers to several attempts.
_ANSWERS = re.compile(r"too many (\d{3}) error responses")
# Part of the address of a file that goes through the server to its storage.
_FILES = "/mlflow-artifacts/"
# So a server answers that is called by a name which it was not told.
_OTHER_NAME = "Invalid Host header"
_RIGHTS = "ask its administrator (table of rights: mlflow/README.md)"
_ALLOW_IT = "add it to the server's MLFLOW_SERVER_ALLOWED_HOSTS"


def trouble_with(uri: str, error: BaseException) -> TrackingError:
    """What the client of a store raised, as an error of one line."""
    where, status = f"tracking store {public_uri(uri)}", _status_of(error)
    if _OTHER_NAME in str(error):
        return TrackingError(f"{where}: does not know this name of its own: {_ALLOW_IT}")
    if status in (_UNKNOWN_USER, _FORBIDDEN):
        return refused(uri, Credentials.of_environment(uri), status, _endpoint_of(error))
    kind = StoreAwayError if is_away(error) else TrackingError
    return kind(f"{where}: {_reason_of(error).replace(uri, public_uri(uri))}")


def refused(uri: str, who: Credentials, status: int, endpoint: str) -> AccessError:
    """What a tracking server means that answered 401 or 403.

    Args:
        uri: The server.
        who: Who asked.
        status: The answer.
        endpoint: What was asked for; empty where that is not known.
    """
    where = f"tracking store {public_uri(uri)}"
    if status == _UNKNOWN_USER:
        return CredentialsError(f"{where}: {who.rejection}")
    asked = f" ({endpoint})" if endpoint else ""
    # To the question for something that is not there, users get the same answer.
    absent = ", or it is not there" if endpoint.endswith("/get") else ""
    return AccessError(f"{where}: {who} has no right to this{asked}{absent}: {_RIGHTS}")


def _status_of(error: BaseException) -> int:
    """The status with which a server refused, 0 where none is known."""
    from mlflow.exceptions import MlflowException
    from requests import exceptions  # type: ignore[import-untyped]

    for cause in _causes(error):
        if isinstance(cause, exceptions.HTTPError) and cause.response is not None:
            return int(cause.response.status_code)
        if answers := _ANSWERS.search(str(cause)):
            return int(answers[1])
        if isinstance(cause, MlflowException):
            status: int = cause.get_http_status_code()  # type: ignore[no-untyped-call]
            if status in (_UNKNOWN_USER, _FORBIDDEN, *_TOO_BUSY):
                return status
    return 0


def _endpoint_of(error: BaseException) -> str:
    found = re.search(r"/api/[\d.]+/([\w/-]+)", str(error))
    return found[1] if found else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _reason_of(error: BaseException) -> str:
    """What went wrong, in one line; mlflow wraps a refused connection in a paragraph."""
    from requests import exceptions

    if answers := _ANSWERS.search(str(error)):
        return f"cannot answer now ({answers[1]})"
    for cause in _causes(error):
        # After several attempts requests speaks of a connection error, whatever the reason was.
        if isinstance(cause, exceptions.Timeout) or "timed out" in str(cause):
            return "does not answer"
        if isinstance(cause, exceptions.ConnectionError):
            return "cannot be reached"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_away(error: BaseException) -> bool:
    """Whether the same question may be answered later: no connection, no room, too busy."""
    from requests import exceptions

    status = _status_of(error)
    if status == _FAULT:  # of a server that is there, but cannot reach the storage of its files
        return any(_FILES in str(cause) for cause in _causes(error))
    if status:
        return status in _TOO_BUSY
    gone: tuple[type[BaseException], ...] = (exceptions.ConnectionError, exceptions.Timeout)
    with suppress(ImportError):  # who only asks tracking servers may lack it
        from sqlalchemy.exc import OperationalError

        gone = (*gone, OperationalError)
    return any(isinstance(cause, gone) or refusal(cause) for cause in _causes(error))
