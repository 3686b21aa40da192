"""Whole folders and large files here and under ``s3://``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xcflow.artifact import MANIFEST, read_manifest
from xcflow.disk import claimed, replace_folder, writable
from xcflow.errors import StorageError
from xcflow.home import Home
from xcflow.storage.cache import Cache, limit_bytes
from xcflow.storage.client import connect, error_code, translated
from xcflow.storage.download import ChangedError, Source, download
from xcflow.storage.files import Listed, get, list_remote, put_if_absent, readable
from xcflow.storage.places import RemoteFile, RemoteFolder, copy_name, is_remote
from xcflow.storage.snapshot import Snapshot, named_files
from xcflow.storage.upload import Sending, is_there, upload

# How often a folder is read anew that changes while it is read.
_ATTEMPTS = 3


def fetch(uri: str | Path, into: Path, *, complete: bool = False) -> Path:
    """Make the folder behind a URI readable on this machine.

    Args:
        uri: A local path or ``s3://bucket/prefix``.
        into: Folder of copies, see ``Cache``. A copy stays as it is until the process ends; where
            the content behind the URI was replaced, another call gives another folder.
        complete: Whether it must have a manifest, as what a step wrote has.

    Returns:
        A local path itself, or the folder of the copy. Where the folder has a manifest, each file
        is what it says.

    Raises:
        StorageError: Nothing is there, or it is not whole, or cannot be read or copied.
    """
    if not is_remote(uri):
        path = Path(uri)
        if not path.exists():
            raise StorageError(f"{path}: no such file or folder")
        return path
    folder, cache = RemoteFolder.of(uri), Cache(into, limit_bytes())
    with translated(folder):
        client = connect()
        for _ in range(_ATTEMPTS):
            snapshot = Snapshot.of(client, folder, complete=complete)
            with suppress(ChangedError):
                return cache.folder(snapshot.name, snapshot.files, client)
    raise StorageError(f"{folder}: changes all the time: try again when it is finished")


def exists(uri: str | Path) -> bool:
    """Whether anything stands behind a URI.

    Raises:
        StorageError: A remote store cannot be asked.
    """
    if not is_remote(uri):
        return Path(uri).exists()
    folder = RemoteFolder.of(uri)
    with translated(folder):
        answer = connect().list_objects_v2(Bucket=folder.bucket, Prefix=folder.prefix, MaxKeys=1)
    return bool(answer.get("Contents"))


def publish(folder: Path, uri: str | Path) -> None:
    """Copy a folder to a URI.

    A folder with a manifest takes the place of one that stands there, and is never seen half:
    while files are written a remote folder has no manifest, which comes last. Where the very same
    folder stands there nothing happens. Of any other folder, files of the same names are replaced
    and others stay.

    Raises:
        ArtifactError: The folder's manifest cannot be read.
        StorageError: The folder cannot be read or is not what its manifest says, or the target
            cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder")
    whole = (folder / MANIFEST).is_file()
    if is_remote(uri):
        place = RemoteFolder.of(uri)
        with readable(folder), translated(place):
            (_publish_whole if whole else _publish_files)(connect(), folder, place)
    elif not (whole and _same(folder, Path(uri))):
        _publish_here(folder, Path(uri), keep=not whole)


@contextmanager
def delivered(uri: str | Path, home: Home) -> Iterator[Path]:
    """The local folder to write what is to stand behind a URI, whither it goes in the end.

    Raises:
        BusyError: Another process of this home writes the same.
        StorageError: It cannot be written there, which is tried before the block.
    """
    if not is_remote(uri):
        yield Path(uri)
        return
    require_publishable(str(RemoteFolder.of(uri).file(MANIFEST)))
    work = home.outputs / copy_name(str(uri))
    output = work / "output"
    with claimed(work):
        yield output
        try:
            publish(output, uri)
        except StorageError as error:
            raise StorageError(f"{error}; what was written is kept in {output}") from error
        shutil.rmtree(work, ignore_errors=True)


