"""Work on another core while the caller goes on: for what leaves the interpreter for long.

A text alone keeps one core busy, and half of its time goes into scans that hold none of the
interpreter's locks. A plain thread, because a pool of the standard library takes a twentieth of an
answer's time to hand work over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from xcflow.cores import allowed_threads

T = TypeVar("T")
_Done = SimpleQueue[tuple[Any, BaseException | None]]
_Tasks = SimpleQueue[tuple[Callable[[], Any], _Done]]


def aside(work: Callable[[], T]) -> Callable[[], T]:
    """Begin some work, if the process may use another core.

    Returns:
        What waits for it and gives its result, or raises what it raised; to be called once.
    """
    if allowed_threads() == 1:
        return work
    done: _Done = SimpleQueue()
    _waiting().put((work, done))

    def result() -> T:
        value, error = done.get()
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    return result


@cache
def _waiting() -> _Tasks:
    """What waits for the thread."""
    waiting: _Tasks = SimpleQueue()
    Thread(target=_run, args=(waiting,), name="aside", daemon=True).start()
    return waiting


def _run(waiting: _Tasks) -> None:
    while True:
        work, done = waiting.get()
        try:
            done.put((work(), None))
        except BaseException as error:  # noqa: BLE001  # goes to who waits for the result
            done.put((None, error))
        del work, done  # keeps nothing alive while it waits


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_waiting.cache_clear)
