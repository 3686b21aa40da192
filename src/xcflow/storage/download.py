"""Files from S3: in parts, side by side, going on where an earlier process stopped."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

from xcflow.disk import replace_file, writable
from xcflow.errors import StorageError
from xcflow.storage.client import broken_bodies, error_code, pauses, translated
from xcflow.storage.parallel import finish, side_by_side
from xcflow.storage.places import RemoteFile
from xcflow.storage.upload import SHA256

PART = 8 << 20
_BLOCK = 1 << 20
# Answers that tell that an object is no longer what the listing said.
_CHANGED = frozenset({"PreconditionFailed", "NoSuchKey", "InvalidRange", "412", "404", "416"})


class ChangedError(StorageError):
    """An object was replaced or removed while it was read."""


@dataclass(frozen=True)
class Source:
    """An object in the state in which it is to be read.

    Attributes:
        file: Where it stands.
        size: Its bytes.
        etag: What the store calls this state of it.
        sha256: What it must hold; None where only the store knows, if anybody.
    """

    file: RemoteFile
    size: int
    etag: str
    sha256: str | None = None


Done = Callable[[Source, Path, Path, str], None]


def in_place(source: Source, target: Path, partial: Path, sha256: str) -> None:
    """Give a finished file its name."""
    replace_file(partial, target)


def download(client: Any, files: Iterable[tuple[Source, Path]], done: Done = in_place) -> None:
    """Read objects into files.

    A file appears when it is whole and its sha256 is right. Parts of large ones stay beside it
    until then, so that the same call, made again, goes on with what is missing.

    Args:
        client: The connection.
        files: Objects and where each goes.
        done: Gives a finished file its name: called with the object, the target, the whole file
            under a temporary name, and its sha256; from several threads.

    Raises:
        ChangedError: An object was changed meanwhile.
        StorageError: It is damaged, or cannot be written here, or the store refuses, or is away
            for longer than is waited.
    """
    damaged = _download(client, files, done)
    for damage in _download(client, damaged, done).values():
        raise StorageError(damage)


def _download(
    client: Any, files: Iterable[tuple[Source, Path]], done: Done
) -> dict[tuple[Source, Path], str]:
    """Read objects; returns what was wrong with some, which another attempt may read rightly."""
    with side_by_side() as (submit, stop):
        objects = {pair: _Object(client, *pair, done, stop) for pair in files}
        finish([submit(part) for each in objects.values() for part in each.open()])
    return {pair: each.damage for pair, each in objects.items() if each.damage}


class _Object:
    """An object on its way.

    ``.NAME.part`` holds what has come, ``.NAME.parts`` which object it is of and, line by line, the
    number and CRC of each part that is there: the disk may keep the one and lose the other.
    """

    def __init__(self, client: Any, source: Source, target: Path, done: Done, stop: Event) -> None:
        self.damage = ""  # what is wrong with what was read
        self._client = client
        self._source = source
        self._target = target
        self._done = done
        self._stop = stop
        self._partial = target.with_name(f".{target.name}.part")
        self._journal = target.with_name(f".{target.name}.parts")
        self._stored = ""  # the sha256 that the store keeps with the object
        self._there: set[int] = set()
        self._missing = 0
        self._lock = Lock()
        self._digest = hashlib.sha256()
        self._hashed = 0  # so many parts are in the digest
        self._hashing = Lock()

    def open(self) -> Iterator[Callable[[], None]]:
        """Calls that read the missing parts; the last one to end finishes the file."""
        size = self._source.size
        with writable(self._target):
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._there = self._kept() if size > PART else set()
            with self._partial.open("r+b" if self._there else "wb") as stream:
                stream.truncate(size)
            if size > PART and not self._there:
                self._journal.write_text(json.dumps(self._identity()) + "\n", encoding="utf-8")
        parts = [n for n in range(max(1, -(-size // PART))) if n not in self._there]
        self._missing = max(1, len(parts))
        if not parts:
            return iter([self._count])
        return iter([lambda number=number: self._read_part(number) for number in parts])

    def _identity(self) -> dict[str, Any]:
        return {**asdict(self._source), "part": PART}

    def _kept(self) -> set[int]:
        """Which parts an earlier process left, read again to be sure."""
        there: set[int] = set()
        try:
            first, *lines = self._journal.read_text(encoding="utf-8").splitlines()
            if json.loads(first) != self._identity():
                return there
            with self._partial.open("rb") as stream:
                for line in lines:
                    number, crc = map(int, line.split())
                    if zlib.crc32(os.pread(stream.fileno(), PART, number * PART)) == crc:
                        there.add(number)
        except (OSError, ValueError):  # a line that was cut off is the last one
            pass
        return there

    def _read_part(self, number: int) -> None:
        start, end = number * PART, min((number + 1) * PART, self._source.size)
        with writable(self._target), self._partial.open("r+b") as stream:
            # boto3's errors may be OSErrors, too: they must not pass for the disk's.
            with translated(self._source.file):
                crc = self._read_bytes(stream.fileno(), start, end)
            if self._source.size > PART:
                with self._journal.open("a", encoding="utf-8") as journal:
                    journal.write(f"{number} {crc}\n")
            self._there.add(number)
            self._hash(wait=False)
        self._count()

    def _read_bytes(self, descriptor: int, start: int, end: int) -> int:
        """Write bytes ``start`` to ``end`` of the object to the file; returns their CRC."""
        at, crc, waits = start, 0, pauses()
        while True:
            before = at
            try:
                for block in self._blocks(at, end):
                    block = block[: end - at]
                    os.pwrite(descriptor, block, at)
                    at, crc = at + len(block), zlib.crc32(block, crc)
                    if self._stop.is_set():
                        raise StorageError(f"{self._source.file}: is no longer wanted")
                if at == end:
                    return crc
                trouble: Exception = StorageError(
                    f"{self._source.file}: the store lists {self._source.size:,} bytes and sends "
                    "fewer: the object is damaged, publish it again"
                )
            except broken_bodies() as error:
                trouble = error
            if at > before:
                waits = pauses()  # what goes on slowly goes on
            pause = next(waits, None)
            if pause is None or self._stop.wait(pause):
                raise trouble

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        from botocore.exceptions import ClientError

        all_of_it = (start, end) == (0, self._source.size)
        try:
            answer = self._client.get_object(
                **self._source.file.place,
                IfMatch=f'"{self._source.etag}"',
                **({} if all_of_it else {"Range": f"bytes={start}-{end - 1}"}),
            )
        except ClientError as error:
            if error_code(error) in _CHANGED:
                raise ChangedError(f"{self._source.file}: was changed while it was read") from error
            raise
        self._stored = answer["Metadata"].get(SHA256, "")
        body = answer["Body"]
        try:
            yield from body.iter_chunks(_BLOCK)
        finally:
            body.close()

    def _count(self) -> None:
        with self._lock:
            self._missing -= 1
            if self._missing:
                return
        with writable(self._target):
            self._hash(wait=True)
            found = self._digest.hexdigest()
            self.damage = self._wrong(found)
            if self.damage:
                self._partial.unlink()
            else:
                self._done(self._source, self._target, self._partial, found)
            with suppress(FileNotFoundError):
                self._journal.unlink()

    def _hash(self, *, wait: bool) -> None:
        """Take the parts that are there into the digest, in their order.

        One thread does so while others read on: hashing in the end would make all wait.
        """
        if not self._hashing.acquire(blocking=wait):
            return
        try:
            with self._partial.open("rb") as stream:
                while self._hashed in self._there:
                    self._digest.update(os.pread(stream.fileno(), PART, self._hashed * PART))
                    self._hashed += 1
        finally:
            self._hashing.release()

    def _wrong(self, found: str) -> str:
        if self._source.sha256 not in (None, found):
            reason = "is not that in the manifest: the file is damaged: publish the folder again"
        elif self._stored not in ("", found):
            reason = "is not that of what was written: the file is damaged: write it again"
        else:
            return ""
        return f"{self._source.file}: its sha256 {reason}"
