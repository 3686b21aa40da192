"""Votes of neighbouring documents against a loop."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.ragged import Ragged
from xcflow.retrieval.neighbours import vote
from xcflow.topk import NO_LABEL, TopK


def slow_vote(
    neighbours: TopK, labels: list[list[int]], temperature: float
) -> list[dict[int, float]]:
    votes = []
    for documents, scores in zip(neighbours.labels, neighbours.scores, strict=True):
        near = [(d, s) for d, s in zip(documents, scores, strict=True) if d != NO_LABEL]
        total = sum(math.exp(s / temperature) for _, s in near)
        row: dict[int, float] = {}
        for document, score in near:
            for label in labels[document]:
                share = math.exp(score / temperature) / total
                row[label] = row.get(label, 0.0) + share
        votes.append(row)
    return votes


@given(
    queries=st.integers(0, 4),
    width=st.integers(1, 5),
    labels=st.lists(st.sets(st.integers(0, 6), max_size=3), min_size=5, max_size=8),
    seed=st.integers(0, 999),
)
def test_votes(queries: int, width: int, labels: list[set[int]], seed: int):
    rng = np.random.default_rng(seed)
    rows = [sorted(row) for row in labels]
    near = TopK.none(queries, width)
    for i in range(queries):
        found = int(rng.integers(0, width + 1))
        near.labels[i, :found] = rng.permutation(len(rows))[:found]
        near.scores[i, :found] = -np.sort(-rng.uniform(-1, 1, found))
    ragged, votes = vote(near, Ragged.from_rows(rows), 7, 0.2)
    expected = slow_vote(near, rows, 0.2)
    assert len(ragged) == queries
    assert votes.dtype == np.float32
    for i in range(queries):
        assert ragged[i].tolist() == sorted(expected[i])
        own = votes[ragged.offsets[i] : ragged.offsets[i + 1]]
        np.testing.assert_allclose(own, [expected[i][x] for x in sorted(expected[i])], rtol=1e-4)


@pytest.mark.parametrize("temperature", [1e-3, 1e-6])
def test_a_sharp_softmax_stays_finite(temperature: float):
    near = TopK(np.array([[1, 0]], np.int32), np.array([[-0.999, -1.0]], np.float32))
    _, votes = vote(near, Ragged.from_rows([[0], [1]]), 2, temperature)
    assert votes.sum() == pytest.approx(1.0)
    assert votes[1] > 0.5
