"""States from which a killed training loop goes on."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from xcflow.errors import StorageError
from xcflow.home import Home
from xcflow.progress import log

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
    """

    def __init__(self, step: str, key: str, every_seconds: float) -> None:
        self._folder = Home.at().checkpoints / f"{step}-{key[:16]}"
        self._every = every_seconds
        self._last = time.monotonic()
        self._cost = 0.0  # seconds that the last save took
        self._kept: Path | None = None

    def due(self) -> bool:
        """Whether it is time to save."""
        pause = max(self._every, self._cost / _MAX_SHARE) if self._every else 0.0
        return time.monotonic() - self._last >= pause

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the saved state: all of it, or none if the process dies in between.

        Raises:
            StorageError: It cannot be written.
        """
        start = time.monotonic()
        self._write(_STATE, tensors, _metadata(state))
        if self._kept is not None:  # the state before may have needed an older one
            for path in set(self._folder.glob(_best("*"))) - {self._kept}:
                path.unlink()
        self._last = time.monotonic()
        self._cost = self._last - start

    def keep(self, tensors: dict[str, Tensor], epoch: int) -> None:
        """Write the model of an epoch that is the best so far.

        Raises:
            StorageError: It cannot be written.
        """
        self._write(_best(epoch), tensors, {})
        self._kept = self._folder / _best(epoch)

    def kept(self, epoch: int) -> dict[str, Tensor]:
        """The model that ``keep`` wrote, memory-mapped.

        Raises:
            StorageError: It cannot be read.
        """
        path = self._folder / _best(epoch)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"{path}: cannot be read ({error}): remove {self._folder} and start again"
            ) from error

    def _write(self, name: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        partial = self._folder / f"{name}.partial"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata)
            partial.replace(self._folder / name)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{partial}: the checkpoint cannot be written: {error}") from error

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The saved tensors and state, or None where there is none that can be read.

        The tensors are memory-mapped.
        """
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


def _best(epoch: int | str) -> str:
    return f"best-{epoch}.safetensors"


def _metadata(state: dict[str, Any]) -> dict[str, str]:
    return {"state": json.dumps(state)}
