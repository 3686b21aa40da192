"""The processes (ranks) that share a piece of work, as torchrun tells each of them.

One rule says what belongs to whom, of documents, labels, tokens and blocks alike: they are dealt
like cards, row ``r`` to rank ``r % size``. Neighbours are alike (frequent words have the lowest
numbers, catalogues are sorted), so each rank gets its share of the heavy ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import numpy as np
from numpy.typing import NDArray

from xcflow.errors import ConfigError, DistributedError

# A rank that is gone is noticed at once, by its connections. This long one may be waited for that
# works alone: the first one, while it clusters the documents.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """The ranks of a piece of work, seen from one of them.

    Attributes:
        rank: Which one this process is, from 0.
        size: How many there are; a world of one needs no process group and costs nothing.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls) -> Self:
        """What torchrun says in RANK and WORLD_SIZE; without them the process is alone.

        Raises:
            ConfigError: They make no sense.
        """
        rank, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
        if not rank and not size:
            return cls()
        if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
            raise ConfigError(
                f"RANK={rank!r} and WORLD_SIZE={size!r} do not name a process of a group: "
                "start it by torchrun, or unset both"
            )
        return cls(int(rank), int(size))

    @property
    def alone(self) -> bool:
        """Whether there is no other rank."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this rank speaks for all: it alone writes checkpoints, outputs and the log."""
        return self.rank == 0

    def dealt(self, count: int) -> NDArray[np.int64]:
        """The rows of ``count`` that belong to this rank, rising."""
        return np.arange(self.rank, count, self.size)

    def columns(self, count: int) -> slice:
        """The columns of ``count`` that belong to this rank: neighbours, for they are alike."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def meet(self) -> None:
        """Wait until all ranks are here."""
        if not self.alone:
            import torch.distributed as ranks

            ranks.barrier()

    def share(self, count: int) -> int:
        """How many of ``count`` rows belong to this rank."""
        return len(range(self.rank, count, self.size))


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """The world that the environment names, with its ranks connected while the block runs.

    Raises:
        DistributedError: The others do not come.
    """
    world = World.of_environment()
    if world.alone:
        yield world
        return
    import torch.distributed as ranks

    try:
        # Training takes place on processors. TORCHELASTIC_* and MASTER_* say where to meet.
        ranks.init_process_group("gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DistributedError(
            f"rank {world.rank} of {world.size} did not meet the others: {reason}"
        ) from error
    try:
        yield world
    finally:
        ranks.destroy_process_group()


def processes_here() -> int:
    """How many ranks share this machine, and so its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
