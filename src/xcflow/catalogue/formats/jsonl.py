"""The project's own format: a folder of JSON Lines files, plain or gzip-compressed.

``labels.jsonl`` has rows ``{"id", "text"}``, ``train.jsonl`` and ``test.jsonl`` have rows
``{"id", "text", "labels": [label ids]}``, and the optional ``test_filter.jsonl`` has rows
``{"id", "labels": [label ids]}``. ``trn``, ``tst`` and ``tst_filter`` are accepted names too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xcflow.catalogue.formats.chunking import Row, chunks_of
from xcflow.catalogue.formats.finding_files import COLUMNS, find, names_of_roles, standing
from xcflow.catalogue.formats.json_rows import check_string, named, parsed
from xcflow.catalogue.formats.lines import fault, lines
from xcflow.catalogue.readers import Chunk, Fault, Role

NAMES = names_of_roles(".jsonl", ".jsonl.gz")


class JsonLinesReader:
    """Reads the project's own format; see the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.files: Mapping[Role, Path] = find(self.folder, NAMES, optional=["test_filter"])
        self.parts: Mapping[str, Path] = {str(role): path for role, path in self.files.items()}

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether any of the format's files stands there."""
        return any(standing(folder, names) for names in NAMES.values())

    @classmethod
    def description(cls) -> str:
        """The files of the format."""
        return "labels.jsonl, train.jsonl and test.jsonl (each plain or .gz)"

    def chunks(self, role: Role, rows: int) -> Iterator[Chunk]:
        """See ``CatalogueReader.chunks``."""
        return chunks_of(_rows(self.files[role], COLUMNS[role]), rows)


def _rows(path: Path, keys: tuple[str, ...]) -> Iterator[Row | Fault]:
    for number, line in lines(path):
        if line := line.strip():
            try:
                row = _checked(parsed(line), keys)
            except ValueError as error:
                yield fault(path, number, str(error), line)
            else:
                text = row["text"] if "text" in keys else ""
                yield Row(number, row["id"], text, row["labels"] if "labels" in keys else [])


def _checked(row: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """Refuse a row of another shape.

    Raises:
        ValueError: With the reason.
    """
    if type(row) is not dict:
        raise ValueError(f"expected an object with {', '.join(keys)}, got {named(row)}")
    for key in keys:
        if key not in row:
            raise ValueError(f"{key} is missing")
        value = row[key]
        if key != "labels":
            check_string(key, value)
        elif type(value) is not list:
            raise ValueError(f"labels must be a list of label ids, got {named(value)}")
        else:
            for item in value:
                check_string("a label id", item)
    return row
