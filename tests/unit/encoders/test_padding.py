"""Rows cut into parts of like length, and padded."""

import numpy as np
import pytest

from xcflow.encoders.padding import like_lengths, of_one_width, padded
from xcflow.ragged import Ragged


@pytest.mark.parametrize("budget", [100, 1024, 100_000])
def test_parts_keep_to_the_budget(budget: int):
    lengths = np.random.default_rng(1).integers(1, 300, 200)
    parts = like_lengths(lengths, budget)
    np.testing.assert_array_equal(np.concatenate(parts), np.argsort(lengths, kind="stable"))
    for part in parts:
        assert len(part) == 1 or len(part) * lengths[part].max() <= budget


def test_no_rows():
    assert like_lengths(np.empty(0, np.int64), 10) == []


@pytest.mark.parametrize("budget", [1, 100, 1024])
@pytest.mark.parametrize("at_least", [1, 2, 7])
def test_parts_of_one_width(budget: int, at_least: int):
    widths = 8 * np.random.default_rng(1).integers(1, 6, 200)
    parts = of_one_width(widths, budget, at_least)
    assert sorted(np.concatenate(parts).tolist()) == list(range(200))
    assert len(parts) >= at_least
    for part in parts:
        assert len(set(widths[part].tolist())) == 1
        assert len(part) == 1 or widths[part].sum() <= min(budget, widths.sum() / at_least + 40)


def test_few_rows_are_shared_among_all():
    assert [part.tolist() for part in of_one_width(np.full(4, 16), 256, 2)] == [[0, 1], [2, 3]]
    assert of_one_width(np.empty(0, np.int64), 256, 2) == []


def test_rows_stand_between_their_ends_and_are_cut():
    tokens = Ragged.from_rows([[7], [], [5, 6, 7, 8]])
    ids, mask = padded(tokens, (1, 2), limit=5)
    assert ids.tolist() == [[1, 7, 2, 0, 0], [1, 2, 0, 0, 0], [1, 5, 6, 7, 2]]
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]


def test_rows_are_padded_to_a_width():
    ids, mask = padded(Ragged.from_rows([[7], [5, 6]]), (1, 2), limit=9, width=6)
    assert ids.tolist() == [[1, 7, 2, 0, 0, 0], [1, 5, 6, 2, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
