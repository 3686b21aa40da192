"""The connection to an S3 server: settings, retries, and its failures in one line each."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xcflow.errors import StorageError
from xcflow.storage.places import RemoteFile, RemoteFolder

# Files and parts of files that are on their way at the same time.
CONCURRENCY = 8
STYLE_VARIABLE = "AWS_S3_ADDRESSING_STYLE"
ATTEMPTS_VARIABLE = "AWS_MAX_ATTEMPTS"
# About 15 s of pauses in all: a server that starts again is waited for, a wrong address is not.
_ATTEMPTS = 6
_LONGEST_PAUSE_S = 20.0
_DENIED = "access denied: check the credentials and their rights"
_REASONS = {
    "NoSuchBucket": "no such bucket",
    "NoSuchKey": "a file vanished while it was read",
    "404": "no such bucket or file",
    "403": _DENIED,
    "AccessDenied": _DENIED,
    "InvalidAccessKeyId": "the access key is unknown: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired: get new ones",
    "InvalidToken": "the session token is wrong: check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock differs from the store's: set it right",
    "SlowDown": "the store is overloaded and stays so: try again later",
    "ServiceUnavailable": "the store is unavailable and stays so: try again later",
    "InternalError": "the store fails, and asking again did not help: try again later",
    "500": "the store fails, and asking again did not help: try again later",
    "502": "the store cannot be reached through its gateway: try again later",
    "503": "the store is unavailable and stays so: try again later",
    "BadDigest": "the content was damaged on its way: try again",
    "InvalidDigest": "the content was damaged on its way: try again",
    "PermanentRedirect": "the bucket stands in another region: check AWS_REGION",
    "AuthorizationHeaderMalformed": "the region is wrong: check AWS_REGION",
}


def connect() -> Any:
    """A client of the S3 server that the environment and boto3's configuration files name.

    Raises:
        StorageError: A setting is wrong.
    """
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle and not Path(bundle).exists():
        raise StorageError(f"AWS_CA_BUNDLE={bundle}: no such file")
    try:
        # A session of its own: boto3's default one keeps the first credentials it ever saw.
        session = Session(region_name=os.environ.get("AWS_REGION") or None)
        config = Config(
            retries={"mode": "standard", "total_max_attempts": _attempts()},
            connect_timeout=10,
            max_pool_connections=CONCURRENCY + 2,
            s3=_addressing(),
            # Files are checked by their sha256; other checksums would only cost time, and older
            # servers refuse them.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return session.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"the S3 client cannot be set up: {error}") from error


def _addressing() -> dict[str, str]:
    """How buckets are named: own servers rarely have a host name for each."""
    if style := os.environ.get(STYLE_VARIABLE):
        return {"addressing_style": style}
    own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return {"addressing_style": "path"} if own else {}


def _attempts() -> int:
    text = os.environ.get(ATTEMPTS_VARIABLE) or str(_ATTEMPTS)
    if not text.isdecimal() or int(text) < 1:
        raise StorageError(f"{ATTEMPTS_VARIABLE}={text}: expected a whole number, 1 or more")
    return int(text)


def pauses() -> Iterator[float]:
    """Seconds to wait before asking again: exponential back-off with full jitter."""
    for attempt in range(_attempts() - 1):
        yield random.random() * min(2.0**attempt, _LONGEST_PAUSE_S)


def broken_bodies() -> tuple[type[Exception], ...]:
    """What boto3 raises where a connection ends in the middle of an answer's body."""
    from botocore.exceptions import (
        ConnectionClosedError,
        IncompleteReadError,
        ReadTimeoutError,
        ResponseStreamingError,
    )

    return ConnectionClosedError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError


def error_code(error: Exception) -> str:
    """What the store calls the error of a ``ClientError``, or its HTTP status."""
    answer = getattr(error, "response", {})
    return str(answer.get("Error", {}).get("Code", ""))


@contextmanager
def translated(place: RemoteFolder | RemoteFile) -> Iterator[None]:
    """Turn the failures of boto3 into one line each.

    Raises:
        StorageError: What, where, and what to do.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
        SSLError,
    )

    try:
        yield
    except ParamValidationError as error:
        raise StorageError(f"{place}: cannot be the name of a bucket or file") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(
            f"{place}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except ClientError as error:
        reason = _REASONS.get(error_code(error)) or " ".join(str(error).split())
        raise StorageError(f"{place}: {reason}") from error
    except SSLError as error:
        raise StorageError(
            f"{place}: the store's certificate is not trusted: name that of its CA in "
            f"AWS_CA_BUNDLE ({error})"
        ) from error
    except (BotoCoreError, Boto3Error, *broken_bodies()) as error:
        raise StorageError(f"{place}: the store cannot be reached: {error}") from error
