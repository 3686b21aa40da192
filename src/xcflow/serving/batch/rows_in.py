"""Texts to answer, row by row, read as catalogues of the same formats are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from xcflow.catalogue.formats.csv_table import CsvReader
from xcflow.catalogue.formats.jsonl import JsonLinesReader
from xcflow.catalogue.formats.parquet_table import ParquetReader
from xcflow.catalogue.formats.role_files import RoleFilesReader
from xcflow.catalogue.readers import Fault
from xcflow.errors import ConfigError, DataError
from xcflow.progress import log

READERS: Mapping[str, type[RoleFilesReader]] = {
    ending: reader
    for reader in (JsonLinesReader, CsvReader, ParquetReader)
    for ending in reader.endings
}
ENDINGS = tuple(READERS)
# A batch is what stands in memory at a time: so many texts, labels asked for, and characters.
BATCH_TEXTS = 1024
BATCH_LABELS = 200_000
BATCH_CHARS = 4 * 2**20
_SAY_SO_EVERY = 1000  # batches


class Query(NamedTuple):
    """A row to answer."""

    id: str
    text: str


class Survey(NamedTuple):
    """What a pass over all batches found.

    Attributes:
        texts: Number of texts.
        batches: Number of batches.
        digest: The sha256 over all rows in their order, whatever file they stand in.
    """

    texts: int
    batches: int
    digest: str


def known_ending(name: str) -> str:
    """The ending of a file's name, which tells its format.

    Raises:
        ConfigError: It is none of ``ENDINGS``.
    """
    for ending in ENDINGS:
        if name.endswith(ending):
            return ending
    raise ConfigError(f"{name}: of unknown format: its name must end in {', '.join(ENDINGS)}")


def read_queries(path: Path, name: str) -> Iterator[Query]:
    """The rows of a file, one by one; blank lines are passed over.

    Args:
        path: The file.
        name: What the user calls it, for errors.

    Raises:
        ConfigError: Its name does not tell the format.
        DataError: The file cannot be read, or a row is none with ``id`` and ``text``.
    """
    rows = READERS[known_ending(path.name)].file_rows(path, ("id", "text"))
    try:
        for row in rows:
            if isinstance(row, Fault):
                raise DataError(row.reason, name, row.line)
            yield Query(row.id, row.text)
    except DataError as error:
        raise DataError(error.reason, name, error.line) from error


def batches_of(queries: Iterable[Query], k: int) -> Iterator[list[Query]]:
    """The rows in batches whose answers of ``k`` labels fit into memory.

    Where a batch ends depends on the rows and ``k`` alone, so that a job that goes on cuts as it
    did before.
    """
    most = max(1, min(BATCH_TEXTS, BATCH_LABELS // k))
    batch: list[Query] = []
    chars = 0
    for query in queries:
        batch.append(query)
        chars += len(query.text)
        if len(batch) == most or chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def survey(batches: Iterable[list[Query]]) -> Survey:
    """Count all rows and take their digest; a row that cannot be read comes to light."""
    digest = hashlib.sha256()
    texts = number = 0
    for number, batch in enumerate(batches, 1):
        texts += len(batch)
        for query in batch:
            for part in query:
                content = part.encode()
                digest.update(len(content).to_bytes(8, "little"))  # else ("ab", "") is ("a", "b")
                digest.update(content)
        if number % _SAY_SO_EVERY == 0:
            log(f"reading: {texts:,} texts")
    return Survey(texts, number, digest.hexdigest())
