"""Folders and files on this machine and under ``s3://`` behind one small interface.

Credentials, region and endpoint come from where boto3 looks for them (environment, configuration
files, instance role); ``AWS_ENDPOINT_URL`` points to another S3 server.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcflow.disk import claimed, replace_folder, writable
from xcflow.errors import StorageError

SCHEME = "s3://"


def is_remote(uri: str | Path) -> bool:
    """Whether a URI names something outside this machine's file system."""
    return str(uri).startswith(SCHEME)


def fetch(uri: str | Path, into: Path) -> Path:
    """Make the folder behind a URI readable on this machine.

    Args:
        uri: A local path or ``s3://bucket/prefix``.
        into: Folder for copies of remote folders; each URI has its own place in it.

    Returns:
        A local path itself, or the folder of the copy. A copy appears only when it is whole, and
        is made anew each time, because what stands behind the URI may have changed.

    Raises:
        StorageError: Nothing is there, or it cannot be read or copied.
    """
    if not is_remote(uri):
        path = Path(uri)
        if not path.exists():
            raise StorageError(f"{path}: no such file or folder")
        return path
    place = _Place.of(str(uri))
    name = copy_name(str(uri).rstrip("/"))
    target = Path(into) / name
    partial = target.with_name(f".{name}.partial-{os.getpid()}")
    with claimed(target, wait=True), writable(target):
        try:
            _download(place, partial)
            replace_folder(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def copy_name(uri: str) -> str:
    """The name of a URI's copy: its own to the eye and to formats that look at it, and unique."""
    own = re.sub(r"[^A-Za-z0-9_-]", "_", uri.rpartition("/")[2])[:64]
    return f"{own}-{hashlib.sha256(uri.encode()).hexdigest()[:16]}"


def exists(uri: str | Path) -> bool:
    """Whether anything stands behind a URI.

    Raises:
        StorageError: A remote store cannot be asked.
    """
    if not is_remote(uri):
        return Path(uri).exists()
    place = _Place.of(str(uri))
    with _translated(place):
        return any(True for _ in _keys(_client(), place))


def publish(folder: Path, uri: str | Path) -> None:
    """Copy a folder to a URI.

    Files of the same names are replaced and others stay. A local copy appears only when whole;
    in a remote store the files named ``manifest.json`` are written last.

    Raises:
        StorageError: The folder cannot be read or the target not be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder")
    if is_remote(uri):
        _upload(folder, _Place.of(str(uri)))
        return
    target = Path(uri)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.copytree(target, partial)
        shutil.copytree(folder, partial, dirs_exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{target}: cannot be written: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fetch_file(uri: str, target: Path) -> None:
    """Copy a remote file to this machine, through no more memory than a few blocks.

    Args:
        uri: ``s3://bucket/key``.
        target: The copy, which appears only when whole.

    Raises:
        StorageError: Nothing is there, or it cannot be read or copied.
    """
    file = _File.of(uri)
    with writable(target), _translated(file):
        target.parent.mkdir(parents=True, exist_ok=True)
        _client().download_file(file.bucket, file.key, str(target))


def publish_file(source: Path, uri: str) -> None:
    """Copy a file to ``s3://bucket/key``, where it appears only when whole.

    Raises:
        StorageError: It cannot be written there.
    """
    file = _File.of(uri)
    with _translated(file):
        _client().upload_file(str(source), file.bucket, file.key)


def require_publishable(uri: str) -> None:
    """Refuse ``s3://bucket/key`` early where ``publish_file`` would be refused later.

    Raises:
        StorageError: It cannot be written there.
    """
    from botocore.exceptions import ClientError

    file = _File.of(uri)
    place = {"Bucket": file.bucket, "Key": file.key}
    with _translated(file):
        client = _client()
        try:
            client.head_bucket(Bucket=file.bucket)  # some servers make a missing one for an upload
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                raise StorageError(f"{file}: no such bucket") from error
        # An upload in parts, without any: it asks for just the right that is needed.
        begun = client.create_multipart_upload(**place)
        with suppress(ClientError):  # to end it may need another right, and changes nothing
            client.abort_multipart_upload(**place, UploadId=begun["UploadId"])


@dataclass(frozen=True)
class _Place:
    """A bucket and a prefix that names a folder (empty for the whole bucket)."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, uri: str) -> _Place:
        bucket, _, path = uri.removeprefix(SCHEME).partition("/")
        if not bucket:
            raise StorageError(f"{uri}: expected s3://bucket/prefix")
        path = path.strip("/")
        return cls(bucket, f"{path}/" if path else "")

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class _File:
    """A bucket and the key of one file."""

    bucket: str
    key: str

    @classmethod
    def of(cls, uri: str) -> _File:
        bucket, _, key = uri.removeprefix(SCHEME).partition("/")
        if not bucket or not key or key.endswith("/"):
            raise StorageError(f"{uri}: expected s3://bucket/key of a file")
        return cls(bucket, key)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


def _client() -> Any:
    from boto3.session import Session
    from botocore.config import Config

    retries = {"mode": "standard", "max_attempts": 4}
    # A session of its own: boto3's default one keeps the first credentials it ever saw.
    return Session().client("s3", config=Config(retries=retries, connect_timeout=10))


def _keys(client: Any, place: _Place) -> Iterator[str]:
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=place.bucket, Prefix=place.prefix
    )
    for page in pages:
        yield from (item["Key"] for item in page.get("Contents", ()))


def _download(place: _Place, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _translated(place):
        client = _client()
        found = False
        for key in _keys(client, place):
            found = True
            if key.endswith("/"):  # consoles make such empty objects to show a folder
                continue
            target = _inside(folder, key.removeprefix(place.prefix), key)
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(place.bucket, key, str(target))
    if not found:
        raise StorageError(f"{place}: nothing is there: check bucket and prefix")


def _inside(folder: Path, name: str, key: str) -> Path:
    """The path of ``name`` in ``folder``; a key may hold anything, also ``../``."""
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()):
        raise StorageError(f"{key}: the key leads out of its folder: rename it")
    return target


def _upload(folder: Path, place: _Place) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files.sort(key=lambda path: path.name == "manifest.json")
    with _translated(place):
        client = _client()
        for path in files:
            key = place.prefix + path.relative_to(folder).as_posix()
            client.upload_file(str(path), place.bucket, key)


@contextmanager
def _translated(place: _Place | _File) -> Iterator[None]:
    """Turn the failures of boto3 into one line each."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        raise StorageError(
            f"{place}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except ClientError as error:
        raise StorageError(f"{place}: {_reason(error)}") from error
    except Boto3Error as error:
        raise StorageError(f"{place}: {error}") from error
    except BotoCoreError as error:
        raise StorageError(f"{place}: the store cannot be reached: {error}") from error


def _reason(error: Any) -> str:
    code = str(error.response.get("Error", {}).get("Code", ""))
    return {
        "NoSuchBucket": "no such bucket",
        "NoSuchKey": "a file vanished while it was read",
        "404": "no such bucket or file",
        "403": "access denied: check the credentials and their rights",
        "AccessDenied": "access denied: check the credentials and their rights",
        "InvalidAccessKeyId": "the access key is unknown: check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    }.get(code, str(error))
