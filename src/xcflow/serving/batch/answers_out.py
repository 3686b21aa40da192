"""Files of answers: JSON Lines, CSV and Parquet, each written in parts that are joined later."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

from xcflow.serving.answers import Label

_CSV_COLUMNS = "id,rank,label,score,probability\n"


class Answer(NamedTuple):
    """The row that answers a text."""

    id: str
    labels: Sequence[Label]


class AnswerFormat(Protocol):
    """One format; the same answers in the same parts are the same bytes."""

    def write(self, batches: Iterable[Sequence[Answer]], path: Path) -> None:
        """Write a part, taking the batches one by one."""

    def join(self, parts: Sequence[Path], path: Path) -> None:
        """Write the whole file from its parts, one after the other."""


@dataclass(frozen=True)
class LinesFormat:
    """A format whose rows stand one after the other.

    Attributes:
        write_rows: Writes a batch.
        head: Stands before all rows.
        packed: Whether the file is gzip; each part is then a member of it.
    """

    write_rows: Callable[[Sequence[Answer], TextIO], None]
    head: str = ""
    packed: bool = False

    def write(self, batches: Iterable[Sequence[Answer]], path: Path) -> None:
        """See ``AnswerFormat.write``."""
        with self._writer(path) as stream:
            for batch in batches:
                self.write_rows(batch, stream)

    def join(self, parts: Sequence[Path], path: Path) -> None:
        """See ``AnswerFormat.join``."""
        path.unlink(missing_ok=True)
        if self.head or not parts:  # a gzip file has at least one member
            with self._writer(path) as stream:
                stream.write(self.head)
        with path.open("ab") as whole:
            for part in parts:
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, whole)

    @contextmanager
    def _writer(self, path: Path) -> Iterator[TextIO]:
        with path.open("wb") as raw:
            # Neither name nor time in the header: they would differ each time.
            packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if self.packed else raw
            with io.TextIOWrapper(packed, encoding="utf-8", newline="") as stream:
                yield stream


class ParquetFormat:
    """Columns ``id``, ``labels``, ``scores`` and ``probabilities``, a row group for each part."""

    def write(self, batches: Iterable[Sequence[Answer]], path: Path) -> None:
        """See ``AnswerFormat.write``."""
        import pyarrow

        with _parquet_writer(path) as writer:
            for batch in batches:
                rows = [
                    {
                        "id": answer.id,
                        "labels": [label["id"] for label in answer.labels],
                        "scores": [label["score"] for label in answer.labels],
                        "probabilities": [label["probability"] for label in answer.labels],
                    }
                    for answer in batch
                ]
                writer.write_table(pyarrow.Table.from_pylist(rows, writer.schema))

    def join(self, parts: Sequence[Path], path: Path) -> None:
        """See ``AnswerFormat.join``."""
        from pyarrow import parquet

        with _parquet_writer(path) as writer:
            for part in parts:
                with parquet.ParquetFile(part) as file:
                    writer.write_table(file.read())


def _parquet_writer(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    numbers = pyarrow.list_(pyarrow.float32())
    columns = {
        "id": pyarrow.string(),
        "labels": pyarrow.list_(pyarrow.string()),
        "scores": numbers,
        "probabilities": numbers,
    }
    return parquet.ParquetWriter(path, pyarrow.schema(columns))


def _write_json(batch: Sequence[Answer], stream: TextIO) -> None:
    for answer in batch:
        stream.write(json.dumps(answer._asdict(), ensure_ascii=False))
        stream.write("\n")


def _write_csv(batch: Sequence[Answer], stream: TextIO) -> None:
    # All strings in quotes: whether a bare carriage return gets them depends on Python's version.
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for answer in batch:
        for rank, label in enumerate(answer.labels, 1):
            writer.writerow((answer.id, rank, label["id"], label["score"], label["probability"]))


FORMATS: Mapping[str, AnswerFormat] = {
    ".jsonl": LinesFormat(_write_json),
    ".jsonl.gz": LinesFormat(_write_json, packed=True),
    ".csv": LinesFormat(_write_csv, _CSV_COLUMNS),
    ".csv.gz": LinesFormat(_write_csv, _CSV_COLUMNS, packed=True),
    ".parquet": ParquetFormat(),
}
