"""The vectors and indexes of a model, and what each voice says of a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.progress import log
from xcflow.ragged import Ragged
from xcflow.retrieval.aside import aside
from xcflow.retrieval.distinct import distinct
from xcflow.retrieval.exact import search
from xcflow.retrieval.fusion import Proposals
from xcflow.retrieval.index import Candidates, Kind, VectorIndex, recall_at
from xcflow.retrieval.neighbours import vote
from xcflow.retrieval.words import WordIndex, WordVectors
from xcflow.topk import NO_LABEL, TopK

# A word in more labels proposes none of them, which bounds the time of an answer.
POSTINGS = 2_000
_RECALLED = 100  # nearest vectors of a query that an index is measured by


class Questions(NamedTuple):
    """N documents as the voices take them.

    Attributes:
        vectors: [N, D] unit vectors.
        words: Their TF-IDF vectors.
    """

    vectors: NDArray[np.float32]
    words: WordVectors


class Heard(NamedTuple):
    """What the voices say of N documents.

    Attributes:
        encoder: Labels with the nearest vectors.
        classifier: Labels with the loudest classifiers.
        voted: N rows of label rows that neighbours carry.
        votes: The vote of each of ``voted.data``.
        nearest: [N] cosine of the nearest document that voted, -1 where none did.
        worded: Labels whose texts share the most telling words.
    """

    encoder: TopK
    classifier: TopK
    voted: Ragged
    votes: NDArray[np.float32]
    nearest: NDArray[np.float32]
    worded: TopK


@dataclass(frozen=True, eq=False)
class Voices:
    """Encoder side, classifiers, neighbouring documents, and the words of label texts.

    Attributes:
        labels: Augmented vectors of all L labels.
        classifiers: Classifiers of the M labels in use.
        in_use: [M] their label rows, rising.
        documents: Vectors of the training documents.
        document_labels: Label rows of each training document.
        neighbours: Documents that vote.
        temperature: Of the votes.
        words: Words of the label texts.
    """

    labels: VectorIndex
    classifiers: VectorIndex
    in_use: NDArray[np.int64]
    documents: VectorIndex
    document_labels: Ragged
    neighbours: int
    temperature: float
    words: WordIndex

    def ask(self, vectors: NDArray[np.float32], texts: Sequence[str]) -> Questions:
        """Documents by their unit vectors [N, D] and texts."""
        return Questions(vectors, self.words.vectors(texts))

    def by_encoder(self, queries: NDArray[np.float32], k: int) -> TopK:
        """The labels whose vectors lie nearest."""
        return self.labels.search(queries, k)

    def by_classifier(self, queries: NDArray[np.float32], k: int) -> TopK:
        """The labels whose classifiers answer loudest; labels not in use have none."""
        return self._named(self.classifiers.search(queries, k))

    def _named(self, found: TopK) -> TopK:
        """The same, named by labels instead of classifiers."""
        labels = np.where(found.labels == NO_LABEL, NO_LABEL, self.in_use[found.labels])
        return TopK(labels.astype(np.int32), found.scores)

    def by_neighbours(
        self, queries: NDArray[np.float32], forbidden: NDArray[np.bool_] | None = None
    ) -> tuple[Ragged, NDArray[np.float32]]:
        """Votes of the nearest documents: N rows of label rows, and the votes of each.

        Args:
            queries: [N, D].
            forbidden: [documents] which may not vote (those that are being asked about).
        """
        near = self.near(queries, forbidden)
        return vote(near, self.document_labels, len(self.labels), self.temperature)

    def near(
        self,
        queries: NDArray[np.float32],
        forbidden: NDArray[np.bool_] | None = None,
        muted: NDArray[np.int64] | None = None,
    ) -> TopK:
        """The nearest documents that may vote, and their cosines.

        Args:
            queries: [N, D].
            forbidden: [documents] which may not vote.
            muted: [N] how many of a query's nearest that may vote stay silent all the same.
        """
        if forbidden is None and muted is None:
            return self.documents.search(queries, self.neighbours)
        spare = self.neighbours if muted is None else self.neighbours + int(muted.max(initial=0))
        near = self.documents.search(queries, self.neighbours + spare)
        votes = near.labels != NO_LABEL
        if forbidden is not None:
            votes &= ~forbidden[near.labels]
        if muted is not None:
            votes &= np.cumsum(votes, axis=1) > muted[:, None]
        return near.keep(votes, self.neighbours)

    def listen(
        self,
        questions: Questions,
        depth: int,
        forbidden: NDArray[np.bool_] | None = None,
    ) -> Heard:
        """What each voice says.

        Args:
            questions: The documents.
            depth: Labels that encoder, classifiers and words name each.
            forbidden: As in ``by_neighbours``.
        """
        vectors = questions.vectors

        def compare() -> list[Candidates]:
            # Both scans first: they need no lock while the documents are scanned.
            indexes = (self.labels, self.classifiers)
            candidates = [index.candidates(vectors, depth) for index in indexes]
            pairs = zip(indexes, candidates, strict=True)
            return [index.compared(vectors, found) for index, found in pairs]

        # Many texts are shared among all cores as it is.
        compared = aside(compare) if len(vectors) == 1 else compare
        votes = self._votes(self.near(vectors, forbidden))
        worded = self.words.search(questions.words, depth)
        of_labels, of_classifiers = compared()
        return Heard(
            self.labels.best(of_labels, depth),
            self._named(self.classifiers.best(of_classifiers, depth)),
            *votes,
            worded,
        )

    def heard_without(
        self,
        heard: Heard,
        questions: Questions,
        forbidden: NDArray[np.bool_],
        muted: NDArray[np.int64],
    ) -> Heard:
        """The same, were the nearest voters not there; arguments as those of ``near``."""
        near = self.near(questions.vectors, forbidden, muted)
        voted, votes, nearest = self._votes(near)
        return heard._replace(voted=voted, votes=votes, nearest=nearest)

    def _votes(self, near: TopK) -> tuple[Ragged, NDArray[np.float32], NDArray[np.float32]]:
        votes = vote(near, self.document_labels, len(self.labels), self.temperature)
        return *votes, near.scores[:, 0].clip(min=-1.0)

    def propose(self, questions: Questions, heard: Heard, also: Ragged | None = None) -> Proposals:
        """All labels that any voice named, scored by all of them.

        Args:
            questions: The documents.
            heard: What ``listen`` gave for them.
            also: N rows of label rows to score whether they were named or not.
        """
        size, queries = len(self.labels), questions.vectors
        vote_keys = heard.voted.row_ids() * size + heard.voted.data
        named = [_keys(top, size) for top in (heard.encoder, heard.classifier, heard.worded)]
        if also is not None:
            named.append(also.row_ids() * size + also.data)
        keys = distinct(np.concatenate([vote_keys, *named]))
        rows, labels = np.divmod(keys, size)
        vote_of = np.zeros(len(keys), np.float32)
        vote_of[np.searchsorted(keys, vote_keys)] = heard.votes
        encoder = self.labels.products(queries, rows, labels)
        return Proposals(
            Ragged(labels.astype(np.int32), np.searchsorted(rows, np.arange(len(queries) + 1))),
            encoder,
            self._classifier_scores(queries, rows, labels, encoder),
            vote_of,
            self.words.cosines(questions.words, rows, labels),
            heard.nearest[rows],
        )

    def _classifier_scores(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        encoder: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        place = np.searchsorted(self.in_use, labels).clip(max=len(self.in_use) - 1)
        used = self.in_use[place] == labels
        scores = encoder.copy()
        scores[used] = self.classifiers.products(queries, rows[used], place[used])
        return scores

    def recall(self, queries: NDArray[np.float32]) -> dict[str, float]:
        """Name of an index -> the share of the exact 100 nearest of [N, D] that it finds."""
        found = {}
        for name in ("labels", "classifiers", "documents"):
            index: VectorIndex = getattr(self, name)
            exact = search(queries, index.vectors, _RECALLED)
            found[name] = recall_at(index.search(queries, _RECALLED), exact)
            log(f"index of {name}: {index.kind}, {len(index):,} vectors, recall {found[name]:.3f}")
        return found

    def restricted_to(self, only: NDArray[np.bool_]) -> Voices:
        """The same voices, which name none but the labels that are marked in [L]."""
        return replace(
            self,
            labels=self.labels.restricted_to(only),
            classifiers=self.classifiers.restricted_to(only[self.in_use]),
            document_labels=self.document_labels.keep(only[self.document_labels.data]),
            words=self.words.restricted_to(only),
        )

    def save(self, folder: Path) -> dict[str, Any]:
        """Write vectors and indexes; the result must be given to ``load``."""
        self.labels.save(folder / "label_vectors")
        self.classifiers.save(folder / "classifiers")
        np.save(folder / "labels_in_use.npy", self.in_use)
        self.documents.save(folder / "documents")
        self.document_labels.save(folder / "document_labels")
        self.words.save(folder / "words")
        return {
            "label_index": self.labels.kind,
            "classifier_index": self.classifiers.kind,
            "document_index": self.documents.kind,
            "neighbours": self.neighbours,
            "neighbour_temperature": self.temperature,
        }

    @classmethod
    def load(cls, folder: Path, settings: dict[str, Any]) -> Voices:
        """Open what ``save`` wrote."""

        def index(name: str, kind: Kind) -> VectorIndex:
            return VectorIndex.load(folder / name, kind)

        return cls(
            labels=index("label_vectors", settings["label_index"]),
            classifiers=index("classifiers", settings["classifier_index"]),
            in_use=np.load(folder / "labels_in_use.npy", allow_pickle=False),
            documents=index("documents", settings["document_index"]),
            document_labels=Ragged.load(folder / "document_labels"),
            neighbours=int(settings["neighbours"]),
            temperature=float(settings["neighbour_temperature"]),
            words=WordIndex.load(folder / "words", POSTINGS),
        )


def _keys(top: TopK, size: int) -> NDArray[np.int64]:
    """Row * size + label of all results."""
    keys = np.arange(len(top.labels))[:, None] * size + top.labels
    return np.asarray(keys[top.labels != NO_LABEL])
