"""How many cores a process may use, and numeric libraries that use no more.

Libraries count the cores that the process may be scheduled on. In a pod these are all of its node:
its limit is a quota of processor time, given to its control group (docs.kernel.org,
admin-guide/cgroup-v2 and scheduler/sched-bwc). More threads than the quota lets run make each other
wait.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

_MEMBERSHIP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_THREADS = "OMP_NUM_THREADS"  # heeded by OpenMP, OpenBLAS and Arrow when they are loaded
_held: ContextVar[int] = ContextVar("held", default=0)


def usable_cores() -> int:
    """As many cores as the process may be scheduled on and its quota lets it use, at least 1."""
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), quota())))


def quota(membership: Path = _MEMBERSHIP, groups: Path = _GROUPS) -> float:
    """The cores' worth of time that the process's control groups leave it; infinite without any.

    Args:
        membership: The file that names the groups of the process.
        groups: Where control groups are mounted.
    """
    return min((_limit(folder) for folder in _folders(membership, groups)), default=math.inf)


def use_cores() -> None:
    """Let libraries that are loaded later use the usable cores, unless their variable is set."""
    _sleep_while_waiting()
    os.environ.setdefault(_THREADS, str(usable_cores()))


def use_threads(count: int) -> None:
    """Let libraries use ``count`` threads: those that are loaded, and those that will be."""
    from threadpoolctl import threadpool_limits

    _sleep_while_waiting()
    os.environ[_THREADS] = str(count)
    threadpool_limits(count)


def _sleep_while_waiting() -> None:
    """Let threads that wait for others sleep.

    By default they spin, which on a machine that does anything else besides, as answering whoever
    asks from it, costs several times the run time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def allowed_threads() -> int:
    """As many threads as numeric libraries use, or as a block is held to."""
    if held := _held.get():
        return held
    asked = os.environ.get(_THREADS, "")
    return int(asked) if asked.isdecimal() and int(asked) else usable_cores()


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """Hold what the block starts itself to so many threads, because others work beside it."""
    token = _held.set(threads)
    try:
        yield
    finally:
        _held.reset(token)


def _folders(membership: Path, groups: Path) -> Iterator[Path]:
    """Of the process's groups, and of all above them, the folders that may state a quota.

    A container sees its own group as the root, whatever the group is called outside: a folder that
    a name leads to may be lacking.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            root = groups
        elif "cpu" in controllers.split(","):
            root = groups / "cpu"
        else:
            continue
        group = PurePosixPath(name.lstrip("/"))
        yield from (root / each for each in (group, *group.parents))


def _limit(folder: Path) -> float:
    """The quota that one group states: version 2 in one file, version 1 in two."""
    try:
        if (folder / "cpu.max").is_file():
            granted, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            granted, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii")
                for name in ("quota", "period")
            )
        return int(granted) / int(period) if granted != "max" and int(granted) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # none, or none that can be read
        return math.inf
