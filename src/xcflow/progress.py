"""Progress of long loops: a moving bar on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

# Seconds between two plain lines; who shows them on a live line of its own asks for more of them
# by the environment.
LINE_INTERVAL_S = 15.0
INTERVAL_VARIABLE = "XCFLOW_PROGRESS_INTERVAL"


class Advance(Protocol):
    """Called by a loop to report ``count`` finished units and an optional short remark."""

    def __call__(self, count: int = 1, remark: str = "") -> None:  # noqa: D102
        ...


# Whether this process speaks; of several that share a piece of work one does.
_speaks: ContextVar[bool] = ContextVar("speaks", default=True)


def log(message: str) -> None:
    """Write one plain line to standard error."""
    if _speaks.get():
        print(message, file=sys.stderr, flush=True)


@contextmanager
def silence() -> Iterator[None]:
    """Write no lines and show no progress while the block runs."""
    token = _speaks.set(False)
    try:
        yield
    finally:
        _speaks.reset(token)


@contextmanager
def progress(title: str, total: int, unit: str = "it") -> Iterator[Advance]:
    """Show the progress of ``total`` units of work with rate and time left.

    Args:
        title: What is being done.
        total: Number of units; the caller advances by that many.
        unit: Name of a unit in the plural, for the rate.
    """
    if sys.stderr.isatty() and _speaks.get():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        with _lines(title, total, unit) as advance:
            yield advance


@contextmanager
def _bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[rate]:,.0f} " + unit + "/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total, remark="", rate=0.0)
        start = time.monotonic()
        done = 0

        def advance(count: int = 1, remark: str = "") -> None:
            nonlocal done
            done += count
            rate = done / max(time.monotonic() - start, 1e-6)
            bars.update(task, advance=count, rate=rate)
            if remark:
                bars.update(task, remark=remark)

        yield advance


@contextmanager
def _lines(title: str, total: int, unit: str) -> Iterator[Advance]:
    interval = float(os.environ.get(INTERVAL_VARIABLE) or LINE_INTERVAL_S)
    start = last = time.monotonic()
    done = 0
    note = ""

    def advance(count: int = 1, remark: str = "") -> None:
        nonlocal done, last, note
        done += count
        note = remark or note
        now = time.monotonic()
        if now - last >= interval and done < total:
            last = now
            rate = done / (now - start)
            left = (total - done) / max(rate, 1e-6)
            log(f"{title}: {done:,}/{total:,} {unit}, {rate:,.0f}/s, {left:,.0f} s left {note}")

    yield advance
    seconds = time.monotonic() - start
    log(f"{title}: {done:,} {unit} in {seconds:,.1f} s {note}".rstrip())
