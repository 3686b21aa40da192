"""Copies of remote folders on this machine, each content once, and no more than fits.

In the cache's folder::

    NAME-IDENTITY/              a whole folder: hard links to contents
    .NAME-IDENTITY.use          locked by each process that reads that folder; its time: last use;
                                in it: since which start of the machine the folder is known good
    .NAME-IDENTITY.unfinished/  what has come so far of a folder
    content/SHA256              a file's content
    known/DIGEST                the sha256 of an object that the store has none for

Nothing is brought to the disk itself, which may be slower than the network. Instead contents are
checked again before they are used after a new start of the machine.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xcflow.artifact import json_digest, sha256_file
from xcflow.disk import claimed, remove_folder, remove_leftovers, writable, write_text
from xcflow.errors import BusyError, StorageError
from xcflow.storage.download import Source, download

LIMIT_VARIABLE = "XCFLOW_CACHE_GIB"
_LIMIT_GIB = 20.0
# Folders that this process reads: their locks, held until it ends.
_held: dict[Path, int] = {}


def limit_bytes() -> int:
    """How much the cache may hold: ``$XCFLOW_CACHE_GIB``, else 20 GiB.

    Raises:
        StorageError: The variable holds no such number.
    """
    text = os.environ.get(LIMIT_VARIABLE) or str(_LIMIT_GIB)
    try:
        if (gib := float(text)) >= 0:
            return int(gib * 2**30)
    except (ValueError, OverflowError):
        pass
    raise StorageError(f"{LIMIT_VARIABLE}={text}: expected a number of GiB, 0 or more")


class Cache:
    """The copies in one folder; any number of processes may use it at the same time.

    Args:
        root: The folder.
        limit: Bytes that contents may take. Folders that were not used for longest go first; one
            that a process reads stays, whatever the limit.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._contents = root / "content"
        self._known = root / "known"
        self._limit = limit

    def folder(self, name: str, files: Mapping[str, Source], client: Any) -> Path:
        """The whole copy of a folder, which stays until the process ends.

        Args:
            name: Its name here, another one for another content.
            files: Relative path (POSIX) -> the object.
            client: The connection to the store.

        Raises:
            StorageError: It cannot be read or copied; see ``download``.
        """
        target = self._root / name
        while not self._hold(target):
            with claimed(target, wait=True), writable(target):
                if not _is_good(target):
                    self._make(target, files, client)
        return target

    def _make(self, target: Path, files: Mapping[str, Source], client: Any) -> None:
        unfinished = _unfinished(target)
        if target.exists():
            target.rename(unfinished)
        places = {_inside(unfinished, name, source): source for name, source in files.items()}
        unfinished.mkdir(exist_ok=True)
        os.utime(unfinished)
        missing = [(source, path) for path, source in places.items() if not self._has(source, path)]
        self.make_room(sum(source.size for source, _ in missing))
        download(client, missing, self._keep)
        _use(target).write_text(_start_of_machine(), encoding="ascii")
        unfinished.rename(target)

    def _has(self, source: Source, path: Path) -> bool:
        """Whether a file is there, or its content is, which is then linked to."""
        sha256 = source.sha256 or _text(self._note(source))
        if not sha256:
            return False
        if path.is_file() and sha256_file(path) == sha256:
            return True
        path.unlink(missing_ok=True)
        content = self._contents / sha256
        try:
            if sha256_file(content) == sha256:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.link(content, path)
                return True
            content.unlink()
        except FileNotFoundError:  # also where another process makes room
            pass
        return False

    def _keep(self, source: Source, target: Path, partial: Path, sha256: str) -> None:
        """Give a content that came its place, and the folder a link to it."""
        content = self._contents / sha256
        self._contents.mkdir(exist_ok=True)
        partial.chmod(0o444)  # what is written into one folder would change others
        target.unlink(missing_ok=True)
        os.link(partial, target)  # first: a content without a link is free to go
        partial.replace(content)
        if source.sha256 is None:
            write_text(self._note(source), sha256)

    def _note(self, source: Source) -> Path:
        identity = [str(source.file), source.size, source.etag]
        return self._known / json_digest(identity)

    def _hold(self, target: Path) -> bool:
        """Keep a folder from going until the process ends; whether it is there."""
        if target not in _held:
            try:
                lock = os.open(_use(target), os.O_RDWR)
            except FileNotFoundError:
                return False
            fcntl.flock(lock, fcntl.LOCK_SH)
            _held[target] = lock
        with suppress(FileNotFoundError):
            same = os.path.samestat(os.fstat(_held[target]), _use(target).stat())
            if same and _is_good(target):
                os.utime(_use(target))
                return True
        os.close(_held.pop(target))
        return False

    def make_room(self, incoming: int) -> None:
        """Remove what was not used for longest until so many bytes more are within the limit."""
        remove_leftovers(self._root, ".*.partial-*")
        candidates = sorted(self._candidates())
        self._drop_contents(self._size() + incoming - self._limit)
        for _, path in candidates:
            excess = self._size() + incoming - self._limit
            if excess <= 0:
                return
            if _drop(path):
                self._drop_contents(excess)

    def _candidates(self) -> Iterator[tuple[float, Path]]:
        """The time of the last use of each folder, whole or not."""
        for pattern in (".*.use", ".*.unfinished"):
            for path in self._root.glob(pattern):
                with suppress(FileNotFoundError):
                    yield path.stat().st_mtime, path

    def _size(self) -> int:
        files = [*self._contents.glob("*"), *self._root.glob(".*.unfinished/**/.*.part")]
        return sum(facts.st_blocks * 512 for path in files if (facts := _facts(path)))

    def _drop_contents(self, excess: int) -> None:
        """Remove contents of no folder, those that came first, until so many bytes are free."""
        for facts, path in sorted(
            ((facts, path) for path in self._contents.glob("*") if (facts := _facts(path))),
            key=lambda pair: pair[0].st_mtime,
        ):
            if excess <= 0:
                return
            if facts.st_nlink == 1:
                path.unlink(missing_ok=True)
                excess -= facts.st_blocks * 512


def _drop(path: Path) -> bool:
    """Remove a folder, given by its lock or by its unfinished self; False where it is in use."""
    name = path.name.removeprefix(".").rpartition(".")[0]
    target = path.with_name(name)
    try:
        with claimed(target), _unused(target) as free:
            if not free:
                return False
            shutil.rmtree(_unfinished(target), ignore_errors=True)
            remove_folder(target)
            _use(target).unlink(missing_ok=True)
            return True
    except BusyError:
        return False


@contextmanager
def _unused(target: Path) -> Iterator[bool]:
    """Keep others from beginning to read a folder; yields whether nobody does."""
    lock = os.open(_use(target), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(lock)


def _is_good(target: Path) -> bool:
    """Whether a folder is there, and whole since the machine's start at the earliest."""
    return target.is_dir() and _text(_use(target)) == _start_of_machine()


def _start_of_machine() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def _use(target: Path) -> Path:
    return target.with_name(f".{target.name}.use")


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.unfinished")


def _facts(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _inside(folder: Path, name: str, source: Source) -> Path:
    """The path of ``name`` in ``folder``; a key may hold anything, also ``../``."""
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()):
        raise StorageError(f"{source.file}: the key leads out of its folder: rename it")
    return target
