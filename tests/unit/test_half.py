import numpy as np

from xcflow.half import as_float32

EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)
FINITE = EVERY[np.isfinite(EVERY)]


def test_each_half_keeps_its_value_and_sign():
    np.testing.assert_array_equal(
        as_float32(FINITE).view(np.uint32), FINITE.astype(np.float32).view(np.uint32)
    )


def test_of_any_shape_and_stride():
    vectors = FINITE[: 2**15 - 2**11].reshape(-1, 512)
    for part in (vectors, vectors[::2], vectors.T, vectors[:0], vectors[3]):
        np.testing.assert_array_equal(as_float32(part), part.astype(np.float32))
        assert as_float32(part).flags.c_contiguous


def test_what_is_float32_is_not_copied():
    vectors = np.ones((2, 3), np.float32)
    assert as_float32(vectors) is vectors
    np.testing.assert_array_equal(as_float32(vectors.astype(np.float64)), vectors)
