"""Proposals of the three voices against a slow reference."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xcflow.config import RetrievalConfig
from xcflow.ragged import Ragged
from xcflow.retrieval.fusion import FEATURES, Proposals
from xcflow.retrieval.index import Kind, VectorIndex
from xcflow.retrieval.voices import Questions, Voices
from xcflow.retrieval.words import WordIndex
from xcflow.topk import NO_LABEL

LABELS, DOCUMENTS, DIM = 15, 30, 4
LABEL_TEXTS = [f"{'abcde'[i % 5]} {'vwxyz'[i // 3 % 5]}" for i in range(LABELS)]
TEXTS = ["a v", "b", "c z q", "", "x x y", "nothing known", "d w e"]


def propose(
    voices: Voices,
    queries: NDArray[np.float32],
    shortlist: int,
    forbidden: NDArray[np.bool_] | None = None,
) -> Proposals:
    questions = ask(voices, queries)
    return voices.propose(questions, voices.listen(questions, shortlist, forbidden))


def ask(voices: Voices, vectors: NDArray[np.float32]) -> Questions:
    return voices.ask(vectors, TEXTS[: len(vectors)])


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_voices(
    in_use: Sequence[int] = (0, 2, 3, 7, 11, 14), neighbours: int = 4, kind: Kind = "flat"
) -> Voices:
    rng = np.random.default_rng(9)
    rows = [sorted(rng.choice(LABELS, int(rng.integers(0, 4)), replace=False)) for _ in range(30)]
    config = RetrievalConfig(index=kind, ivf_probe=1.0)
    return Voices(
        labels=VectorIndex.build(unit(LABELS, 1), config),
        classifiers=VectorIndex.build(unit(len(in_use), 2), config),
        in_use=np.array(in_use, np.int64),
        documents=VectorIndex.build(unit(DOCUMENTS, 3), config),
        document_labels=Ragged.from_rows(rows),
        neighbours=neighbours,
        temperature=0.1,
        words=WordIndex.build(LABEL_TEXTS),
    )


def slow_proposals(
    voices: Voices, query: np.ndarray, shortlist: int, forbidden: np.ndarray, text: str = ""
) -> dict[int, tuple[float, float, float, float]]:
    """Label -> encoder's, classifier's, neighbours' and words' score."""
    encoder = voices.labels.vectors @ query
    classifier = encoder.copy()
    classifier[voices.in_use] = voices.classifiers.vectors @ query
    near = [d for d in np.argsort(-(voices.documents.vectors @ query)) if not forbidden[d]]
    near = near[: voices.neighbours]
    weights = np.exp((voices.documents.vectors @ query)[near] / voices.temperature)
    votes: dict[int, float] = {}
    for document, weight in zip(near, weights / weights.sum(), strict=True):
        for label in voices.document_labels[document].tolist():
            votes[label] = votes.get(label, 0.0) + float(weight)
    used = voices.in_use[np.argsort(-(voices.classifiers.vectors @ query))[:shortlist]]
    index = WordIndex.build(LABEL_TEXTS)
    asked = index.vectors([text])
    worded = [x for x in index.search(asked, shortlist).labels[0].tolist() if x != NO_LABEL]
    words = index.cosines(asked, np.zeros(LABELS, np.int64), np.arange(LABELS))
    proposed = {*np.argsort(-encoder)[:shortlist].tolist(), *used.tolist(), *votes, *worded}
    return {x: (encoder[x], classifier[x], votes.get(x, 0.0), words[x]) for x in sorted(proposed)}


@pytest.mark.parametrize("shortlist", [1, 3, 50])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_every_proposal_is_scored_by_all(shortlist: int, share: float):
    voices, queries = make_voices(), unit(6, 5)
    forbidden = np.random.default_rng(4).random(DOCUMENTS) < share
    found = propose(voices, queries, shortlist, forbidden if share else None)
    assert len(found.labels) == 6
    for i, query in enumerate(queries):
        expected = slow_proposals(voices, query, shortlist, forbidden, TEXTS[i])
        own = slice(found.labels.offsets[i], found.labels.offsets[i + 1])
        assert found.labels[i].tolist() == list(expected)
        voiced = (found.encoder, found.classifier, found.vote, found.words)
        scores = np.stack([scores[own] for scores in voiced], axis=1)
        np.testing.assert_allclose(scores, list(expected.values()), atol=1e-5)


@pytest.mark.parametrize("kind", ["flat", "scan", "ivf"])
def test_restricted_voices_score_what_they_may_name_as_before(kind: Kind):
    """Votes as well: a neighbour's weight does not depend on the labels that it carries."""
    voices, queries = make_voices(kind=kind), unit(6, 5)
    only = np.arange(LABELS) % 3 != 1
    all_of_them, found = (propose(v, queries, 50) for v in (voices, voices.restricted_to(only)))
    kept = only[all_of_them.labels.data]
    np.testing.assert_array_equal(found.labels.data, all_of_them.labels.data[kept])
    np.testing.assert_array_equal(found.labels.offsets, all_of_them.labels.keep(kept).offsets)
    for name in ("encoder", "classifier", "vote", "words"):
        was = getattr(all_of_them, name)[kept]
        np.testing.assert_allclose(getattr(found, name), was, atol=1e-6)
    narrow = propose(voices.restricted_to(only), queries, 2)
    assert only[narrow.labels.data].all()
    best = np.argsort(-(queries @ voices.labels.vectors.T)[:, only], axis=1)[:, :2]
    for row, near in zip(range(6), np.flatnonzero(only)[best], strict=True):
        assert set(near.tolist()) <= set(narrow.labels[row].tolist())


