"""Formats with one file for each role and the columns of the project's own format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from xcflow.catalogue.formats.finding_files import find, standing
from xcflow.catalogue.formats.row_reader import Row, RowReader
from xcflow.catalogue.readers import Fault, Role

STEMS: Mapping[Role, tuple[str, ...]] = {
    "labels": ("labels",),
    "train": ("train", "trn"),
    "test": ("test", "tst"),
    "test_filter": ("test_filter", "tst_filter"),
}
COLUMNS: Mapping[Role, tuple[str, ...]] = {
    "labels": ("id", "text"),
    "train": ("id", "text", "labels"),
    "test": ("id", "text", "labels"),
    "test_filter": ("id", "labels"),
}


class RoleFilesReader(RowReader):
    """Finds the files of such a format.

    Attributes:
        endings: The endings that the files' names may have.
        part_prefix: Stands before each role in the names of the parts.
    """

    endings: ClassVar[tuple[str, ...]]
    part_prefix: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.files: Mapping[Role, Path] = find(folder, self._names(), optional=["test_filter"])
        self.parts = {f"{self.part_prefix}{role}": path for role, path in self.files.items()}

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether any of the format's files stands there."""
        return any(standing(folder, names) for names in cls._names().values())

    @classmethod
    def description(cls) -> str:
        """The files of the format."""
        plain, *packed = cls.endings
        also = " (each plain or .gz)" if packed else ""
        return f"labels{plain}, train{plain} and test{plain}{also}"

    def rows(self, role: Role) -> Iterator[Row | Fault]:
        """See ``RowReader.rows``."""
        return self.file_rows(self.files[role], COLUMNS[role])

    @staticmethod
    @abstractmethod
    def file_rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row | Fault]:
        """The rows of a file that must have these columns.

        Raises:
            DataError: The file as a whole cannot be read (further).
        """

    @classmethod
    def _names(cls) -> dict[Role, list[str]]:
        return {
            role: [f"{stem}{ending}" for stem in stems for ending in cls.endings]
            for role, stems in STEMS.items()
        }
