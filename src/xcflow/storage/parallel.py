"""Transfers side by side: the first failure ends them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import Any

from xcflow.storage.client import CONCURRENCY

Submit = Callable[..., "Future[Any]"]


@contextmanager
def side_by_side() -> Iterator[tuple[Submit, Event]]:
    """Threads for the block.

    Yields:
        What starts a call in one of them, and an event that long calls must heed: it is set when
        the block is left, however that is.
    """
    stop = Event()
    pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="storage")
    try:
        yield pool.submit, stop
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def finish(calls: list[Future[Any]]) -> list[Any]:
    """The results of calls in their order; the first failure is raised at once."""
    done, _ = wait(calls, return_when=FIRST_EXCEPTION)
    for call in done:
        call.result()
    return [call.result() for call in calls]
