"""Vectors in half precision made float32, several times as fast as numpy does it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGN_AND_REST = np.int32(-0x70002000)  # bit 31, bits 13 to 27
_BIAS = np.float32(2.0 ** (127 - 15))


def as_float32(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Finite values of any floating type, contiguous; what is so already is not copied.

    Sign, exponent and fraction of a half are moved to where a float32 has them; the exponent is
    then too small by the difference of the two biases, which a product puts right, exactly, for
    subnormal numbers too.
    """
    if vectors.dtype != np.float16:
        return np.ascontiguousarray(vectors, np.float32)
    bits = np.ascontiguousarray(vectors).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _SIGN_AND_REST
    wide = bits.view(np.float32)
    wide *= _BIAS
    return wide
