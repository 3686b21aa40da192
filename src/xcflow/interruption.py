"""Ctrl-C and SIGTERM: the first ends work in good order, another of its kind at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], Any]


class Interruption(BaseException):
    """Somebody asked the process to end.

    It is no ``Exception``, so that nothing takes it for a failure of its own.

    Args:
        number: The signal that came.
        what: What it ended, in words.
    """

    def __init__(self, number: int, what: str = "interrupted") -> None:
        super().__init__(f"{what}: type the same command again to go on")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell would say of a process that the signal ended."""
        return 128 + self.number


@contextmanager
def interruptible(handle: Handler | None = None) -> Iterator[None]:
    """Let SIGINT and SIGTERM raise ``Interruption`` in the block, or do what ``handle`` does.

    A signal that the process was started to ignore (nohup) stays ignored. Outside the main thread
    signals cannot be handled, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle or _interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # A terminal and a runner may both tell the same process to end: that is one interruption.
    for other in set(SIGNALS) - {number}:
        signal.signal(other, _overhear)  # Python complains where one comes just before SIG_IGN
    raise Interruption(number)


def _overhear(number: int, frame: FrameType | None) -> None:
    """Do nothing about a signal."""


@contextmanager
def held_back(*, once: bool = True) -> Iterator[Callable[[], bool]]:
    """Keep a first interruption from breaking into the block; it has its effect after it.

    Args:
        once: Whether a second one of its kind breaks in; not where several processes may pass on
            the same one.

    Yields:
        Whether one has come: the block should end soon.
    """
    came: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if once and number in came:
            came.clear()
            _interrupt(number, frame)
        came.append(number)

    with interruptible(hold):
        yield lambda: bool(came)
    if came:
        signal.raise_signal(came[0])
        raise Interruption(came[0])
