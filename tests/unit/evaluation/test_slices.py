"""Label slices: equal shares of the positives, equal frequencies together, cold labels apart."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xcflow.evaluation.slices import COLD, SLICES, frequency_parts, slice_facts, slice_labels


def test_by_hand():
    # 30 positives: one label with 10, two with 5, ten with 1; one label was never seen.
    counts = np.array([10, 5, 5] + [1] * 10 + [0])
    names = [SLICES[i] for i in slice_labels(counts)]
    assert names == ["head", "torso", "torso"] + ["tail"] * 10 + ["cold"]
    facts = slice_facts(counts, slice_labels(counts))
    assert [(f.labels, f.train_positives, f.min_count, f.max_count) for f in facts.values()] == [
        (1, 10, 10, 10),
        (2, 10, 5, 5),
        (10, 10, 1, 1),
        (1, 0, 0, 0),
    ]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 10))
def test_parts_are_ranges_of_frequency_in_any_order(counts, parts):
    counts = np.array(counts)
    part = frequency_parts(counts, parts)
    assert (part[counts == 0] == parts).all()
    order = np.argsort(-counts, kind="stable")
    assert (np.diff(part[order]) >= 0).all()
    for frequency in set(counts.tolist()):
        assert len(set(part[counts == frequency].tolist())) == 1
    assert ((part >= 0) & (part <= parts)).all()
    np.testing.assert_array_equal(frequency_parts(counts[::-1], parts), part[::-1])


@given(st.lists(st.integers(1, 10**6), min_size=20, max_size=60, unique=True))
def test_shares_are_equal_up_to_one_label(counts):
    counts = np.array(counts)
    part = frequency_parts(counts, 3)
    for index in range(3):
        share = counts[part == index].sum() / counts.sum()
        assert abs(share - 1 / 3) <= counts.max() / counts.sum() + 1e-9


def test_a_catalogue_without_a_training_pair_is_all_cold():
    assert slice_labels(np.zeros(3, np.int64)).tolist() == [COLD] * 3
