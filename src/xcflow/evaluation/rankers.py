"""The models of an evaluation behind one signature: texts in, rows of the data set's labels out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from xcflow.catalogue.string_table import StringTable
from xcflow.topk import NO_LABEL, TopK

# (texts, k) -> name of a model -> its k best labels. A ranker may hold several models that share
# work; it always answers with the same names.
Ranker = Callable[[Sequence[str], int], Mapping[str, TopK]]


class Voices(Protocol):
    """What an evaluation needs of a predictor."""

    @property
    def label_ids(self) -> StringTable:
        """Ids of the labels whose rows it answers with."""

    def top_k_voices(self, texts: Sequence[str], k: int) -> Mapping[str, TopK]:
        """The ``k`` best labels by each of its voices."""


class BundleRanker:
    """A bundle, whose labels may differ from the data set's in number and order.

    Labels are matched by id. Predictions of labels that the data set lacks are dropped, and the
    bundle is asked for more in their place.

    Args:
        predictor: The loaded bundle.
        label_ids: Ids of the data set's labels.
        names: Voice of the bundle -> name of the model in the evaluation; others stay silent.

    Attributes:
        unknown_labels: Number of the bundle's labels that the data set lacks.
        missing_labels: Number of the data set's labels that the bundle lacks.
    """

    def __init__(self, predictor: Voices, label_ids: StringTable, names: Mapping[str, str]) -> None:
        self._predictor = predictor
        self._names = dict(names)
        self._rows = label_ids.find(predictor.label_ids.to_list()).astype(np.int32)
        self.unknown_labels = int((self._rows < 0).sum())
        self.missing_labels = len(label_ids) - (len(self._rows) - self.unknown_labels)

    def __call__(self, texts: Sequence[str], k: int) -> Mapping[str, TopK]:
        """The ``k`` best labels by each voice."""
        wanted = k + min(self.unknown_labels, k)
        voices = self._predictor.top_k_voices(texts, wanted)
        return {name: self._mapped(voices[voice], k) for voice, name in self._names.items()}

    def _mapped(self, top: TopK, k: int) -> TopK:
        labels = np.where(top.labels == NO_LABEL, NO_LABEL, self._rows[top.labels])
        return TopK(labels, top.scores).keep(labels != NO_LABEL, k)
