"""The best labels of each document."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xcflow.topk import NO_LABEL, TopK, best_of


@given(
    rows=st.integers(0, 4),
    width=st.integers(1, 6),
    k=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_kept_entries_close_ranks(rows: int, width: int, k: int, seed: int):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 50, (rows, width)).astype(np.int32)
    scores = -np.sort(-rng.random((rows, width)).astype(np.float32), axis=1)
    kept = rng.random((rows, width)) < 0.6
    found = TopK(labels, scores).keep(kept, k)
    assert found.labels.shape == found.scores.shape == (rows, k)
    assert (found.labels.dtype, found.scores.dtype) == (np.int32, np.float32)
    for i in range(rows):
        best = [
            (label, s) for label, s, stay in zip(labels[i], scores[i], kept[i], strict=True) if stay
        ]
        best = (best + [(NO_LABEL, -np.inf)] * k)[:k]
        assert list(zip(found.labels[i], found.scores[i], strict=True)) == best


@given(st.lists(st.integers(0, 4), max_size=20), st.integers(1, 25))
def test_best_of_equals_a_full_sort(values, k):
    labels = np.arange(len(values))[::-1]
    scores = np.array(values, np.float32)
    expected = sorted(zip(-scores, labels, strict=True))[:k]
    found = best_of(labels, scores, k)
    assert found[0].tolist() == [label for _, label in expected]
    assert found[1].tolist() == [-score for score, _ in expected]
