"""Where the time of a step goes: named phases, measured beside the work and kept out of its files.

A step's files must be the same bytes whenever it runs, so its times are never among them: they are
handed to whoever ran the step. Outside of ``timed`` a phase measures nothing.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Self

# What of a step's time belongs to no phase.
OTHER = "other"


@dataclass(frozen=True)
class StepTimes:
    """Where the time of a step went.

    Attributes:
        seconds: Wall time of the step.
        phases: Name of a phase -> its seconds, ``outer/inner`` for a phase within another; times
            within inner phases are not counted twice, so that all add up to ``seconds``.
        peak_memory_mb: The largest resident memory of the process until the step's end.
    """

    seconds: float
    phases: Mapping[str, float]
    peak_memory_mb: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``."""
        return cls(**tree)


class Clock:
    """Charges the time that passes to the innermost open phase."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], float] = {}
        self._path: tuple[str, ...] = ()
        self._start = self._since = time.perf_counter()

    def enter(self, name: str) -> None:
        """Open a phase within the one that is open."""
        self._charge()
        self._path = (*self._path, name)

    def leave(self) -> None:
        """Close the innermost phase."""
        self._charge()
        self._path = self._path[:-1]

    def phases(self) -> dict[str, float]:
        """The seconds of each phase until now."""
        self._charge()
        return {"/".join(path) or OTHER: s for path, s in self._seconds.items()}

    def times(self) -> StepTimes:
        """What was measured until now, memory too, which takes the system up to a millisecond."""
        phases = self.phases()
        return StepTimes(self._since - self._start, phases, peak_memory_mb())

    def _charge(self) -> None:
        now = time.perf_counter()
        self._seconds[self._path] = self._seconds.get(self._path, 0.0) + now - self._since
        self._since = now


_clock: ContextVar[Clock | None] = ContextVar("clock", default=None)


@contextmanager
def timed() -> Iterator[Clock]:
    """Measure the phases of the block, those in this thread."""
    token = _clock.set(clock := Clock())
    try:
        yield clock
    finally:
        _clock.reset(token)


class phase:  # noqa: N801  # used like a function; a generator would cost several times as much
    """Charge the time of the block to a phase; about a microsecond.

    Args:
        name: A few words, without a slash.
    """

    __slots__ = ("_clock", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._clock = _clock.get()
        if self._clock is not None:
            self._clock.enter(self._name)

    def __exit__(self, *_: object) -> None:
        if self._clock is not None:
            self._clock.leave()


def peak_memory_mb() -> float:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
