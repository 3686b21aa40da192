"""Errors a user can cause. The command line prints each as one line: what, where, what to do."""

from __future__ import annotations

from pathlib import Path


class XcflowError(Exception):
    """Base of all errors that are reported to the user as one line instead of a traceback."""


class ConfigError(XcflowError):
    """A configuration file, an override or an option is wrong."""


class DataError(XcflowError):
    """The catalogue that came in cannot be used.

    Args:
        reason: What is wrong and what to do about it.
        file: The file in which it stands, where known.
        line: The 1-based line, where known.
    """

    def __init__(
        self, reason: str, file: Path | str | None = None, line: int | None = None
    ) -> None:
        where = "" if file is None else f"{file}: " if line is None else f"{file}, line {line}: "
        super().__init__(where + reason)
        self.reason = reason
        self.file = file
        self.line = line


class ArtifactError(XcflowError):
    """A folder written by a step is missing, incomplete, altered, or of another kind."""


class StorageError(XcflowError):
    """A file or folder cannot be read or written."""


class BusyError(StorageError):
    """Another process is writing the same file or folder."""


class DistributedError(XcflowError):
    """Several processes that work together cannot go on."""


class MissingExtraError(XcflowError):
    """An optional part is not installed.

    Args:
        package: The package that could not be imported.
        extra: The extra of xcflow that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'xcflow[{extra}]'")


class TrackingError(XcflowError):
    """The tracking store cannot be reached, or lacks the run or model that was asked for."""


class StoreAwayError(TrackingError):
    """The tracking store does not answer; asked later, it may."""


class AccessError(TrackingError):
    """The tracking store refuses this user what was asked."""


class CredentialsError(AccessError):
    """The tracking store refuses this user everything: no such name or password."""


class GateError(XcflowError):
    """The gate or the registry refuses what was asked."""


class ClusterError(XcflowError):
    """A cluster or its Kubeflow Pipelines cannot be reached, or refuses what was asked."""
