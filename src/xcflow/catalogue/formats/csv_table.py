"""Comma-separated tables: ``labels.csv``, ``train.csv``, ``test.csv``, maybe ``test_filter.csv``.

The columns are those of the project's own format. Several label ids stand in one field, with
spaces between them, or ``|`` where the field has one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from xcflow.catalogue.formats.lines import fault, whole_lines
from xcflow.catalogue.formats.role_files import RoleFilesReader
from xcflow.catalogue.formats.row_reader import Row
from xcflow.catalogue.readers import Fault
from xcflow.errors import DataError

# A field that lacks its closing quote is given up after so many characters.
MAX_FIELD_CHARS = 8 * 2**20


class CsvReader(RoleFilesReader):
    """Reads comma-separated tables; see the module."""

    endings = (".csv", ".csv.gz")
    part_prefix = "csv "

    @staticmethod
    def file_rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row | Fault]:
        """See ``RoleFilesReader.file_rows``."""
        records = _records(path)
        header = next(records, None)
        if header is None:
            return
        names = [name.strip() for name in header.fields]
        if missing := [column for column in columns if names.count(column) != 1]:
            reason = f"expected a header with one column {' and one column '.join(missing)}"
            raise DataError(reason, path, header.line)
        places = {column: names.index(column) for column in columns}
        for line, fields, reason in records:
            problem = reason or _problem(fields, len(names))
            if problem:
                shown = ",".join(fields).encode(errors="surrogateescape")
                yield fault(path, line, problem, shown)
                continue
            row = {column: fields[place] for column, place in places.items()}
            yield Row(line, row["id"], row.get("text", ""), _label_ids(row.get("labels", "")))


class _Record(NamedTuple):
    """Line in which a record begins, and its fields or why there are none."""

    line: int
    fields: Sequence[str]
    reason: str = ""


def _records(path: Path) -> Iterator[_Record]:
    """The records that are not blank; a field in quotes may go over several lines."""
    csv.field_size_limit(MAX_FIELD_CHARS)  # a setting of the whole process
    reader = csv.reader(_decoded_lines(path), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Record(line, [], f"is not a row of a CSV file: {error}")
        else:
            if any(field.strip() for field in fields) or len(fields) > 1:
                yield _Record(line, fields)


def _decoded_lines(path: Path) -> Iterator[str]:
    """Lines with their ends; a lone surrogate stands for a byte that is not UTF-8."""
    for _, line in whole_lines(path):
        yield line.decode(errors="surrogateescape")


def _problem(fields: Sequence[str], columns: int) -> str:
    """What is wrong with a record, if anything is."""
    if len(fields) != columns:
        return f"has {len(fields)} fields, the header has {columns}"
    for field in fields:
        try:
            field.encode()
        except UnicodeEncodeError as error:
            return f"is not UTF-8: byte 0x{ord(field[error.start]) - 0xDC00:02x}"
    return ""


def _label_ids(field: str) -> list[str]:
    if "|" in field:
        return [label for part in field.split("|") if (label := part.strip())]
    return field.split()
