"""The models of an evaluation behind one signature: documents in, rows of labels out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.string_table import StringTable
from xcflow.distributed.world import World
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


def dealt_among(world: World, ranker: Ranker) -> Ranker:
    """The same ranker, to which each rank brings all documents and answers those dealt to it."""
    if world.alone:
        return ranker
    from xcflow.distributed.rankings import rankings_of_ranks

    def rank(queries: Queries, k: int) -> Mapping[str, TopK]:
        documents = len(queries.texts)
        own = world.dealt(documents)
        # Who has none answers one all the same: the others wait for answers of its kind.
        asked = own if len(own) else np.arange(1)
        part = Queries([queries.texts[row] for row in asked], queries.tokens.take(asked))
        return {
            name: rankings_of_ranks(world, top.first(len(own)), documents)
            for name, top in ranker(part, k).items()
        }

    return rank


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

    def nearest_labels(self, labels: NDArray[np.integer[Any]], k: int) -> NDArray[np.int32]:
        """[N, k] the other labels that are most like N label rows."""

    def restricted_to(self, only: NDArray[np.bool_]) -> Self:
        """The same predictor, which names none but the labels marked in ``only``."""


class BundleRanker:
    """A bundle, whose labels may differ from the data set's in number and order.

    Labels are matched by id. Predictions of labels that the data set lacks are dropped, and the
    bundle is asked for more in their place.

    Args:
        predictor: The loaded bundle.
        digest: The identity of the bundle.
        label_ids: Ids of the data set's labels.
        names: Voice of the bundle -> name of the model in the evaluation; others stay silent.
        facts: What else is known of the bundle, as JSON values.

    Attributes:
        predictor: The loaded bundle.
        knows: [L] which of the data set's labels it can predict.
    """

    def __init__(
        self,
        predictor: VoicedPredictor,
        digest: str,
        label_ids: StringTable,
        names: Mapping[str, str],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.predictor = predictor
        self._digest = digest
        self._facts = dict(facts or {})
        self._names = dict(names)
        self._rows = label_ids.find(predictor.label_ids.to_list()).astype(np.int32)
        self._unknown = int((self._rows < 0).sum())
        self.knows = np.zeros(len(label_ids), np.bool_)
        self.knows[self._rows[self._rows >= 0]] = True

    def facts(self) -> dict[str, Any]:
        """Which bundle it is, and how its labels and the data set's differ.

        Predictions of ``unknown_labels`` were dropped; ``missing_labels`` it can never predict.
        """
        return {
            "bundle": self._digest,
            "unknown_labels": self._unknown,
            "missing_labels": int((~self.knows).sum()),
            **self._facts,
        }

    def __call__(self, queries: Queries, k: int) -> Mapping[str, TopK]:
        """The ``k`` best labels by each voice."""
        with phase("bundles"):
            voices = self.predictor.top_k_voices(queries.texts, k + min(self._unknown, k))
        return {
            name: self._mapped(voices[voice], k, self.knows) for voice, name in self._names.items()
        }

    def restricted_to(self, labels: NDArray[np.bool_]) -> Callable[[Queries, int], TopK]:
        """Its main voice, were the labels of the data set marked in [L] the only ones it knows."""
        only = (self._rows != NO_LABEL) & labels[self._rows]
        predictor = self.predictor if only.all() else self.predictor.restricted_to(only)
        return lambda queries, k: self._mapped(predictor.top_k(queries.texts, k), k, labels)

    def nearest_labels(self, labels: NDArray[np.integer[Any]], k: int) -> NDArray[np.int32]:
        """[N, k] the labels that are most like N others, all as rows of the data set.

        ``NO_LABEL`` stands for one that the data set lacks, and fills the rows of labels that the
        bundle lacks.
        """
        own = np.full(len(self.knows), NO_LABEL, np.int64)
        known = np.flatnonzero(self._rows != NO_LABEL)
        own[self._rows[known]] = known
        asked = own[labels] != NO_LABEL
        found = np.full((len(labels), k), NO_LABEL, np.int32)
        nearest = self.predictor.nearest_labels(own[labels[asked]], k)
        found[asked] = np.where(nearest == NO_LABEL, NO_LABEL, self._rows[nearest])
        return found

    def _mapped(self, top: TopK, k: int, wanted: NDArray[np.bool_]) -> TopK:
        labels = np.where(top.labels == NO_LABEL, NO_LABEL, self._rows[top.labels])
        kept = (labels != NO_LABEL) & wanted[labels]
        return TopK(labels, top.scores).keep(kept, k)
