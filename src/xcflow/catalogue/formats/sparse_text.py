"""Sparse matrices as text: a header ``rows columns``, then on each line ``column:value ...``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from xcflow.catalogue.formats.lines import each, lines
from xcflow.catalogue.formats.repository_files import index, without_blank_end
from xcflow.catalogue.readers import Fault
from xcflow.errors import DataError

# The numbers of rows are stored in 32 bits.
MAX_SIZE = 2**31 - 1
Entries = list[tuple[int, float]]


class SparseText:
    """One file.

    Attributes:
        path: The file.
        sizes: The numbers of its header, of which the first is that of the rows.
    """

    def __init__(self, path: Path, *columns: str) -> None:
        """Read the header.

        Args:
            path: The file.
            columns: What the header's numbers after the first count, for an error's message.

        Raises:
            DataError: The file cannot be read, or has no header.
        """
        self.path = path
        _, line = next(lines(path), (1, b""))
        try:
            self.sizes = [index(size) for size in line.split()]
        except ValueError:
            self.sizes = []
        is_sane = all(0 <= size <= MAX_SIZE for size in self.sizes)
        if len(self.sizes) != len(columns) + 1 or not is_sane:
            wanted = " ".join(("rows", *columns))
            raise DataError(f"expected the header '{wanted}' (numbers)", path, 1)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each row; blank lines are rows up to the number of the header."""
        rows = islice(lines(self.path), 1, None)
        return without_blank_end(rows, self.sizes[0])

    def entries(self) -> Iterator[tuple[int, Entries | Fault]]:
        """Line and (column, value) pairs of each row."""
        return each(self.path, self.lines(), entries)

    def columns(self) -> Iterator[tuple[int, list[int] | Fault]]:
        """Line and columns of each row, whatever their values are."""
        for number, row in self.entries():
            yield number, row if isinstance(row, Fault) else [column for column, _ in row]


def entries(line: bytes) -> Entries:
    """The (column, value) pairs of a row.

    Raises:
        ValueError: With the reason in a few words.
    """
    row: Entries = []
    for token in line.split():
        column, _, value = token.partition(b":")
        try:
            row.append((index(column), float(value)))
        except ValueError:
            shown = token[:20].decode(errors="replace")
            raise ValueError(f"expected index:value, got {shown!r}") from None
    return row
