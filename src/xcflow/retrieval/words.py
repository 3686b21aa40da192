"""Labels by the words of their texts: the cosine of TF-IDF vectors.

Dense vectors blur rare words; where a text names a label by a word that training never showed, only
the word itself tells. Counts weigh 1 + ln(count), words ln((1 + L) / (1 + labels with it)) + 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.string_table import StringTable
from xcflow.ragged import Ragged
from xcflow.retrieval.distinct import distinct
from xcflow.topk import TopK, best_of

# Scripts that put no space between words are cut into characters; elsewhere a word may be a single
# letter or digit, as in short codes.
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")

_TEXTS_PER_BLOCK = 50_000
_SPARSE = 64  # labels for each posting above which sorting the postings is less work


class WordVectors(NamedTuple):
    """TF-IDF vectors of N texts.

    Attributes:
        words: N rows of word rows.
        weights: [T] the weight of each of ``words.data``; a text's have a norm of 1.
    """

    words: Ragged
    weights: NDArray[np.float32]


class WordIndex:
    """TF-IDF vectors of label texts and the inverted lists of their words.

    Args:
        vocabulary: The V words of the label texts.
        weights: [V] inverse document frequency of each.
        labels: The vectors of L label texts.
        longest: Words in more labels propose none; they count in cosines all the same.
    """

    def __init__(
        self,
        vocabulary: StringTable,
        weights: NDArray[np.float32],
        labels: WordVectors,
        longest: int | None = None,
    ) -> None:
        self._vocabulary = vocabulary
        self._weights = weights
        self._labels = labels
        self._longest = longest
        self._postings, self._posted = _inverted(labels, len(weights), longest)

    @classmethod
    def build(cls, label_texts: Sequence[str], longest: int | None = None) -> Self:
        """Index label texts."""
        rows: dict[str, int] = {}
        parts = []
        for start in range(0, max(len(label_texts), 1), _TEXTS_PER_BLOCK):
            counts = [_counted(text) for text in label_texts[start : start + _TEXTS_PER_BLOCK]]
            for word in chain.from_iterable(counts):
                rows.setdefault(word, len(rows))
            numbered = [{rows[word]: n for word, n in count.items()} for count in counts]
            parts.append(_arrays(numbered))
        words = Ragged.concatenate([words for words, _ in parts])
        counts_of = np.concatenate([counts for _, counts in parts])
        weights = np.log((1.0 + len(label_texts)) / (1.0 + words.counts(len(rows)))) + 1.0
        weights = weights.astype(np.float32)
        vectors = _weighted(words, counts_of, weights)
        return cls(StringTable.from_list(list(rows)), weights, vectors, longest)

    def vectors(self, texts: Sequence[str]) -> WordVectors:
        """The vectors of texts; words that no label has are left out."""
        counts = [_counted(text) for text in texts]
        rows = iter(self._vocabulary.find([word for count in counts for word in count]).tolist())
        known = [{row: n for n in count.values() if (row := next(rows)) >= 0} for count in counts]
        return _weighted(*_arrays(known), self._weights)

    def search(self, queries: WordVectors, k: int) -> TopK:
        """The ``k`` labels with the highest cosine; labels without a common word are left out.

        Of equally similar labels the one of the lower row comes first. Words in too many labels
        (``longest``) are passed over here.
        """
        best = TopK.none(len(queries.words), k)
        sums = np.zeros(len(self._labels.words), np.float32)
        offsets = self._postings.offsets
        for row, (start, stop) in enumerate(_bounds(queries.words)):
            listed = []
            for word, weight in zip(
                queries.words.data[start:stop].tolist(), queries.weights[start:stop], strict=True
            ):
                part = slice(offsets[word], offsets[word + 1])
                listed.append(self._postings.data[part])
                sums[listed[-1]] += weight * self._posted[part]
            if not any(map(len, listed)):
                continue
            touched = np.concatenate(listed)
            few = len(touched) * _SPARSE < len(sums)
            # Of truth values, because zeros are found eight times as fast among them.
            found = distinct(touched) if few else np.flatnonzero(sums > 0.0)
            labels, scores = best_of(found, sums[found], k)
            best.labels[row, : len(labels)] = labels
            best.scores[row, : len(labels)] = scores
            sums[touched] = 0.0
        return best

    def cosines(
        self, queries: WordVectors, rows: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """[T] cosine of query ``rows[t]`` (rising) and label ``labels[t]``, over all words."""
        weight_of = np.zeros(len(self._weights), np.float32)
        pairs = np.searchsorted(rows, np.arange(len(queries.words) + 1))
        cosines = np.zeros(len(rows), np.float32)
        for row, (start, stop) in enumerate(_bounds(queries.words)):
            words = queries.words.data[start:stop]
            weight_of[words] = queries.weights[start:stop]
            places, offsets = self._labels.words.places(labels[pairs[row] : pairs[row + 1]])
            products = self._labels.weights[places] * weight_of[self._labels.words.data[places]]
            sums = np.concatenate(([0.0], np.cumsum(products, dtype=np.float64)))
            cosines[pairs[row] : pairs[row + 1]] = sums[offsets[1:]] - sums[offsets[:-1]]
            weight_of[words] = 0.0
        return cosines

    def restricted_to(self, only: NDArray[np.bool_]) -> Self:
        """The same weights and rows, of which a search finds those marked in [L]."""
        words, weights = self._labels
        kept = np.repeat(only, words.lengths)
        labels = WordVectors(words.keep(kept), weights[kept])
        return type(self)(self._vocabulary, self._weights, labels, self._longest)

    def save(self, folder: Path) -> None:
        """Write into a new folder."""
        folder.mkdir()
        self._vocabulary.save(folder / "vocabulary")
        arrays: dict[str, NDArray[Any]] = {
            "weights": self._weights,
            "offsets": self._labels.words.offsets,
        }
        arrays |= {"words": self._labels.words.data, "values": self._labels.weights}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path, longest: int | None = None) -> Self:
        """Open what ``save`` wrote."""
        parts = ("values", "words", "offsets", "weights")
        values, words, offsets, weights = (
            np.load(folder / f"{name}.npy", allow_pickle=False) for name in parts
        )
        labels = WordVectors(Ragged(words, offsets), values)
        return cls(StringTable.load(folder / "vocabulary"), weights, labels, longest)


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def _counted(text: str) -> dict[str, int]:
    return Counter(words_of(text))


def _arrays(counts: Sequence[Mapping[int, int]]) -> tuple[Ragged, NDArray[np.float32]]:
    """Rows of word rows, and the count of each."""
    words = Ragged.from_rows([list(count) for count in counts])
    values = chain.from_iterable(count.values() for count in counts)
    return words, np.fromiter(values, np.float32, len(words.data))


def _weighted(
    words: Ragged, counts: NDArray[np.float32], weights: NDArray[np.float32]
) -> WordVectors:
    """Vectors of norm 1 from counts [T]."""
    values = (1.0 + np.log(counts)) * weights[words.data]
    rows = words.row_ids()
    norms = np.sqrt(np.bincount(rows, values.astype(np.float64) ** 2, len(words)))
    return WordVectors(words, (values / norms[rows]).astype(np.float32))


def _inverted(
    labels: WordVectors, words: int, longest: int | None
) -> tuple[Ragged, NDArray[np.float32]]:
    """The labels of each word, rising, and its weight in each; none for words in too many."""
    data = labels.words.data
    order = np.argsort(data, kind="stable")
    counts = np.bincount(data, minlength=words)
    kept = np.ones(words, np.bool_) if longest is None else counts <= longest
    order = order[kept[data[order]]]
    offsets = np.concatenate(([0], np.cumsum(np.where(kept, counts, 0))))
    rows = labels.words.row_ids()[order].astype(np.int32)
    return Ragged(rows, offsets), labels.weights[order]


def _bounds(rows: Ragged) -> list[tuple[int, int]]:
    """Where each row begins and ends."""
    return list(zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True))
