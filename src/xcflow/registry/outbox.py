"""What is to be recorded, kept on disk until the tracking store has it.

Each record is a file of its own, written whole and removed when the store has answered. The records
of a store are sent in the order in which things happened, with the times at which they happened.
One may be sent twice (the answer got lost, the process was killed), so operations that record find
what they made before.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from xcflow.disk import claimed, write_text
from xcflow.errors import AccessError, StoreAwayError
from xcflow.home import Home
from xcflow.progress import log

_REFUSED = "refused"
_number = itertools.count()


@dataclass(frozen=True)
class Store:
    """Where a record is to go.

    Attributes:
        uri: The tracking store, without a password.
        experiment: Name of the experiment.
        joined: The run that the pipeline records into; empty where it makes its own.
    """

    uri: str
    experiment: str
    joined: str = ""


@dataclass(frozen=True)
class Record:
    """Something that happened.

    Attributes:
        store: Where it is to be recorded.
        operation: The function of ``xcflow.registry.operations`` that records it.
        arguments: Its arguments.
        time: When it happened, in seconds since 1970.
    """

    store: Store
    operation: str
    arguments: Mapping[str, Any]
    time: float = field(default_factory=time.time)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record of a file."""
        tree = json.loads(path.read_text(encoding="utf-8"))
        return cls(**tree | {"store": Store(**tree["store"])})


class Outbox:
    """The records of a home that its stores do not have yet.

    Args:
        home: The home folder.
    """

    def __init__(self, home: Home) -> None:
        self.folder = home.outbox

    def put(self, record: Record) -> Path:
        """Keep a record; returns its file.

        Raises:
            StorageError: It cannot be written.
        """
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_number):06d}.json"
        write_text(self.folder / name, json.dumps(asdict(record)) + "\n")
        return self.folder / name

    def waiting(self) -> list[Path]:
        """The files of all records, oldest first."""
        return sorted(self.folder.glob("*.json"))

    def stores(self) -> set[Store]:
        """The stores that are waited for."""
        return {record.store for path in self.waiting() if (record := _read(path))}

    def deliver(self, store: Store, act: Callable[[Record], Any]) -> dict[Path, Any]:
        """Send what waits for a store; what it refuses for good is put aside.

        Args:
            store: The store.
            act: Records one record and returns the answer.

        Returns:
            The file of a record that was sent -> the answer.

        Raises:
            StoreAwayError: The store is away; what is left stays for the next time.
            AccessError: The store refuses this user; what is left stays for one with more rights.
            StorageError: The outbox cannot be written.
        """
        answers: dict[Path, Any] = {}
        if not self.waiting():
            return answers
        with claimed(self.folder / "delivery", wait=True):
            for path in self.waiting():
                record = _read(path)
                if record is None or record.store != store:
                    continue
                try:
                    answers[path] = act(record)
                except (StoreAwayError, AccessError):  # may pass, or be mended
                    raise
                except Exception as error:  # noqa: BLE001  # it must not stop those that follow
                    self._put_aside(path, record, error)
                else:
                    path.unlink()
        return answers

    def _put_aside(self, path: Path, record: Record, error: Exception) -> None:
        place = self.folder / _REFUSED / path.name
        place.parent.mkdir(exist_ok=True)
        path.rename(place)
        reason = " ".join(str(error).split()) or type(error).__name__
        log(f"warning: {record.operation} was not recorded: {reason} (kept: {place})")


def _read(path: Path) -> Record | None:
    """The record of a file; None where it has just been sent, or is of another version."""
    try:
        return Record.read(path)
    except (OSError, ValueError, TypeError, KeyError):
        return None
