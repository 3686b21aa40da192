"""The batch job itself: read, answer, write a part; and in the end join the parts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from xcflow.errors import ConfigError, DataError
from xcflow.home import Home
from xcflow.library import library_digest
from xcflow.progress import Advance, log, progress
from xcflow.serving.answers import best_labels
from xcflow.serving.batch.answers_out import FORMATS, Answer
from xcflow.serving.batch.parts import Parts
from xcflow.serving.batch.places import Places
from xcflow.serving.batch.rows_in import (
    Query,
    Survey,
    batches_of,
    known_ending,
    read_queries,
    survey,
)
from xcflow.serving.predictor import Predictor
from xcflow.storage import is_remote

# What a kill costs at most; about 10,000 texts.
BATCHES_IN_PART = 10


class Outcome(NamedTuple):
    """What a job did.

    Attributes:
        texts: Number of texts in the output.
        before: How many of them had been answered before, by a job that was killed.
        seconds: Wall time of this one.
    """

    texts: int
    before: int
    seconds: float

    def __str__(self) -> str:
        new = self.texts - self.before
        what = f", {new:,} of them now" if self.before else ""
        rate = new / max(self.seconds, 1e-6)
        return f"{self.texts:,} texts answered{what} in {self.seconds:,.1f} s, {rate:,.0f} texts/s"


@dataclass(frozen=True)
class BatchJob:
    """Answers all texts of a file, in their order, into a file that appears only when whole.

    Killed at any moment and run again, it goes on from its last part and ends with the bytes of an
    undisturbed run.

    Attributes:
        source: Rows with ``id`` and ``text``: a local path or ``s3://bucket/key``. The endings of
            both names tell the formats, see ``ENDINGS``.
        target: Gets the answers: a local path or ``s3://bucket/key``.
        k: At most so many labels for each text.
        min_probability: Labels that are less likely right are left out.

    Raises:
        ConfigError: There is no such file, a name does not tell a format, or both are the same.
    """

    source: str
    target: str
    k: int
    min_probability: float = 0.0

    def __post_init__(self) -> None:
        if not is_remote(self.source) and not Path(self.source).is_file():
            raise ConfigError(f"{self.source}: no such file")
        for name in (self.source, self.target):
            known_ending(name)
        if _same(self.source, self.target):
            raise ConfigError(f"{self.target}: is the input too: choose another output")

    def run(self, predictor: Predictor, home: Home) -> Outcome:
        """Do the job.

        Args:
            predictor: The model.
            home: Holds copies of what is remote while the job runs.

        Raises:
            DataError: A row cannot be read; the file and line are named.
            BusyError: Another process is writing the target.
            StorageError: The source cannot be fetched, or the target not be written.
        """
        start = time.monotonic()
        places = Places.of(self.target, home)
        with places.claimed(), places.readable(self.source) as path:
            file = _File(path, self.source)
            # Before the first answer: a bad row would else be found when much is done.
            found = survey(self._batches(path))
            ending = known_ending(self.target)
            parts = Parts.of(self._identity(predictor, found, ending), places.parts, ending)
            before = self._answer(predictor, file, found, parts)
            FORMATS[ending].join(parts.finished(), places.whole)
            places.deliver()
            places.clear()
        return Outcome(found.texts, before, time.monotonic() - start)

    def _batches(self, path: Path) -> Iterator[list[Query]]:
        return batches_of(read_queries(path, self.source), self.k)

    def _identity(self, predictor: Predictor, found: Survey, ending: str) -> dict[str, Any]:
        """All that the bytes of the parts depend on."""
        return {
            "texts": found.digest,
            "model": predictor.manifest.digest,
            "k": self.k,
            "min_probability": self.min_probability,
            "format": ending,
            "library": library_digest(),
        }

    def _answer(self, predictor: Predictor, file: _File, found: Survey, parts: Parts) -> int:
        """Write the parts that are missing; returns how many texts the others answer."""
        batches = self._batches(file.path)
        done = len(parts.finished())
        before = sum(map(len, islice(batches, done * BATCHES_IN_PART)))
        if before:
            log(f"{before:,} texts were answered before: going on with the others")
        with progress("answering", found.texts - before, "texts") as advance:
            for number in range(done, -(-found.batches // BATCHES_IN_PART)):
                part = islice(batches, BATCHES_IN_PART)
                with parts.writing(number) as partial:
                    answers = self._answers(predictor, part, advance)
                    FORMATS[parts.ending].write(answers, partial)
                    file.require_unchanged()
        return before

    def _answers(
        self, predictor: Predictor, batches: Iterable[list[Query]], advance: Advance
    ) -> Iterator[list[Answer]]:
        for batch in batches:
            texts = [query.text for query in batch]
            labels = best_labels(predictor, texts, self.k, self.min_probability)
            yield [Answer(query.id, own) for query, own in zip(batch, labels, strict=True)]
            advance(len(batch))


class _File:
    """The input, which must stay what it was when its digest was taken."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name
        self._was = self._facts()

    def require_unchanged(self) -> None:
        """Raises DataError where it was written to, or replaced."""
        if self._facts() != self._was:
            raise DataError("was changed while it was read: start again", self._name)

    def _facts(self) -> tuple[int, int, int] | None:
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return None
        return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _same(source: str, target: str) -> bool:
    if is_remote(source) or is_remote(target):
        return source == target
    return Path(target).exists() and Path(source).samefile(target)
