"""Whole folders and large files here and under ``s3://``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from xcflow.disk import claimed, replace_folder, writable
from xcflow.errors import StorageError
from xcflow.storage.client import connect, translated
from xcflow.storage.places import RemoteFile, RemoteFolder, copy_name, is_remote


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
    place = RemoteFolder.of(str(uri))
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


def exists(uri: str | Path) -> bool:
    """Whether anything stands behind a URI.

    Raises:
        StorageError: A remote store cannot be asked.
    """
    if not is_remote(uri):
        return Path(uri).exists()
    place = RemoteFolder.of(str(uri))
    with translated(place):
        return any(True for _ in _keys(connect(), place))


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
        _upload(folder, RemoteFolder.of(str(uri)))
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
    file = RemoteFile.of(uri)
    with writable(target), translated(file):
        target.parent.mkdir(parents=True, exist_ok=True)
        connect().download_file(file.bucket, file.key, str(target))


def publish_file(source: Path, uri: str) -> None:
    """Copy a file to ``s3://bucket/key``, where it appears only when whole.

    Raises:
        StorageError: It cannot be written there.
    """
    file = RemoteFile.of(uri)
    with translated(file):
        connect().upload_file(str(source), file.bucket, file.key)


def require_publishable(uri: str) -> None:
    """Refuse ``s3://bucket/key`` early where ``publish_file`` would be refused later.

    Raises:
        StorageError: It cannot be written there.
    """
    from botocore.exceptions import ClientError

    file = RemoteFile.of(uri)
    place = {"Bucket": file.bucket, "Key": file.key}
    with translated(file):
        client = connect()
        try:
            client.head_bucket(Bucket=file.bucket)  # some servers make a missing one for an upload
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                raise StorageError(f"{file}: no such bucket") from error
        # An upload in parts, without any: it asks for just the right that is needed.
        begun = client.create_multipart_upload(**place)
        with suppress(ClientError):  # to end it may need another right, and changes nothing
            client.abort_multipart_upload(**place, UploadId=begun["UploadId"])


def _keys(client: Any, place: RemoteFolder) -> Iterator[str]:
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=place.bucket, Prefix=place.prefix
    )
    for page in pages:
        yield from (item["Key"] for item in page.get("Contents", ()))


def _download(place: RemoteFolder, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with translated(place):
        client = connect()
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


def _upload(folder: Path, place: RemoteFolder) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files.sort(key=lambda path: path.name == "manifest.json")
    with translated(place):
        client = connect()
        for path in files:
            key = place.prefix + path.relative_to(folder).as_posix()
            client.upload_file(str(path), place.bucket, key)
