"""Which files of a folder hold what, by their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from xcflow.errors import DataError

Key = TypeVar("Key", bound=str)


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