def fetch_file(uri: str, target: Path) -> None:
    """Copy a remote file to this machine, through no more memory than a few blocks.

    What has come of a large file stays beside the target where the copying ends early, and the
    next call goes on from there.

    Args:
        uri: ``s3://bucket/key``.
        target: The copy, which appears only when whole.

    Raises:
        StorageError: Nothing is there, or it cannot be read or copied.
    """
    from botocore.exceptions import ClientError

    file = RemoteFile.of(uri)
    with translated(file):
        client = connect()
        try:
            facts = client.get_object(**file.place)  # unlike head_object it says what is wrong
        except ClientError as error:
            if error_code(error) == "NoSuchKey":
                raise StorageError(f"{file}: no such file") from error
            raise
        facts["Body"].close()
        source = Source(file, facts["ContentLength"], facts["ETag"].strip('"'))
        download(client, [(source, target)])


def publish_file(source: Path, uri: str) -> None:
    """Copy a file to ``s3://bucket/key``, where it appears only when whole.

    Raises:
        StorageError: It cannot be written there.
    """
    file = RemoteFile.of(uri)
    with readable(source), translated(file):
        upload(connect(), [Sending(source, file)])


def require_publishable(uri: str) -> None:
    """Refuse ``s3://bucket/key`` early where ``publish_file`` would be refused later.

    Raises:
        StorageError: It cannot be written there.
    """
    from botocore.exceptions import ClientError

    file = RemoteFile.of(uri)
    with translated(file):
        client = connect()
        try:
            client.head_bucket(Bucket=file.bucket)  # some servers make a missing one for an upload
        except ClientError as error:
            if error_code(error) == "404":
                raise StorageError(f"{file}: no such bucket") from error
        # An upload in parts, without any: it asks for just the right that is needed.
        begun = client.create_multipart_upload(**file.place)
        with suppress(ClientError):  # to end it may need another right, and changes nothing
            client.abort_multipart_upload(**file.place, UploadId=begun["UploadId"])


def _publish_files(client: Any, folder: Path, place: RemoteFolder) -> None:
    """Send a folder that has no manifest; those of folders inside it come last."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    for last in (False, True):
        batch = [name for name in names if (name.name == MANIFEST) is last]
        upload(client, [Sending(folder / n, place.file(n.as_posix())) for n in batch])


def _publish_whole(client: Any, folder: Path, place: RemoteFolder) -> None:
    """Send a folder with a manifest: that goes first where it is an old one, and comes last."""
    files = read_manifest(folder).files
    content = (folder / MANIFEST).read_bytes()
    manifest = place.file(MANIFEST)
    there = {file.name: file for file in list_remote(client, place)}
    old = get(client, manifest) if MANIFEST in there else None
    if old == content and all(_size_is(folder / name, there.get(name)) for name in files):
        return
    if old is not None:
        client.delete_object(**manifest.place)
    sendings = [Sending(folder / name, place.file(name), digest) for name, digest in files.items()]
    known = {place.file(name) for name in files if _size_is(folder / name, there.get(name))}
    upload(
        client, [each for each in sendings if each.file not in known or not is_there(client, each)]
    )
    for name in _named(old, place) - set(files):
        client.delete_object(**place.file(name).place)
    if not put_if_absent(client, manifest, content) and get(client, manifest) != content:
        raise StorageError(
            f"{place}: another process wrote another folder there at the same time: write it again"
        )


def _named(manifest: bytes | None, place: RemoteFolder) -> set[str]:
    """The files of an old manifest, none where it cannot be read."""
    with suppress(StorageError):
        return set(named_files(manifest or b"{}", place) or ())
    return set()


def _size_is(path: Path, listed: Listed | None) -> bool:
    return listed is not None and listed.size == path.stat().st_size


def _same(folder: Path, target: Path) -> bool:
    """Whether a local folder is there already."""
    manifest = target / MANIFEST
    if not manifest.is_file() or manifest.read_bytes() != (folder / MANIFEST).read_bytes():
        return False
    names = read_manifest(folder).files
    return all(
        (target / name).is_file()
        and (target / name).stat().st_size == (folder / name).stat().st_size
        for name in names
    )


def _publish_here(folder: Path, target: Path, *, keep: bool) -> None:
    """Copy a folder to another place of this machine, where it appears only when whole."""
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        with claimed(target), writable(target):
            # Modes are not copied: files of the cache are read-only, copies of them are not.
            for source in (target, folder) if keep and target.exists() else (folder,):
                shutil.copytree(source, partial, dirs_exist_ok=True, copy_function=shutil.copyfile)
            replace_folder(partial, target)
    except shutil.Error as error:
        raise StorageError(f"{target}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
