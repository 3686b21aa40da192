"""What files and folders need so that kills, power cuts and full disks cost nothing but time."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xcflow.errors import BusyError, StorageError, XcflowError

_FULL = "no space left: free some room and type the same command again"
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the disk quota is used up: free some room and type the same command again",
    errno.EFBIG: "the limit on the size of files is reached: raise it (ulimit -f)",
    errno.EACCES: "permission denied: choose a folder that you may write to",
    errno.EPERM: "permission denied: choose a folder that you may write to",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "a file stands where a folder is needed: remove it, or choose another folder",
    errno.EEXIST: "a file stands where a folder is needed: remove it, or choose another folder",
    errno.EISDIR: "a folder stands where a file is needed: remove it, or choose another name",
}
# How libraries that raise no OSError say that the disk is full.
_SAID_FULL = re.compile(r"No space left|disk is full|requested and \d+ written|write error in")
# How libraries written in Rust hand on the system's error.
_NUMBERED = re.compile(r"\(os error (\d+)\)")


def refusal(error: BaseException | str) -> str:
    """Why the disk refuses to be written to and what to do; empty where that is not the error."""
    numbered = _NUMBERED.search(str(error))
    number = int(numbered[1]) if numbered else getattr(error, "errno", None)
    if number in _REASONS:
        return _REASONS[number]
    return _FULL if _SAID_FULL.search(str(error)) else ""


@contextmanager
def writable(place: Path) -> Iterator[None]:
    """Turn what the disk refuses while ``place`` is written into one line.

    Raises:
        StorageError: What, why, and what to do.
    """
    try:
        yield
    except XcflowError:
        raise
    except Exception as error:
        other = (error.strerror or str(error)) if isinstance(error, OSError) else ""
        if not (reason := refusal(error) or other):
            raise
        file = getattr(error, "filename", None)
        if file and not Path(os.fsdecode(file)).absolute().is_relative_to(place.absolute().parent):
            raise StorageError(f"{file}: {reason}") from error
        raise StorageError(f"{place}: cannot be written: {reason}") from error


def sync(path: Path) -> None:
    """Bring a file, or a folder with all that is in it, to the disk itself.

    Without this a rename can outlive a power cut that the content does not.
    """
    for inner in path.iterdir() if path.is_dir() else ():
        sync(inner)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(source: Path, target: Path) -> None:
    """Give a finished file its name, which it has or has not after a power cut, never half."""
    sync(source)
    source.replace(target)
    _sync_entry(target)


def replace_folder(source: Path, target: Path) -> None:
    """Give a finished folder its name; a folder that stands there gives way first.

    A kill between the two renames leaves the old folder under another name; ``claimed`` puts it
    back.
    """
    require_no_file(target)
    sync(source)
    if target.exists():
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        target.rename(old)
        source.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        source.rename(target)
    _sync_entry(target)


def remove_folder(target: Path) -> None:
    """Remove a folder that is claimed, if it is there: whole or, killed meanwhile, not at all."""
    gone = target.with_name(f".{target.name}.partial-{os.getpid()}")
    with suppress(FileNotFoundError):
        target.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def require_no_file(path: Path) -> None:
    """Refuse a place for a folder where a file stands, with an ``OSError`` as the system's own."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Give a file that a library writes in the block the mode of any other new file.

    Some libraries write under a temporary name that only its owner may read, and rename it.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    yield
    path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Replace a small file: all of it, or nothing."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with writable(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            replace_file(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


@contextmanager
def claimed(target: Path, *, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes ``target``, and clear up after one that was killed.

    The claim ends with the process, however that ends.

    Args:
        target: A file or folder that is written under temporary names beside it.
        wait: Whether to wait for another process instead of refusing.

    Raises:
        BusyError: Another process is writing it.
        StorageError: Nothing can be written there.
    """
    path = target.with_name(f".{target.name}.lock")
    with writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path, wait)
    if descriptor is None:
        raise BusyError(
            f"{target}: is being written by another process: wait for its end, "
            "or choose another output"
        )
    try:
        _clear_up(target)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _lock(path: Path, wait: bool) -> int | None:
    """The descriptor of the locked file, None where another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Whoever held it before has removed it: then the lock is on a file without a name.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _clear_up(target: Path) -> None:
    """Remove what killed processes left beside ``target``, after putting an old folder back."""
    for old in sorted(target.parent.glob(f".{_literal(target.name)}.old-*")):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    remove_leftovers(target.parent, f".{_literal(target.name)}.partial-*")


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove files and folders whose writers are gone."""
    for partial in folder.glob(pattern):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _literal(name: str) -> str:
    """``name`` as a pattern that matches nothing else."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _sync_entry(path: Path) -> None:
    """Bring the name of a file or folder to the disk."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
