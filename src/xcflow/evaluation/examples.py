"""Documents with the answers of two models side by side, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.string_table import StringTable
from xcflow.evaluation.metrics import RankingPart
from xcflow.evaluation.result import Evaluation, read_ranking
from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL, TopK


@dataclass(frozen=True)
class Answer:
    """A label as a reader sees it.

    Attributes:
        id: Its id.
        text: Its text; its id where it has none.
        right: Whether it is true for the document.
    """

    id: str
    text: str
    right: bool


@dataclass(frozen=True)
class Example:
    """A document and what two models say of it.

    Attributes:
        id: The document's id.
        text: How its text begins.
        truth: Its true labels.
        a: The best labels of the one model, best first.
        b: The best labels of the other.
    """

    id: str
    text: str
    truth: tuple[Answer, ...]
    a: tuple[Answer, ...]
    b: tuple[Answer, ...]

    @property
    def pairs(self) -> list[tuple[Answer | None, Answer | None]]:
        """The labels of both, rank by rank."""
        return list(zip_longest(self.a, self.b))

    @property
    def right(self) -> tuple[int, int]:
        """How many labels of each model are right."""
        return sum(label.right for label in self.a), sum(label.right for label in self.b)


class Answers:
    """What a model says of the documents of an evaluation; tables are opened when first needed.

    Args:
        evaluation: Where the model was measured.
        model: Its name there.
        depth: Best labels shown of each document.
    """

    def __init__(self, evaluation: Evaluation, model: str, depth: int) -> None:
        self.evaluation = evaluation
        self.model = model
        self.depth = depth

    @cached_property
    def _tables(self) -> tuple[StringTable, StringTable, StringTable, StringTable]:
        e = self.evaluation
        return e.document_ids(), e.excerpts(), e.label_ids(), e.label_texts()

    @cached_property
    def _truth(self) -> Ragged:
        return self.evaluation.truth()

    @cached_property
    def _predictions(self) -> TopK:
        return self.evaluation.predictions(self.model)

    def document(self, row: int) -> tuple[str, str]:
        """The id of a document and how its text begins."""
        ids, excerpts, _, _ = self._tables
        return ids[row], excerpts[row]

    def truth(self, row: int) -> tuple[Answer, ...]:
        """The true labels of a document."""
        return self._named(row, self._truth[row])

    def best(self, row: int) -> tuple[Answer, ...]:
        """The best labels of a document, best first."""
        labels = self._predictions.labels[row, : self.depth]
        return self._named(row, labels[labels != NO_LABEL])

    def _named(self, row: int, labels: NDArray[Any]) -> tuple[Answer, ...]:
        _, _, ids, texts = self._tables
        truth = set(self._truth[row].tolist())
        return tuple(
            Answer(ids[label], texts[label] or ids[label], label in truth)
            for label in labels.tolist()
        )


def side_by_side(a: Answers, b: Answers, rows: Sequence[int]) -> list[Example]:
    """The given documents with the answers of two models, which know the same documents."""
    return [
        Example(*a.document(row), truth=a.truth(row), a=a.best(row), b=b.best(row)) for row in rows
    ]


@dataclass(frozen=True, eq=False)
class Flips:
    """On which documents one model finds more right labels than another.

    Attributes:
        k: Among so many labels.
        better: Rows of the documents where the other model finds more, the greatest change first.
        worse: Rows of the documents where it finds fewer, the greatest change first.
        same: Number of the remaining documents.
    """

    k: int
    better: NDArray[np.int64]
    worse: NDArray[np.int64]
    same: int

    @classmethod
    def between(cls, a: Answers, b: Answers, k: int) -> Flips:
        """Documents in the order of how much ``b`` differs from ``a``.

        Of equal changes in the number of right labels, the greater change of nDCG@k comes first,
        then the earlier document.
        """
        column = a.evaluation.ks.index(k), b.evaluation.ks.index(k)
        parts = [read_ranking(x.evaluation.path, x.model) for x in (a, b)]
        hits, ndcg = zip(*map(_at, parts, column), strict=True)
        change, finer = hits[1] - hits[0], ndcg[1] - ndcg[0]
        order = np.lexsort((-finer, -change))
        backwards = np.lexsort((finer, change))
        better, worse = order[change[order] > 0], backwards[change[backwards] < 0]
        return cls(k, better, worse, len(change) - len(better) - len(worse))

    def sample(self, each: int, first: int) -> tuple[list[int], list[int]]:
        """Rows of documents that got better and worse, drawn evenly over all of them.

        Args:
            each: At most so many of either.
            first: So many of them are those that changed most.
        """
        random = np.random.default_rng(0)
        better, worse = (_drawn(rows, each, first, random) for rows in (self.better, self.worse))
        return better, worse


def _at(part: RankingPart, column: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """[N] right labels and [N] nDCG at one of the depths."""
    hits = part.hits[:, :, column].sum(axis=1, dtype=np.int64)
    return hits, np.asarray(part.ndcg[:, column])


def _drawn(
    rows: NDArray[np.int64], count: int, first: int, random: np.random.Generator
) -> list[int]:
    top, rest = rows[:first], rows[first:]
    places = random.choice(len(rest), min(count - len(top), len(rest)), replace=False)
    return [*top.tolist(), *rest[np.sort(places)].tolist()]
