"""Slices of the label set by how often a label was seen in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLICES = ("head", "torso", "tail", "cold")
COLD = SLICES.index("cold")


def frequency_parts(
    counts: NDArray[np.integer[Any]],
    parts: int,
    positives: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.int8]:
    """Cut the labels into parts with about equal shares of the positives.

    Labels are ordered by falling frequency. Equally frequent ones stay together, in the part in
    which the middle of their positives falls, so that a part is a range of frequencies and does
    not depend on the order of the catalogue.

    Args:
        counts: [L] number of training documents of each label.
        parts: Number of parts.
        positives: [L] what is shared out; by default the training documents themselves.

    Returns:
        [L] 0 for the most frequent labels to ``parts - 1``; labels without a training document
        get ``parts``.
    """
    frequencies, inverse = np.unique(counts, return_inverse=True)
    shared = np.where(counts > 0, counts if positives is None else positives, 0)
    share = np.bincount(inverse, shared, len(frequencies))
    more_frequent = share[::-1].cumsum()[::-1] - share
    middle = (more_frequent + share / 2) / max(share.sum(), 1)
    part = np.minimum(middle * parts, parts - 1).astype(np.int8)
    part[frequencies == 0] = parts
    return np.asarray(part[inverse])


@dataclass(frozen=True)
class SliceFacts:
    """One slice of the label set.

    Attributes:
        labels: Number of labels.
        train_positives: Training pairs of its labels.
        min_count: Training documents of its rarest label.
        max_count: Training documents of its most frequent label.
    """

    labels: int
    train_positives: int
    min_count: int
    max_count: int


def slice_facts(
    counts: NDArray[np.integer[Any]], slice_of: NDArray[np.int8]
) -> dict[str, SliceFacts]:
    """Describe each slice of ``SLICES``; an empty one has zeros."""
    facts = {}
    for index, name in enumerate(SLICES):
        chosen = counts[slice_of == index]
        bounds = (int(chosen.min()), int(chosen.max())) if len(chosen) else (0, 0)
        facts[name] = SliceFacts(len(chosen), int(chosen.sum()), *bounds)
    return facts


def slice_labels(counts: NDArray[np.integer[Any]]) -> NDArray[np.int8]:
    """[L] index into ``SLICES``: head, torso and tail by equal share of positives, and cold."""
    return frequency_parts(counts, len(SLICES) - 1)
