"""Candidates of a batch against Python sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xcflow.negatives.candidates import Candidates, Pairs
from xcflow.ragged import Ragged

labels = st.integers(0, 9)


def as_set(pairs: Pairs, candidates: Candidates) -> set[tuple[int, int]]:
    columns = candidates.labels[pairs.columns.numpy()]
    found = list(zip(pairs.rows.tolist(), columns.tolist(), strict=True))
    assert len(found) == len(set(found))
    return set(found)


@given(
    proposed=st.lists(labels, min_size=1, max_size=15),
    truth=st.lists(st.sets(labels, max_size=5), min_size=1, max_size=6),
    data=st.data(),
)
def test_known_pairs_are_found(proposed: list[int], truth: list[set[int]], data: st.DataObject):
    size = len(truth)
    same_item = data.draw(st.lists(st.integers(-1, 9), min_size=size, max_size=size))
    found = Candidates.shared(
        np.array(proposed, np.int32),
        Ragged.from_rows([sorted(row) for row in truth]),
        np.array(same_item),
    )
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == sorted(set(proposed))
    assert as_set(found.positives, found) == {
        (i, label) for i, row in enumerate(truth) for label in row if label in proposed
    }
    assert as_set(found.ignored, found) == {
        (i, label) for i, label in enumerate(same_item) if label in proposed
    }
