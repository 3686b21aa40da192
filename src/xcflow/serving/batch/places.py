"""Where a batch job reads, works and writes."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xcflow.disk import claimed, replace_file, writable
from xcflow.home import Home
from xcflow.storage import copy_name, fetch_file, is_remote, publish_file, require_publishable


@dataclass(frozen=True)
class Places:
    """The files and folders of the job that writes one output.

    Attributes:
        target: The output: a local path or ``s3://bucket/key``.
        folder: The job's own folder in the home, for what is remote; there only while needed.
        parts: Folder of the finished parts: beside a local output, else in ``folder``.
        whole: Where the output is joined: beside a local output, else in ``folder``.
    """

    target: str
    folder: Path
    parts: Path
    whole: Path

    @classmethod
    def of(cls, target: str, home: Home) -> Places:
        """The places of the job that writes ``target``."""
        if is_remote(target):
            folder = home.batches / copy_name(target)
            return cls(target, folder, folder / "parts", folder / "whole")
        path = Path(target)
        return cls(
            target,
            home.batches / copy_name(str(path.absolute())),
            path.with_name(f".{path.name}.parts"),
            path.with_name(f".{path.name}.partial-{os.getpid()}"),
        )

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Be the only job with this output, which is seen to be writable before it is worked for.

        Raises:
            BusyError: Another process writes it.
            StorageError: It cannot be written.
        """
        mine = self.folder if is_remote(self.target) else Path(self.target)
        with claimed(mine), writable(mine):
            if is_remote(self.target):
                require_publishable(self.target)
            elif mine.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(mine))
            try:
                yield
            finally:
                self.whole.unlink(missing_ok=True)

    @contextmanager
    def readable(self, source: str) -> Iterator[Path]:
        """A file of this machine with what stands behind ``source``; a copy goes in the end.

        Raises:
            StorageError: Nothing is there, or it cannot be read.
        """
        if not is_remote(source):
            yield Path(source)
            return
        copies = self.folder / "input"
        copy = copies / source.rpartition("/")[2]  # readers look at its ending, and name it
        try:
            fetch_file(source, copy)
            yield copy
        finally:
            shutil.rmtree(copies, ignore_errors=True)
            with suppress(OSError):  # it may hold parts
                self.folder.rmdir()

    def deliver(self) -> None:
        """Give the whole output its name.

        Raises:
            StorageError: It cannot be written there.
        """
        if is_remote(self.target):
            publish_file(self.whole, self.target)
        else:
            replace_file(self.whole, Path(self.target))

    def clear(self) -> None:
        """Remove everything but the output."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.parts, ignore_errors=True)
