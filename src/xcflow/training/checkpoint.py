"""States from which a killed training loop goes on.

Of several ranks the first one alone writes and reads them, for all: ranks on other machines need
not see its disk.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from xcflow.disk import claimed, replace_file, writable
from xcflow.distributed.collectives import Dealt, text_of_first
from xcflow.distributed.world import ALONE, World
from xcflow.errors import BusyError, StorageError
from xcflow.home import Home
from xcflow.progress import log
from xcflow.storage import fetch_file, is_remote, listing, publish_file, remove_file
from xcflow.training.tensor_file import tensors_of_first, write_tensors

_STATE = "state.safetensors"
_MAX_SHARE = 0.1  # of the time goes into saving; large states are saved less often


class Checkpoint:
    """One saved state, replaced atomically, in a folder that belongs to one piece of work.

    Beside it stands the model of the best epoch so far: on disk, as it may be half as large as all
    else that training holds.

    Args:
        step: Name of the step.
        key: Digest of all that determines the step's result; another key is another piece of work.
        every_seconds: Wall time between two saved states, more where saving takes long; 0 saves
            whenever asked.
        uri: Where such folders stand; empty for the home. What stands under ``s3://`` outlives
            this machine: it is what counts, and the files in the home are copies.
        world: Ranks that train together; they save at the same time.
    """

    def __init__(
        self, step: str, key: str, every_seconds: float, uri: str = "", world: World = ALONE
    ) -> None:
        self._step = step
        name = f"{step}-{key[:16]}"
        self._remote = f"{uri.rstrip('/')}/{name}" if is_remote(uri) else ""
        here = Path(uri) if uri and not self._remote else Home.at().checkpoints
        self._folder = here / name
        self._every = every_seconds
        self._world = world
        self._last = time.monotonic()
        self._cost = 0.0  # seconds that the last save took
        self._kept: Path | None = None
        self._unwritten: dict[str, Tensor] | None = None  # what should stand in that file
        self._complained = False

    @contextmanager
    def claimed(self) -> Iterator[Self]:
        """Do the work of the block without another process at it; when it is done, forget it.

        Raises:
            BusyError: Another process does the same work.
        """
        with ExitStack() as claim:
            try:
                if self._world.first:
                    claim.enter_context(claimed(self._folder))
            except BusyError:
                raise BusyError(
                    f"{self._step}: another process trains just this ({self._folder}): "
                    "wait for its end"
                ) from None
            except StorageError as error:
                self._complain(error)
            self._world.meet()
            yield self
            self._world.meet()
            if self._world.first:
                self.clear()

    def due(self) -> bool:
        """Whether it is time to save."""
        pause = max(self._every, self._cost / _MAX_SHARE) if self._every else 0.0
        return time.monotonic() - self._last >= pause

    def save(
        self,
        tensors: dict[str, Tensor],
        state: dict[str, Any],
        dealt: Mapping[str, Dealt] | None = None,
    ) -> None:
        """Replace the saved state: all of it, or none if the process dies in between.

        Where it cannot be written that is said once and the work goes on: what was learned so far
        is worth more than a copy of it.

        Args:
            tensors: What this rank holds.
            state: The same on all ranks.
            dealt: Names of tensors that are dealt to the ranks, and how.
        """
        start = time.monotonic()
        try:
            if self._kept is not None and self._unwritten is not None:
                self._write(self._kept.name, self._unwritten, {}, {})
                self._unwritten = None
            self._write(_STATE, tensors, _metadata(state), dealt or {})
            # The state before may have needed an older model.
            if self._kept is not None and self._world.first:
                self._forget_all_but({_STATE, self._kept.name})
        except StorageError as error:
            self._complain(error)
        self._last = time.monotonic()
        self._cost = self._last - start

    def keep(
        self, tensors: dict[str, Tensor], epoch: int, dealt: Mapping[str, Dealt] | None = None
    ) -> None:
        """Write the model of an epoch that is the best so far, or hold it where that fails.

        Raises:
            StorageError: It fails, and what the first of several ranks would hold is not all.
        """
        self._kept, self._unwritten = self._folder / _best(epoch), None
        try:
            self._write(self._kept.name, tensors, {}, dealt or {})
        except StorageError as error:
            if not self._world.alone:
                raise
            self._unwritten = {name: tensor.clone() for name, tensor in tensors.items()}
            self._complain(error)

    def kept(self, epoch: int, dealt: Mapping[str, Dealt] | None = None) -> dict[str, Tensor]:
        """The model that ``keep`` got, memory-mapped where it was written.

        Args:
            epoch: Whose.
            dealt: Names of tensors of which each rank gets its part, and how.

        Raises:
            StorageError: It cannot be read.
        """
        kept = self._read_kept(epoch) if self._world.first else {}
        return tensors_of_first(self._world, kept, dealt or {})

    def _read_kept(self, epoch: int) -> dict[str, Tensor]:
        path = self._folder / _best(epoch)
        if path == self._kept and self._unwritten is not None:
            return self._unwritten
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"{path}: cannot be read ({error}): remove {self._folder} and start again"
            ) from error

    def _write(
        self,
        name: str,
        tensors: dict[str, Tensor],
        metadata: dict[str, str],
        dealt: Mapping[str, Dealt],
    ) -> None:
        partial = self._folder / f"{name}.partial"
        if not self._world.first:
            write_tensors(partial, tensors, metadata, dealt, self._world)
            return
        try:
            with writable(self._folder):
                write_tensors(partial, tensors, metadata, dealt, self._world)
                replace_file(partial, self._folder / name)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        if self._remote:
            publish_file(self._folder / name, f"{self._remote}/{name}")

    def _forget_all_but(self, names: Set[str]) -> None:
        for path in self._folder.glob("*"):
            if path.name not in names:
                path.unlink()
        # The state first: it may need the others.
        for file in reversed(listing(self._remote) if self._remote else []):
            if file.name not in names:
                remove_file(f"{self._remote}/{file.name}")

    def _bring(self) -> None:
        """Copy what stands in the remote folder to this machine."""
        files = listing(self._remote)
        if any(file.name == _STATE for file in files):
            shutil.rmtree(self._folder, ignore_errors=True)
            for file in files:
                fetch_file(f"{self._remote}/{file.name}", self._folder / file.name)

    def _complain(self, error: StorageError) -> None:
        if not self._complained:
            log(f"warning: {error}; training goes on without a newer checkpoint")
        self._complained = True

    def load(
        self, dealt: Mapping[str, Dealt] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The saved tensors and state, or None where there is none that can be read.

        Args:
            dealt: Names of tensors of which each rank gets its part, and how. In a world of one
                the tensors are memory-mapped.

        Raises:
            StorageError: A remote folder cannot be read: to begin anew might lose days.
        """
        saved = self._load() if self._world.first else None
        text = text_of_first(self._world, json.dumps(saved and saved[1]))
        if (state := json.loads(text)) is None:
            return None
        return tensors_of_first(self._world, saved[0] if saved else {}, dealt or {}), state

    def _load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        if self._remote:
            self._bring()
        path = self._folder / _STATE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return tensors, json.loads(file.metadata()["state"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            log(f"{path}: cannot be read ({error}): starting from the beginning")
            return None

    def clear(self) -> None:
        """Forget the state: the work is done."""
        try:
            self._forget_all_but(set())
        except (OSError, StorageError) as error:
            log(f"warning: {error}; the checkpoint of {self._step} stays")
        shutil.rmtree(self._folder, ignore_errors=True)


def _best(epoch: int | str) -> str:
    return f"best-{epoch}.safetensors"


def _metadata(state: dict[str, Any]) -> dict[str, str]:
    return {"state": json.dumps(state)}
