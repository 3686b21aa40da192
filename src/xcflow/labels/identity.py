"""Labels that are the same item as a document: their texts are equal.

In catalogues of related items a document is often itself a label. Such a label is the nearest one
to its document by construction, yet hardly ever one of its labels, so it must not be taken for a
hard negative. Whether predictions leave it out is decided by the training documents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.string_table import StringTable
from xcflow.ragged import Ragged

_BLOCK = 50_000
_MIN_CASES = 20
_MAX_SHARE = 0.01


def same_item_labels(
    texts: StringTable, label_texts: StringTable, rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[N] the label whose text equals that of each given document, -1 where there is none."""
    out = np.full(len(rows), -1, np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        out[start : start + len(block)] = label_texts.find(texts.take(block))
    return out


def never_itself(same_item: NDArray[np.int64], labels: Ragged) -> bool:
    """Whether documents are practically never tagged with the label that is the same item.

    Args:
        same_item: [N] from ``same_item_labels``.
        labels: N rows of true labels.

    Returns:
        True where at least 20 documents have such a label and at most 1% of them carry it.
    """
    cases = int((same_item >= 0).sum())
    carried = int((labels.data == same_item[labels.row_ids()]).sum())
    return cases >= _MIN_CASES and carried <= _MAX_SHARE * cases


def known_relations(
    items: NDArray[np.int64], same_item: NDArray[np.int64], labels: Ragged
) -> Ragged:
    """What is known of items before any prediction: themselves, and who names them as a label.

    Args:
        items: [V] labels that are the documents asked about, -1 where there is none.
        same_item: [N] the same of the documents learned from.
        labels: N rows of their labels.

    Returns:
        V rows of label rows, rising: the item itself and the labels that are a document which
        carries the item.
    """
    namer = same_item[labels.row_ids()]
    known = namer >= 0
    named, namer = labels.data[known], namer[known]
    order = np.argsort(named, kind="stable")
    named, namer = named[order], namer[order]
    first, last = np.searchsorted(named, items), np.searchsorted(named, items, side="right")
    counts = np.where(items >= 0, last - first, 0)
    rows = np.repeat(np.arange(len(items)), counts)
    inside = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = namer[np.repeat(first, counts) + inside]
    itself = np.flatnonzero(items >= 0)
    size = int(max(items.max(initial=0), namer.max(initial=0))) + 1
    keys = np.unique(np.concatenate([rows, itself]) * size + np.concatenate([found, items[itself]]))
    row_of, label_of = np.divmod(keys, size)
    return Ragged(label_of.astype(np.int32), np.searchsorted(row_of, np.arange(len(items) + 1)))
