"""States from which a killed training loop goes on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xcflow.disk import claimed, replace_file, writable
from xcflow.errors import BusyError, StorageError
from xcflow.home import Home
from xcflow.progress import log

_STATE = "state.safetensors"


class Checkpoint:
    """One saved state, replaced atomically, in a folder that belongs to one piece of work.

    Args:
        step: Name of the step.
        key: Digest of all that determines the step's result; another key is another piece of work.
        every_seconds: Wall time between two saved states.
    """

    def __init__(self, step: str, key: str, every_seconds: float) -> None:
        self._step = step
        self._folder = Home.at().checkpoints / f"{step}-{key[:16]}"
        self._every = every_seconds
        self._last = time.monotonic()
        self._complained = False

    @contextmanager
    def claimed(self) -> Iterator[Self]:
        """Do the work of the block without another process at it; when it is done, forget it.

        Raises:
            BusyError: Another process does the same work.
        """
        with ExitStack() as claim:
            try:
                claim.enter_context(claimed(self._folder))
            except BusyError:
                raise BusyError(
                    f"{self._step}: another process trains just this ({self._folder}): "
                    "wait for its end"
                ) from None
            except StorageError as error:
                self._complain(error)
            yield self
            self.clear()

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._last >= self._every

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the saved state: all of it, or none if the process dies in between.

        Where it cannot be written that is said once and the work goes on: what was learned so far
        is worth more than a copy of it.
        """
        partial = self._folder / f"{_STATE}.partial"
        try:
            with writable(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                save_file(
                    {k: v.contiguous() for k, v in tensors.items()}, partial, _metadata(state)
                )
                replace_file(partial, self._folder / _STATE)
        except StorageError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            self._complain(error)
        self._last = time.monotonic()

    def _complain(self, error: StorageError) -> None:
        if not self._complained:
            log(f"warning: {error}; training goes on without a newer checkpoint")
        self._complained = True

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The saved tensors and state, or None where there is none that can be read."""
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
        shutil.rmtree(self._folder, ignore_errors=True)


def _metadata(state: dict[str, Any]) -> dict[str, str]:
    return {"state": json.dumps(state)}
