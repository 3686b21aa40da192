"""Predictions for one text, or for a file of them in bounded memory."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from xcflow.disk import claimed, replace_file, writable
from xcflow.errors import DataError
from xcflow.progress import log

if TYPE_CHECKING:
    from xcflow.serving.predictor import Predictor

# Texts that are encoded at a time.
BATCH = 1024
SCORE_DIGITS = 6
PROBABILITY_DIGITS = 4


@dataclass(frozen=True)
class Query:
    """A row to answer."""

    id: str
    text: str


def best_labels(
    predictor: Predictor, texts: Sequence[str], k: int, min_probability: float = 0.0
) -> list[list[dict[str, Any]]]:
    """For each text its best labels as ``{"id", "score", "probability"}``, best first.

    Args:
        predictor: The model.
        texts: The texts.
        k: At most so many labels for each.
        min_probability: Labels that are less likely right are left out.
    """
    top = predictor.top_k(list(texts), k)
    likely = predictor.probabilities(top.scores)
    return [
        [
            {
                "id": predictor.label_ids[int(label)],
                "score": round(float(score), SCORE_DIGITS),
                "probability": round(float(probability), PROBABILITY_DIGITS),
            }
            for label, score, probability in zip(*row, strict=True)
            if label >= 0 and probability >= min_probability
        ]
        for row in zip(top.labels, top.scores, likely, strict=True)
    ]


def predict_file(
    predictor: Predictor, source: Path, target: Path, k: int, min_probability: float = 0.0
) -> int:
    """Answer the rows of a JSON Lines file (``.gz`` or not), in their order.

    Args:
        predictor: The model.
        source: Rows with ``id`` and ``text``.
        target: Gets a row ``{"id", "labels": [{"id", "score", "probability"}, ...]}`` for each;
            appears only when whole.
        k: At most so many labels for each.
        min_probability: Labels that are less likely right are left out.

    Returns:
        Number of rows.

    Raises:
        DataError: A row cannot be read; the file and line are named.
        BusyError: Another process is writing the target.
        StorageError: The target cannot be written.
    """
    done = 0
    with _appearing_when_whole(target) as output:
        rows = read_queries(source)
        while batch := list(islice(rows, BATCH)):
            texts = [query.text for query in batch]
            answers = best_labels(predictor, texts, k, min_probability)
            for query, labels in zip(batch, answers, strict=True):
                output.write(json.dumps({"id": query.id, "labels": labels}, ensure_ascii=False))
                output.write("\n")
            done += len(batch)
            if done % (50 * BATCH) == 0:
                log(f"{done:,} texts answered")
    return done


def read_queries(source: Path) -> Iterator[Query]:
    """The rows of a JSON Lines file, one by one; blank lines are passed over.

    Raises:
        DataError: The file cannot be read, or a row is no object with ``id`` and ``text``.
    """
    number = 0
    try:
        with _lines(source) as lines:
            for number, line in enumerate(lines, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield _query(text)
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", source, number or 1) from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"the compressed file is damaged: {error}", source, number + 1) from error
    except ValueError as error:
        raise DataError(str(error), source, number) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", source) from error


@contextmanager
def _lines(source: Path) -> Iterator[Iterable[bytes]]:
    """The lines of a file that is compressed or not, whatever its name says."""
    with source.open("rb") as raw:
        if raw.peek(2)[:2] != b"\x1f\x8b":
            yield raw
        else:
            with gzip.open(raw) as unpacked:
                yield unpacked


def _query(line: str) -> Query:
    """Raises ValueError, with a reason for a person."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError('is no object: expected {"id": ..., "text": ...}')
    for key in ("id", "text"):
        if not isinstance(row.get(key), str):
            raise ValueError(f'"{key}" is missing or no string')
    return Query(row["id"], row["text"])


@contextmanager
def _appearing_when_whole(target: Path) -> Iterator[TextIO]:
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    with claimed(target), writable(target):
        if target.is_dir():  # or it would be noticed only when all is answered
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        try:
            with _text_writer(partial, compressed=target.name.endswith(".gz")) as stream:
                yield stream
            replace_file(partial, target)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _text_writer(path: Path, *, compressed: bool) -> TextIO:
    if compressed:
        return gzip.open(path, "wt", encoding="utf-8", compresslevel=6)
    return path.open("w", encoding="utf-8")
