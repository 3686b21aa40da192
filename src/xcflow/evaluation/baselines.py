"""What any trained model must beat: matching label texts by words, and by the untrained encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from xcflow.catalogue.dataset import Dataset
from xcflow.config import EncoderConfig
from xcflow.encoders.build import initial_encoder
from xcflow.evaluation.rankers import Ranker
from xcflow.progress import progress
from xcflow.ragged import Ragged
from xcflow.retrieval.exact import search
from xcflow.topk import TopK

# Scripts that put no space between words are cut into characters; elsewhere a word may be a single
# letter or digit, as in short codes.
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_TOKEN = rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+"

POSTINGS_PER_BLOCK = 8_000_000
ENCODE_BLOCK = 5_000


def baseline_rankers(dataset: Dataset, encoder: EncoderConfig) -> list[Ranker]:
    """Both baselines, as rankers of an evaluation.

    Args:
        dataset: Its label texts are matched.
        encoder: The encoder that the candidate was trained from.
    """
    tfidf = TfidfBaseline(dataset.labels.texts.to_list())
    untrained = UntrainedBaseline(dataset, encoder)
    return [
        lambda queries, k: {"baseline_tfidf": tfidf.top_k(queries.texts, k)},
        lambda queries, k: {"baseline_untrained": untrained.top_k(queries.tokens, k)},
    ]


class TfidfBaseline:
    """Labels ranked by the cosine of the TF-IDF vectors of the document and the label text.

    Counts are taken as ``1 + ln(count)``, the smoothed idf comes from the label texts.

    Args:
        label_texts: The text of each label.
    """

    def __init__(self, label_texts: Sequence[str]) -> None:
        self._vectoriser = TfidfVectorizer(
            token_pattern=_TOKEN, sublinear_tf=True, dtype=np.float32
        )
        analyse = self._vectoriser.build_analyzer()
        self._has_words = any(analyse(text) for text in label_texts)
        if self._has_words:
            self._labels = self._vectoriser.fit_transform(label_texts).T.tocsr()

    def top_k(self, texts: Sequence[str], k: int) -> TopK:
        """The ``k`` labels with the highest cosine; labels without a common word are left out.

        Of equally similar labels the one of the lower row comes first.
        """
        best = TopK.none(len(texts), k)
        if not self._has_words or not texts:
            return best
        queries = self._vectoriser.transform(texts)
        for start, stop in self._blocks(queries):
            similar = queries[start:stop] @ self._labels
            for row in range(stop - start):
                begin, end = similar.indptr[row : row + 2]
                labels, scores = best_of(similar.indices[begin:end], similar.data[begin:end], k)
                best.labels[start + row, : len(labels)] = labels
                best.scores[start + row, : len(labels)] = scores
        return best

    def _blocks(self, queries: sparse.csr_matrix[Any]) -> Iterator[tuple[int, int]]:
        """Ranges of rows whose products with the labels stay small."""
        postings = np.diff(self._labels.indptr)
        work = np.concatenate(([0], np.cumsum(postings[queries.indices])))[queries.indptr]
        start = 0
        while start < queries.shape[0]:
            stop = int(np.searchsorted(work, work[start] + POSTINGS_PER_BLOCK, side="right")) - 1
            stop = max(stop, start + 1)
            yield start, stop
            start = stop


class UntrainedBaseline:
    """Labels ranked by the cosine of vectors from the encoder before training, searched exactly.

    Args:
        dataset: Its label texts are matched; its tokenizer made all tokens.
        encoder: Which encoder.
    """

    def __init__(self, dataset: Dataset, encoder: EncoderConfig) -> None:
        self._encoder = initial_encoder(encoder, dataset)
        tokens = dataset.labels.tokens
        self._labels = np.empty((len(tokens), self._encoder.dim), np.float32)
        with progress("labels by the untrained encoder", len(tokens), "texts") as advance:
            for start in range(0, len(tokens), ENCODE_BLOCK):
                block = tokens.slice(start, min(start + ENCODE_BLOCK, len(tokens)))
                self._labels[start : start + len(block)] = self._encoder.encode(block).numpy()
                advance(len(block))

    def top_k(self, tokens: Ragged, k: int) -> TopK:
        """The ``k`` labels with the highest cosine."""
        return search(self._encoder.encode(tokens).numpy(), self._labels, k)


def best_of(
    labels: NDArray[np.integer[Any]], scores: NDArray[np.floating[Any]], k: int
) -> tuple[NDArray[np.integer[Any]], NDArray[np.floating[Any]]]:
    """The ``k`` best labels, best first; of equal scores the lower row comes first."""
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = scores >= threshold
        labels, scores = labels[chosen], scores[chosen]
    order = np.lexsort((labels, -scores))[:k]
    return labels[order], scores[order]