def test_the_features_of_a_proposal():
    voices = make_voices()
    counts = np.arange(LABELS) % 4
    found = propose(voices, unit(2, 5), 3)
    features = found.features(counts)
    seen = counts[found.labels.data]
    expected = [found.encoder, found.classifier, found.vote, found.words, np.sqrt(found.vote)]
    np.testing.assert_allclose(features[:, :5], np.stack(expected, axis=1))
    np.testing.assert_allclose(features[:, 5], np.log1p(np.maximum(seen, 1)), rtol=1e-6)
    np.testing.assert_array_equal(features[:, 6], found.nearest)


def test_classifiers_answer_with_labels_and_leave_out_those_not_in_use():
    voices, queries = make_voices(), unit(3, 5)
    top = voices.by_classifier(queries, 9)
    for row, query in zip(top.labels, queries, strict=True):
        order = np.argsort(-(voices.classifiers.vectors @ query))
        assert row.tolist() == voices.in_use[order].tolist() + [NO_LABEL] * 3


def test_documents_that_may_not_vote_are_replaced_by_the_next_nearest():
    voices, query = make_voices(neighbours=3), unit(1, 5)
    order = np.argsort(-(voices.documents.vectors @ query[0]))
    forbidden = np.zeros(DOCUMENTS, np.bool_)
    forbidden[order[[0, 2]]] = True
    rows, votes = voices.by_neighbours(query, forbidden)
    expected = slow_proposals(voices, query[0], 1, forbidden)
    assert {x: pytest.approx(v, rel=1e-4) for x, (_, _, v, _) in expected.items() if v} == dict(
        zip(rows[0].tolist(), votes.tolist(), strict=True)
    )


def test_the_nearest_stay_silent():
    voices, queries = make_voices(), unit(3, 8)
    questions = ask(voices, queries)
    forbidden = np.random.default_rng(4).random(DOCUMENTS) < 0.3
    muted = np.array([0, 2, 5])
    heard = voices.listen(questions, 5, forbidden)
    without = voices.heard_without(heard, questions, forbidden, muted)
    for row, (query, count) in enumerate(zip(queries, muted, strict=True)):
        near = [d for d in np.argsort(-(voices.documents.vectors @ query)) if not forbidden[d]]
        silent = forbidden.copy()
        silent[near[:count]] = True
        expected = slow_proposals(voices, query, 1, silent)
        own = slice(*without.voted.offsets[row : row + 2])
        assert dict(zip(without.voted[row].tolist(), without.votes[own], strict=True)) == {
            x: pytest.approx(vote, rel=1e-4) for x, (_, _, vote, _) in expected.items() if vote
        }
        best = max(voices.documents.vectors[~silent] @ query)
        assert without.nearest[row] == pytest.approx(best, rel=1e-4)
    assert without.encoder is heard.encoder
    assert without.classifier is heard.classifier


def test_nobody_may_vote():
    voices = make_voices()
    rows, votes = voices.by_neighbours(unit(2, 5), np.ones(DOCUMENTS, np.bool_))
    assert rows.lengths.tolist() == [0, 0]
    assert votes.size == 0
    assert not propose(voices, unit(2, 5), 3, np.ones(DOCUMENTS, np.bool_)).vote.any()


def test_no_queries():
    found = propose(make_voices(), np.empty((0, DIM), np.float32), 3)
    assert len(found.labels) == 0
    assert found.features(np.zeros(LABELS, np.int64)).shape == (0, len(FEATURES))


@pytest.mark.parametrize("kind", ["flat", "scan", "ivf"])
def test_they_survive_a_folder(kind: Kind, tmp_path: Path):
    voices, queries = make_voices(kind=kind), unit(5, 5)
    loaded = Voices.load(tmp_path, voices.save(tmp_path))
    before, after = propose(voices, queries, 5), propose(loaded, queries, 5)
    np.testing.assert_array_equal(before.labels.data, after.labels.data)
    np.testing.assert_array_equal(
        before.features(np.ones(LABELS, np.int64)), after.features(np.ones(LABELS, np.int64))
    )


def test_how_near_the_nearest_voter_is():
    voices, queries = make_voices(), unit(3, 5)
    cosines = queries @ np.asarray(voices.documents.vectors).T
    questions = ask(voices, queries)
    found = voices.listen(questions, 3).nearest
    np.testing.assert_allclose(found, cosines.max(1), rtol=1e-5)
    assert (voices.listen(questions, 3, np.ones(DOCUMENTS, np.bool_)).nearest == -1.0).all()
