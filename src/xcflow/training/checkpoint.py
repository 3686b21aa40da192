"""States from which a killed training loop goes on."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xcflow.errors import StorageError
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
        self._folder = Home.at().checkpoints / f"{step}-{key[:16]}"
        self._every = every_seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._last >= self._every

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the saved state: all of it, or none if the process dies in between.

        Raises:
            StorageError: It cannot be written.
        """
        partial = self._folder / f"{_STATE}.partial"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial, _metadata(state))
            partial.replace(self._folder / _STATE)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{partial}: the checkpoint cannot be written: {error}") from error
        self._last = time.monotonic()

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
