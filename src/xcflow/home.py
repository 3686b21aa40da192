"""The home folder: all state of one installation, so that moving or deleting it is simple."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

VARIABLE = "XCFLOW_HOME"
DEFAULT = ".xcflow"


@dataclass(frozen=True)
class Home:
    """Where things stand in the home folder. Nothing is made before it is written to.

    Attributes:
        root: The folder itself, absolute.
    """

    root: Path

    @classmethod
    def at(cls, folder: Path | str | None = None) -> Self:
        """The home at ``folder``, else at ``$XCFLOW_HOME``, else ``.xcflow`` right here."""
        return cls(Path(folder or os.environ.get(VARIABLE) or DEFAULT).absolute())

    @property
    def database(self) -> Path:
        """The default tracking store (sqlite)."""
        return self.root / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """Files of the default tracking store."""
        return self.root / "artifacts"

    @property
    def runs(self) -> Path:
        """One folder for each local run of the pipeline, with the outputs of its steps."""
        return self.root / "pipelines"

    @property
    def cache(self) -> Path:
        """Which finished steps stand where: the local runner's cache."""
        return self.root / "cache"

    @property
    def checkpoints(self) -> Path:
        """From where interrupted training goes on."""
        return self.root / "checkpoints"

    @property
    def outbox(self) -> Path:
        """What is still to be sent to the tracking store."""
        return self.root / "outbox"

    @property
    def models(self) -> Path:
        """Promoted bundles, each in a folder named by its digest."""
        return self.root / "models"

    @property
    def downloads(self) -> Path:
        """Copies of remote folders, no more than fits; see ``xcflow.storage.cache``."""
        return self.root / "downloads"

    @property
    def outputs(self) -> Path:
        """Folders that are being written and go to a remote place."""
        return self.root / "outputs"

    @property
    def batches(self) -> Path:
        """Copies of remote inputs of batch jobs, and unfinished answers to be sent away."""
        return self.root / "batches"

    @property
    def evaluations(self) -> Path:
        """Evaluations that were asked for one by one, and copies of those of other machines."""
        return self.root / "evaluations"

    @property
    def verdicts(self) -> Path:
        """Copies of verdicts of runs of other machines."""
        return self.root / "verdicts"

    @property
    def sweeps(self) -> Path:
        """Pages of sweeps over settings."""
        return self.root / "sweeps"

    @property
    def promotions(self) -> Path:
        """Who moved the champion, when and why: JSON lines, only ever appended to."""
        return self.root / "promotions.jsonl"
