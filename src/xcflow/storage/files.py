"""Small files here and under ``s3://``: read, created at most once, replaced, removed, listed."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from xcflow.disk import replace_file as rename
from xcflow.disk import writable
from xcflow.errors import StorageError
from xcflow.storage.client import broken_bodies, connect, error_code, pauses, translated
from xcflow.storage.places import RemoteFile, RemoteFolder, is_remote

# What one file may hold that is read into memory as a whole.
LARGEST = 64 << 20
# Tells whether an object is the one that this very call created.
_WRITER = "xcflow-writer"


class Listed(NamedTuple):
    """A file of a folder, by what a listing tells without reading it.

    Attributes:
        name: Its path relative to the folder (POSIX).
        size: Its bytes.
        identity: Another one where the content was replaced: the ETag; on this machine inode and
            time of the last change.
    """

    name: str
    size: int
    identity: str


def read_file(uri: str | Path) -> bytes | None:
    """The content of a small file, None where there is none.

    Raises:
        StorageError: It cannot be read, or holds more than ``LARGEST`` bytes.
    """
    if is_remote(uri):
        file = RemoteFile.of(uri)
        with translated(file):
            content = get(connect(), file)
    else:
        with readable(Path(uri)):
            content = _read(Path(uri))
    if content is not None and len(content) > LARGEST:
        raise StorageError(f"{uri}: holds more than {LARGEST >> 20} MiB, which no such file does")
    return content


def create_file(uri: str | Path, content: bytes) -> bool:
    """Write a file where there is none.

    Of several that try at the same time one succeeds, and the file appears only when whole.

    Returns:
        Whether it was created; False where one stands there already.

    Raises:
        StorageError: It cannot be written.
    """
    if is_remote(uri):
        file = RemoteFile.of(uri)
        with translated(file):
            return put_if_absent(connect(), file, content)
    with _written(Path(uri), content) as partial:
        try:
            os.link(partial, uri)
        except FileExistsError:
            return False
        _sync_folder(Path(uri).parent)
    return True


def replace_file(uri: str | Path, content: bytes) -> None:
    """Write a file, whatever stands there; it holds all the old or all the new content.

    Raises:
        StorageError: It cannot be written.
    """
    if is_remote(uri):
        file = RemoteFile.of(uri)
        with translated(file):
            connect().put_object(**file.place, Body=content)
        return
    with _written(Path(uri), content) as partial:
        rename(partial, Path(uri))


def remove_file(uri: str | Path) -> None:
    """Remove a file; where there is none, nothing happens.

    Raises:
        StorageError: It cannot be removed.
    """
    if is_remote(uri):
        file = RemoteFile.of(uri)
        with translated(file):
            connect().delete_object(**file.place)
        return
    with writable(Path(uri)):
        Path(uri).unlink(missing_ok=True)


def listing(uri: str | Path) -> list[Listed]:
    """The files of a folder by name, at any depth; none where there is no such folder.

    Raises:
        StorageError: It cannot be listed.
    """
    if is_remote(uri):
        folder = RemoteFolder.of(uri)
        with translated(folder):
            return list_remote(connect(), folder)
    with readable(Path(uri)):
        return sorted(_walk(Path(uri)))


def list_remote(client: Any, folder: RemoteFolder) -> list[Listed]:
    """The files of a remote folder; objects that only show a folder in consoles are left out."""
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=folder.bucket, Prefix=folder.prefix
    )
    return [
        Listed(item["Key"].removeprefix(folder.prefix), item["Size"], item["ETag"].strip('"'))
        for page in pages
        for item in page.get("Contents", ())
        if not item["Key"].endswith("/")
    ]


def _walk(folder: Path) -> Iterator[Listed]:
    for path in folder.rglob("*"):
        if path.is_file():
            facts = path.stat()
            identity = f"{facts.st_ino:x}-{facts.st_mtime_ns:x}"
            yield Listed(path.relative_to(folder).as_posix(), facts.st_size, identity)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST + 1)
    except FileNotFoundError:
        return None


def get(client: Any, file: RemoteFile) -> bytes | None:
    """The content of a small object, None where there is none."""
    from botocore.exceptions import ClientError

    waits = pauses()
    while True:
        try:
            content: bytes = client.get_object(**file.place)["Body"].read(LARGEST + 1)
            return content
        except ClientError as error:
            if error_code(error) == "NoSuchKey":
                return None
            raise
        except broken_bodies():
            pause = next(waits, None)
            if pause is None:
                raise
            time.sleep(pause)


def put_if_absent(client: Any, file: RemoteFile, content: bytes) -> bool:
    """Create an object; one that an attempt of this very call created counts as created."""
    from botocore.exceptions import ClientError

    writer = uuid.uuid4().hex
    waits = pauses()
    while True:
        try:
            client.put_object(
                **file.place, Body=content, IfNoneMatch="*", Metadata={_WRITER: writer}
            )
            return True
        except ClientError as error:
            code, pause = error_code(error), next(waits, None)
            if code == "PreconditionFailed":
                # boto3 asks again where an answer was lost: then what stands there may be ours.
                return bool(_metadata(client, file).get(_WRITER) == writer)
            if code != "ConditionalRequestConflict" or pause is None:
                raise
            time.sleep(pause)


def _metadata(client: Any, file: RemoteFile) -> dict[str, str]:
    from botocore.exceptions import ClientError

    try:
        metadata: dict[str, str] = client.head_object(**file.place)["Metadata"]
    except ClientError as error:
        if error_code(error) == "404":  # removed since
            return {}
        raise
    return metadata


@contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    """The content on the disk under another name beside ``path``, for the block."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    with writable(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            with partial.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            yield partial
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the disk refuses while ``path`` is read into one line.

    Raises:
        StorageError: What and why.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise StorageError(f"{where}: cannot be read: {error.strerror or error}") from error
