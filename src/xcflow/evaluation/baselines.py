"""What any trained model must beat: matching label texts by words, and by the untrained encoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xcflow.catalogue.dataset import Dataset
from xcflow.config import EncoderConfig
from xcflow.encoders.build import initial_encoder
from xcflow.evaluation.rankers import Ranker
from xcflow.phases import phase
from xcflow.progress import progress
from xcflow.ragged import Ragged
from xcflow.retrieval.exact import search
from xcflow.retrieval.words import WordIndex
from xcflow.topk import TopK

ENCODE_BLOCK = 5_000


def baseline_rankers(dataset: Dataset, encoder: EncoderConfig) -> list[Callable[[], Ranker]]:
    """What makes each baseline, as rankers of an evaluation.

    Args:
        dataset: Its label texts are matched.
        encoder: The encoder that the candidate was trained from.
    """

    def words() -> Ranker:
        index = WordIndex.build(dataset.labels.texts.to_list())
        return lambda queries, k: {"baseline_tfidf": index.search(index.vectors(queries.texts), k)}

    def untrained() -> Ranker:
        baseline = UntrainedBaseline(dataset, encoder)
        return lambda queries, k: {"baseline_untrained": baseline.top_k(queries.tokens, k)}

    return [words, untrained]


class UntrainedBaseline:
    """Labels ranked by the cosine of vectors from the encoder before training, searched exactly.

    Args:
        dataset: Its label texts are matched; its tokenizer made all tokens.
        encoder: Which encoder.
    """

    def __init__(self, dataset: Dataset, encoder: EncoderConfig) -> None:
        self._encoder = initial_encoder(encoder, dataset)
        tokens = dataset.labels.tokens
        self._labels = np.empty((len(tokens), self._encoder.dim), np.float16)
        progressing = progress("labels by the untrained encoder", len(tokens), "texts")
        with phase("untrained encoder"), progressing as advance:
            for start in range(0, len(tokens), ENCODE_BLOCK):
                block = tokens.slice(start, min(start + ENCODE_BLOCK, len(tokens)))
                self._labels[start : start + len(block)] = self._encoder.encode(block).numpy()
                advance(len(block))

    def top_k(self, tokens: Ragged, k: int) -> TopK:
        """The ``k`` labels with the highest cosine."""
        with phase("untrained encoder"):
            return search(self._encoder.encode(tokens).numpy(), self._labels, k)
