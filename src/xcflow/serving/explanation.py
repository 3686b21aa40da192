"""Why a label answers a text: what each voice says of it, its kin, and the documents behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.string_table import StringTable
from xcflow.ragged import Ragged
from xcflow.retrieval.fusion import FEATURES, VOICES, Fusion
from xcflow.retrieval.voices import Questions, Voices
from xcflow.topk import NO_LABEL

_SIBLINGS = 5
_DOCUMENTS = 3
_NEAREST = 200  # labels among which siblings are looked for
# The features that come from each voice; the label's frequency comes from none.
_FEATURES_OF = {
    "encoder": ("encoder",),
    "classifier": ("classifier",),
    "vote": ("vote", "sqrt_vote", "nearest"),
    "words": ("words",),
}


@dataclass(frozen=True)
class Said:
    """What a voice says of a label.

    Attributes:
        score: A cosine, or the share of the neighbours' votes.
        contribution: What it adds to the label's score, against the mean of the text's proposals:
            its Shapley value, so the voices together make the difference.
    """

    score: float
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Why a label answers a text.

    Attributes:
        label: Its row.
        documents: Training documents that its classifier learned from; 0: it has none.
        voices: Name of a voice -> what it says.
        siblings: Rows of the labels most like it among those that share its auxiliary vector, or
            among all labels where it shares none.
        shares_vector: Whether the siblings share it.
        evidence: The nearest training documents that carry it, as (beginning of the text, cosine).
    """

    label: int
    documents: int
    voices: Mapping[str, Said]
    siblings: list[int]
    shares_vector: bool
    evidence: list[tuple[str, float]]


class Explainer:
    """Explains the answers of a model.

    Args:
        voices: Its voices.
        fusion: What weighs them.
        counts: [L] documents of each label that its classifier learned from.
        clusters: [L] the auxiliary vector of each label; negative for none.
        texts: Of each document that votes, the beginning of its text.
        shortlist: Labels that each voice proposes.
    """

    def __init__(
        self,
        voices: Voices,
        fusion: Fusion,
        counts: NDArray[np.int64],
        clusters: NDArray[np.int64],
        texts: StringTable,
        shortlist: int,
    ) -> None:
        self._voices = voices
        self._fusion = fusion
        self._counts = counts
        self._clusters = clusters
        self._texts = texts
        self._shortlist = shortlist

    def explain(self, question: Questions, labels: NDArray[np.int64]) -> list[Explanation]:
        """Explain some labels of one document."""
        heard = self._voices.listen(question, self._shortlist)
        also = Ragged(labels, np.array([0, len(labels)]))
        proposals = self._voices.propose(question, heard, also)
        features = proposals.features(self._counts)
        places = np.searchsorted(proposals.labels.data, labels)
        shares = contributions(self._fusion, features, places)
        scores = {voice: getattr(proposals, voice)[places] for voice in VOICES}
        return [
            Explanation(
                label,
                int(self._counts[label]),
                {v: Said(float(scores[v][i]), float(shares[v][i])) for v in VOICES},
                *self._siblings(label),
                self._evidence(question.vectors[0], label),
            )
            for i, label in enumerate(labels.tolist())
        ]

    def _siblings(self, label: int) -> tuple[list[int], bool]:
        """Labels most like a label, and whether they share its auxiliary vector."""
        cluster = self._clusters[label]
        kin = np.flatnonzero(self._clusters == cluster) if cluster >= 0 else np.empty(0, np.int64)
        kin = kin[kin != label]
        vector = np.asarray(self._voices.labels.vectors[label], np.float32)
        if len(kin):
            scores = np.asarray(self._voices.labels.vectors[kin], np.float32) @ vector
            return kin[np.argsort(-scores, kind="stable")[:_SIBLINGS]].tolist(), True
        near = self._voices.by_encoder(vector[None], _SIBLINGS + 1).labels[0]
        return [row for row in near.tolist() if row not in (label, NO_LABEL)][:_SIBLINGS], False

    def _evidence(self, vector: NDArray[np.float32], label: int) -> list[tuple[str, float]]:
        """The nearest documents that carry a label."""
        carried = self._voices.document_labels
        at = np.flatnonzero(carried.data == label)
        rows = np.searchsorted(carried.offsets, at, side="right") - 1
        cosines = np.asarray(self._voices.documents.vectors[rows], np.float32) @ vector
        best = np.argsort(-cosines, kind="stable")[:_DOCUMENTS]
        return [(self._texts[int(rows[i])], float(cosines[i])) for i in best]


def contributions(
    fusion: Fusion, features: NDArray[np.float32], rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float32]]:
    """What each voice adds to the scores of some proposals: Shapley values (Shapley, 1953).

    A voice that is left out says of each proposal what it says of them on average.

    Args:
        fusion: What weighs the voices.
        features: [T, F] of a document's proposals.
        rows: [N] the proposals that are asked about.

    Returns:
        Name of a voice -> [N]; their sum is the score less that of a proposal of which all voices
        say the average.
    """
    columns = {
        voice: [FEATURES.index(feature) for feature in _FEATURES_OF[voice]] for voice in VOICES
    }
    mean, own = features.mean(axis=0), features[rows]

    def score(heard: frozenset[str]) -> NDArray[np.float32]:
        muted = own.copy()
        for voice in set(VOICES) - heard:
            muted[:, columns[voice]] = mean[columns[voice]]
        return fusion.score(muted)

    subsets = [frozenset(s) for n in range(len(VOICES) + 1) for s in combinations(VOICES, n)]
    scores = {subset: score(subset) for subset in subsets}
    shares = {voice: np.zeros(len(rows), np.float32) for voice in VOICES}
    for subset in subsets:
        for voice in set(VOICES) - subset:
            others = len(VOICES) - len(subset) - 1
            weight = factorial(len(subset)) * factorial(others) / factorial(len(VOICES))
            shares[voice] += weight * (scores[subset | {voice}] - scores[subset])
    return shares
