"""Which labels of one catalogue are those of another: by their ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.contents import LabelTable
from xcflow.catalogue.hashing import find_hashes
from xcflow.catalogue.profile import hashes_of


class LabelMatch(NamedTuple):
    """The labels of a new catalogue beside those of an old one.

    Attributes:
        old_rows: [L] row among the old labels of each new one, -1 where it was added.
        kept: Rows of the new labels that are not.
        added: Rows of those that are.
        removed: Rows of the old labels that are no new ones.
        renamed: Rows of the new labels that were there with another text.
    """

    old_rows: NDArray[np.int64]
    kept: NDArray[np.int64]
    added: NDArray[np.int64]
    removed: NDArray[np.int64]
    renamed: NDArray[np.int64]


def match_labels(old: LabelTable, new: LabelTable) -> LabelMatch:
    """Match the labels of two catalogues."""
    old_rows = find_hashes(hashes_of(old.ids), hashes_of(new.ids))
    kept = np.flatnonzero(old_rows >= 0)
    before = hashes_of(old.texts)[old_rows[kept]]
    return LabelMatch(
        old_rows,
        kept,
        added=np.flatnonzero(old_rows < 0),
        removed=np.setdiff1d(np.arange(len(old.ids)), old_rows),
        renamed=kept[hashes_of(new.texts)[kept] != before],
    )
