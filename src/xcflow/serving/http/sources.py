"""Where a server's model comes from."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from xcflow.artifact import read_manifest
from xcflow.serving.bundle import KIND
from xcflow.serving.http.models import Wanted


class Versions(Protocol):
    """A registry, as a server needs it."""

    def version(self, name: str) -> tuple[str, str] | None:
        """Number and bundle's digest of what an alias or a number names."""

    def fetch(self, digest: str) -> Path:
        """The folder of a bundle."""

    def forget(self, but: Collection[str]) -> None:
        """Remove the bundles that were fetched, but for those with some digests."""


class Registered:
    """Models that a registry's aliases name.

    Args:
        versions: The registry.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    def wanted(self, alias: str) -> Wanted | None:
        """The model that an alias names now."""
        found = self._versions.version(alias)
        return Wanted(found[1], found[0]) if found else None

    def fetch(self, wanted: Wanted) -> Path:
        """Its bundle, on this machine."""
        return self._versions.fetch(wanted.digest)

    def forget(self, but: Collection[str]) -> None:
        """Remove what was fetched and is not needed any more."""
        self._versions.forget(but)


class Folder:
    """One bundle that stays.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = read_manifest(path, KIND).digest

    def wanted(self, alias: str) -> Wanted | None:
        """This bundle, whatever the alias."""
        del alias
        return Wanted(self._digest, self._path.name)

    def fetch(self, wanted: Wanted) -> Path:
        """Its folder."""
        del wanted
        return self._path

    def forget(self, but: Collection[str]) -> None:
        """Nothing was fetched."""
