"""Parquet tables: ``labels.parquet``, ``train.parquet``, ``test.parquet``, maybe a test filter.

The columns are those of the project's own format; ids and label ids may be integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xcflow.catalogue.formats.lines import decoded, fault
from xcflow.catalogue.formats.role_files import RoleFilesReader
from xcflow.catalogue.formats.row_reader import Row
from xcflow.catalogue.readers import Fault
from xcflow.errors import DataError

# Rows that are taken from the file at a time; texts can be long.
BATCH_ROWS = 1024
# Without a buffer, a column of a whole row group is taken into memory as it stands in the file.
BUFFER_BYTES = 2**20


class ParquetReader(RoleFilesReader):
    """Reads Parquet tables; see the module."""

    endings = (".parquet",)
    part_prefix = "parquet "

    @staticmethod
    def file_rows(path: Path, columns: tuple[str, ...]) -> Iterator[Row | Fault]:
        """See ``RoleFilesReader.file_rows``."""
        # The rows' numbers, from 1, stand for lines.
        for number, row in enumerate(_raw_rows(path, columns), start=1):
            try:
                row_id = _text("id", row["id"])
                text = _text("text", row["text"]) if "text" in row else ""
                labels = _label_ids(row["labels"]) if "labels" in row else []
            except ValueError as error:
                yield fault(path, number, str(error), row["id"] or b"")
            else:
                yield Row(number, row_id, text, labels)


def _raw_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows with bytes for each string, because a string need not be UTF-8.

    Raises:
        DataError: The file cannot be read (further), or misses a column, or it is of another type.
    """
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        with parquet.ParquetFile(path, buffer_size=BUFFER_BYTES) as file:
            types = _byte_types(path, file.schema_arrow, columns)
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                values = {
                    name: _cast(batch.column(name), kinds).to_pylist()
                    for name, kinds in types.items()
                }
                for row in zip(*values.values(), strict=True):
                    number += 1
                    yield dict(zip(values, row, strict=True))
    except (ArrowException, OSError) as error:
        what = " ".join(str(error).split())[:200]
        reason = f"cannot be read as Parquet ({what}): fetch or export it again"
        raise DataError(reason, path, number + 1 if number else None) from error


def _cast(column: Any, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        column = column.cast(kind)
    return column


def _byte_types(path: Path, schema: Any, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Column -> the types that it is cast to, one after the other, to become bytes.

    Raises:
        DataError: A column is missing, there twice, or of another type.
    """
    import pyarrow

    types = {}
    for column in columns:
        if len(schema.get_all_field_indices(column)) != 1:
            found = ", ".join(schema.names) or "none"
            raise DataError(f"expected one column {column}, the columns are {found}", path)
        kind = schema.field(column).type
        is_list = column == "labels"
        if is_list and not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)):
            raise DataError(f"the column labels must be a list of label ids, it is {kind}", path)
        value = kind.value_type if is_list else kind
        casts = _casts(value, integers=column != "text")
        if not casts:
            what = "a list of strings or integers" if is_list else "of strings"
            raise DataError(f"the column {column} must be {what}, it is {kind}", path)
        types[column] = [pyarrow.large_list(cast) for cast in casts] if is_list else casts
    return types


def _casts(kind: Any, *, integers: bool) -> list[Any]:
    """The types by which a type becomes bytes; none where it must not."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(kind):
        casts = _casts(kind.value_type, integers=integers)
        return [kind.value_type, *casts] if casts else []
    if integers and types.is_integer(kind):
        return [pyarrow.large_string(), pyarrow.large_binary()]
    is_string = types.is_string(kind) or types.is_large_string(kind)
    return [pyarrow.large_binary()] if is_string or types.is_null(kind) else []


def _text(name: str, value: bytes | None) -> str:
    """A field's text.

    Raises:
        ValueError: With the reason in a few words.
    """
    if value is None:
        raise ValueError(f"{name} must be a string, got null")
    return decoded(value)


def _label_ids(values: Sequence[bytes | None] | None) -> list[str]:
    if values is None:
        raise ValueError("labels must be a list of label ids, got null")
    return [_text("a label id", value) for value in values]
