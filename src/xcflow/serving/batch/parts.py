"""The finished parts of a job's answers, from which it goes on after a kill."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Self

from xcflow.disk import remove_leftovers, replace_file, write_text

STATE = "job.json"


@dataclass(frozen=True)
class Parts:
    """Files in a folder, numbered from 0; each is there only when it is whole.

    Attributes:
        folder: The folder; one process at a time may write it.
        ending: The ending of the files.
    """

    folder: Path
    ending: str

    @classmethod
    def of(cls, job: Mapping[str, Any], folder: Path, ending: str) -> Self:
        """The parts that a job has finished in ``folder``; those of another job are removed.

        Args:
            job: Everything that the bytes of the answers depend on; JSON values.
            folder: The folder, made where it is missing.
            ending: The ending of the files.
        """
        parts = cls(folder, ending)
        if parts._read_state() != job:
            if folder.exists():
                shutil.rmtree(folder)
            write_text(folder / STATE, json.dumps(job, indent=2) + "\n")
        remove_leftovers(folder, ".*.partial-*")
        return parts

    def finished(self) -> list[Path]:
        """The finished parts from the first one on, without a gap."""
        return list(takewhile(Path.is_file, map(self._path, count())))

    @contextmanager
    def writing(self, number: int) -> Iterator[Path]:
        """Yields a file to write; it becomes the part when the block ends without an error."""
        part = self._path(number)
        partial = part.with_name(f".{part.name}.partial-{os.getpid()}")
        try:
            yield partial
            replace_file(partial, part)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}{self.ending}"

    def _read_state(self) -> Any:
        try:
            return json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
