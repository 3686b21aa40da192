"""The models of an evaluation behind one signature: documents in, rows of labels out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.string_table import StringTable
from xcflow.phases import phase
from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL, TopK


class Queries(NamedTuple):
    """Documents to rank labels for.

    Attributes:
        texts: Their texts.
        tokens: Their token ids in the data set.
    """

    texts: list[str]
    tokens: Ragged


# (queries, k) -> name of a model -> its k best labels. A ranker may hold several models that share
# work; it always answers with the same names.
Ranker = Callable[[Queries, int], Mapping[str, TopK]]


class VoicedPredictor(Protocol):
    """What an evaluation needs of a predictor."""

    @property
    def label_ids(self) -> StringTable:
        """Ids of the labels whose rows it answers with."""

    def top_k(self, texts: Sequence[str], k: int) -> TopK:
        """The ``k`` best labels by its main voice."""

    def top_k_voices(self, texts: Sequence[str], k: int) -> Mapping[str, TopK]:
        """The ``k`` best labels by each of its voices."""

    def probabilities(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """What scores of its main voice mean as probabilities."""


class BundleRanker:
    """A bundle, whose labels may differ from the data set's in number and order.

    Labels are matched by id. Predictions of labels that the data set lacks are dropped, and the
    bundle is asked for more in their place.

    Args:
        predictor: The loaded bundle.
        digest: The identity of the bundle.
        label_ids: Ids of the data set's labels.
        names: Voice of the bundle -> name of the model in the evaluation; others stay silent.
    """

    def __init__(
        self,
        predictor: VoicedPredictor,
        digest: str,
        label_ids: StringTable,
        names: Mapping[str, str],
    ) -> None:
        self.predictor = predictor
        self._digest = digest
        self._names = dict(names)
        self._rows = label_ids.find(predictor.label_ids.to_list()).astype(np.int32)
        self._unknown = int((self._rows < 0).sum())
        self._missing = len(label_ids) - (len(self._rows) - self._unknown)

    def facts(self) -> dict[str, Any]:
        """Which bundle it is, and how its labels and the data set's differ.

        Predictions of ``unknown_labels`` were dropped; ``missing_labels`` it can never predict.
        """
        return {
            "bundle": self._digest,
            "unknown_labels": self._unknown,
            "missing_labels": self._missing,
        }

    def __call__(self, queries: Queries, k: int) -> Mapping[str, TopK]:
        """The ``k`` best labels by each voice."""
        with phase("bundles"):
            voices = self.predictor.top_k_voices(queries.texts, k + min(self._unknown, k))
        return {name: self._mapped(voices[voice], k) for voice, name in self._names.items()}

    def _mapped(self, top: TopK, k: int) -> TopK:
        labels = np.where(top.labels == NO_LABEL, NO_LABEL, self._rows[top.labels])
        return TopK(labels, top.scores).keep(labels != NO_LABEL, k)
