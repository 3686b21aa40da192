"""Rows cut into parts of like length, and padded."""

import numpy as np
import pytest

from xcflow.encoders.padding import like_lengths, padded
from xcflow.ragged import Ragged


@pytest.mark.parametrize("budget", [0, 100, 1024, 100_000])
def test_parts_keep_to_the_budget(budget: int):
    lengths = np.random.default_rng(1).integers(1, 300, 200)
    parts = like_lengths(lengths, budget)
    np.testing.assert_array_equal(np.concatenate(parts), np.argsort(lengths, kind="stable"))
    for part in parts:
        assert len(part) == 1 or len(part) * lengths[part].max() <= budget


def test_no_rows():
    assert like_lengths(np.empty(0, np.int64), 10) == []


def test_rows_stand_between_their_ends_and_are_cut():
    tokens = Ragged.from_rows([[7], [], [5, 6, 7, 8]])
    ids, mask = padded(tokens, (1, 2), limit=5)
    assert ids.tolist() == [[1, 7, 2, 0, 0], [1, 2, 0, 0, 0], [1, 5, 6, 7, 2]]
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
