"""Vectors of norm 1, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST_LENGTH = 1e-12  # of a vector, as in torch's normalize


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows [N, D] at norm 1; those without length stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, _LEAST_LENGTH), np.float32)
