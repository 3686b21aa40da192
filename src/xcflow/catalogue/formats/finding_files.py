"""Which files of a folder hold what, by their names, and what the project calls their columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from xcflow.catalogue.readers import Role
from xcflow.errors import DataError

Key = TypeVar("Key", bound=str)

STEMS: Mapping[Role, tuple[str, ...]] = {
    "labels": ("labels",),
    "train": ("train", "trn"),
    "test": ("test", "tst"),
    "test_filter": ("test_filter", "tst_filter"),
}
# What each row has, where ids and labels stand in the rows.
COLUMNS: Mapping[Role, tuple[str, ...]] = {
    "labels": ("id", "text"),
    "train": ("id", "text", "labels"),
    "test": ("id", "text", "labels"),
    "test_filter": ("id", "labels"),
}


def names_of_roles(*endings: str) -> dict[Role, list[str]]:
    """The names that a format with one file for each role accepts."""
    return {role: [f"{s}{end}" for s in stems for end in endings] for role, stems in STEMS.items()}


def plain_or_gzip(*names: str) -> list[str]:
    """Each name, also as that of a compressed file."""
    return [f"{name}{end}" for name in names for end in ("", ".gz")]


def standing(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of these names that are there."""
    return [path for name in names if (path := folder / name).is_file()]


def find(
    folder: Path, names: Mapping[Key, Sequence[str]], optional: Collection[Key] = ()
) -> dict[Key, Path]:
    """The one file that stands there for each key.

    Args:
        folder: Where to look.
        names: Key -> the names that its file may have.
        optional: Keys that may have no file.

    Raises:
        DataError: A needed file is missing, or two files claim one key.
    """
    found = {key: standing(folder, wanted) for key, wanted in names.items()}
    for paths in found.values():
        if len(paths) > 1:
            both = " and ".join(path.name for path in paths)
            raise DataError(f"both {both} stand here: keep one of them", folder)
    missing = [key for key, paths in found.items() if not paths and key not in optional]
    if missing:
        raise DataError(f"misses {'; '.join(' or '.join(names[key]) for key in missing)}", folder)
    return {key: paths[0] for key, paths in found.items() if paths}
