"""The project's own format: a folder of JSON Lines files, plain or gzip-compressed.

``labels.jsonl`` has rows ``{"id", "text"}``, ``train.jsonl`` and ``test.jsonl`` have rows
``{"id", "text", "labels": [label ids]}``, and the optional ``test_filter.jsonl`` has rows
``{"id", "labels": [label ids]}``. ``trn``, ``tst`` and ``tst_filter`` are accepted names too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xcflow.catalogue.formats.json_rows import check_string, named, parsed
from xcflow.catalogue.formats.lines import each, filled_lines
from xcflow.catalogue.formats.role_files import RoleFilesReader
from xcflow.catalogue.formats.row_reader import Row
from xcflow.catalogue.readers import Fault


class JsonLinesReader(RoleFilesReader):
    """Reads the project"s own format; see the module."""

    endings = (".jsonl", ".jsonl.gz")
    part_prefix = ""

    @staticmethod
    def file_rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row | Fault]:
        """See ``RoleFilesReader.file_rows``."""
        rows = each(path, filled_lines(path), lambda line: _checked(parsed(line), columns))
        for number, row in rows:
            if isinstance(row, Fault):
                yield row
            else:
                text = row["text"] if "text" in columns else ""
                yield Row(number, row["id"], text, row["labels"] if "labels" in columns else [])


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
