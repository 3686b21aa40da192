"""Labels by the words of their texts: the cosine of TF-IDF vectors.

Dense vectors blur rare words; where a text names a label by a word that training never showed, only
the word itself tells. Counts weigh 1 + ln(count), words ln((1 + L) / (1 + labels with it)) + 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from xcflow.catalogue.string_table import StringTable
from xcflow.topk import TopK, best_of

# Scripts that put no space between words are cut into characters; elsewhere a word may be a single
# letter or digit, as in short codes.
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")

_POSTINGS_PER_BLOCK = 8_000_000
_TEXTS_PER_BLOCK = 50_000

Matrix = sparse.csr_matrix[Any]


class WordIndex:
    """TF-IDF vectors of label texts and the inverted lists of their words.

    Args:
        vocabulary: The V words of the label texts.
        weights: [V] inverse document frequency of each.
        labels: [L, V] unit rows.
        longest: Words in more labels propose none; they count in cosines all the same.
    """

    def __init__(
        self,
        vocabulary: StringTable,
        weights: NDArray[np.float32],
        labels: Matrix,
        longest: int | None = None,
    ) -> None:
        self._vocabulary = vocabulary
        self._weights = weights
        self._labels = labels
        self._longest = longest
        postings = labels.T.tocsr()
        if longest is not None:
            keep = sparse.diags((np.diff(postings.indptr) <= longest).astype(np.float32))
            postings = (keep @ postings).tocsr()
            postings.eliminate_zeros()
        self._postings: Matrix = postings

    @classmethod
    def build(cls, label_texts: Sequence[str], longest: int | None = None) -> Self:
        """Index label texts."""
        rows: dict[str, int] = {}
        found = _counted(label_texts, rows)
        frequency = np.bincount(found.indices, minlength=len(rows))
        weights = np.log((1.0 + len(label_texts)) / (1.0 + frequency)) + 1.0
        labels = _unit(found, weights.astype(np.float32))
        return cls(StringTable.from_list(list(rows)), weights.astype(np.float32), labels, longest)

    def vectors(self, texts: Sequence[str]) -> Matrix:
        """[N, V] unit rows of texts; words that no label has are left out."""
        counts = [Counter(words_of(text)) for text in texts]
        words = [word for count in counts for word in count]
        rows = iter(self._vocabulary.find(words).tolist())
        known = [{row: n for n in count.values() if (row := next(rows)) >= 0} for count in counts]
        return _unit(_matrix(known, len(self._weights)), self._weights)

    def search(self, queries: Matrix, k: int) -> TopK:
        """The ``k`` labels with the highest cosine; labels without a common word are left out.

        Of equally similar labels the one of the lower row comes first. Words in too many labels
        (``longest``) are passed over here.
        """
        best = TopK.none(queries.shape[0], k)
        for start, stop in self._blocks(queries):
            similar = queries[start:stop] @ self._postings
            for row in range(stop - start):
                begin, end = similar.indptr[row : row + 2]
                labels, scores = best_of(similar.indices[begin:end], similar.data[begin:end], k)
                best.labels[start + row, : len(labels)] = labels
                best.scores[start + row, : len(labels)] = scores
        return best

    def cosines(
        self, queries: Matrix, rows: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """[T] cosine of query ``rows[t]`` and label ``labels[t]``, over all words."""
        common = queries[rows].multiply(self._labels[labels])
        return np.asarray(common.sum(axis=1), np.float32).ravel()

    def _blocks(self, queries: Matrix) -> Iterator[tuple[int, int]]:
        """Ranges of rows whose products with the labels stay small."""
        postings = np.diff(self._postings.indptr)
        work = np.concatenate(([0], np.cumsum(postings[queries.indices])))[queries.indptr]
        start = 0
        while start < queries.shape[0]:
            stop = int(np.searchsorted(work, work[start] + _POSTINGS_PER_BLOCK, side="right")) - 1
            stop = max(stop, start + 1)
            yield start, stop
            start = stop

    def restricted_to(self, only: NDArray[np.bool_]) -> Self:
        """The same weights and rows, of which a search finds those marked in [L]."""
        labels = (sparse.diags(only.astype(np.float32)) @ self._labels).tocsr()
        labels.eliminate_zeros()
        return type(self)(self._vocabulary, self._weights, labels, self._longest)

    def save(self, folder: Path) -> None:
        """Write into a new folder."""
        folder.mkdir()
        self._vocabulary.save(folder / "vocabulary")
        arrays = {"weights": self._weights, "offsets": self._labels.indptr}
        arrays |= {"words": self._labels.indices, "values": self._labels.data}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path, longest: int | None = None) -> Self:
        """Open what ``save`` wrote."""
        parts = ("values", "words", "offsets", "weights")
        data, indices, indptr, weights = (
            np.load(folder / f"{name}.npy", allow_pickle=False) for name in parts
        )
        shape = (len(indptr) - 1, len(weights))
        labels: Matrix = sparse.csr_matrix((data, indices, indptr), shape=shape)
        return cls(StringTable.load(folder / "vocabulary"), weights, labels, longest)


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def _counted(texts: Sequence[str], rows: dict[str, int]) -> Matrix:
    """[N, V] counts of words; new words are numbered in ``rows``.

    Counters are large, so they are made for some texts at a time.
    """
    parts = []
    for start in range(0, max(len(texts), 1), _TEXTS_PER_BLOCK):
        counts = [Counter(words_of(text)) for text in texts[start : start + _TEXTS_PER_BLOCK]]
        for count in counts:
            for word in count:
                rows.setdefault(word, len(rows))
        numbered = [{rows[word]: n for word, n in count.items()} for count in counts]
        part = _matrix(numbered, len(rows))
        parts.append((part.data, part.indices, part.indptr))
    shapes = [(len(indptr) - 1, len(rows)) for _, _, indptr in parts]
    matrices = [
        sparse.csr_matrix(part, shape=shape) for part, shape in zip(parts, shapes, strict=True)
    ]
    counted: Matrix = sparse.vstack(matrices, "csr")
    return counted


def _matrix(counts: Sequence[dict[int, int]], width: int) -> Matrix:
    """[N, width] of counts, columns rising in each row."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum([len(count) for count in counts], out=offsets[1:])
    columns = np.fromiter((c for count in counts for c in count), np.int64, int(offsets[-1]))
    values = np.fromiter((n for count in counts for n in count.values()), np.float32, len(columns))
    matrix: Matrix = sparse.csr_matrix((values, columns, offsets), shape=(len(counts), width))
    matrix.sort_indices()
    return matrix


def _unit(counts: Matrix, weights: NDArray[np.float32]) -> Matrix:
    """Counts as weighted rows of norm 1 (0 where there is no word)."""
    counts.data = (1.0 + np.log(counts.data)) * weights[counts.indices]
    norms = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    per_value = np.repeat(norms, np.diff(counts.indptr))
    counts.data = (counts.data / np.maximum(per_value, 1e-12)).astype(np.float32)
    return counts
