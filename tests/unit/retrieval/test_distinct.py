"""Against numpy's own."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xcflow.retrieval.distinct import distinct, summed

KEYS = st.lists(st.integers(0, 20), max_size=60)


@given(KEYS)
def test_distinct_keys_are_those_of_numpy(keys):
    keys = np.array(keys, np.int64)
    np.testing.assert_array_equal(distinct(keys), np.unique(keys))


@given(KEYS, st.randoms(use_true_random=False))
def test_sums_are_those_of_numpy_to_the_last_bit(keys, random):
    keys = np.array(keys, np.int64)
    values = np.array([random.random() for _ in keys], np.float32)
    found, sums = summed(keys, values)
    expected, place = np.unique(keys, return_inverse=True)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(sums, np.bincount(place, values, len(expected)))
