"""Auxiliary vectors for labels that no training has seen: inherited from the labels most like them.

A trained label stands at z = unit(unit(E(text)) + A[c]), and documents have learned to point there.
A new label has a text and no vector of its own. Related labels share one, so it joins the cluster
of those whose texts lie nearest, and stands at the same distance from its text as they do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.encoders.frozen import unit_parts
from xcflow.encoders.unit import unit_rows
from xcflow.ragged import Ragged
from xcflow.retrieval.exact import search
from xcflow.topk import NO_LABEL

NO_VECTOR = -1
_BLOCK = 4096  # documents summed at a time: bounds memory


def inherited_rows(
    new: NDArray[np.float32],
    known: NDArray[np.float16],
    row_of_known: NDArray[np.int32],
    nearest: int,
) -> NDArray[np.int32]:
    """[N] the row of the auxiliary vector that each new label inherits.

    The ``nearest`` known labels vote for their rows, each by its cosine; of equal votes that of the
    nearer label wins. ``NO_VECTOR`` where nothing is to be inherited.

    Args:
        new: [N, D] unit vectors of the new labels' texts, nothing added.
        known: [M, D] the same of labels that were trained.
        row_of_known: [M] the row of each; labels without one do not vote.
        nearest: How many vote; 0 for none.
    """
    voters = np.flatnonzero(row_of_known != NO_VECTOR)
    if not (len(new) and len(voters) and nearest):
        return np.full(len(new), NO_VECTOR, np.int32)
    top = search(new, known[voters], min(nearest, len(voters)))
    rows = row_of_known[voters][top.labels]
    votes = np.where(top.labels == NO_LABEL, 0.0, np.maximum(top.scores, 0.0))
    same = rows[:, :, None] == rows[:, None, :]
    best = (same * votes[:, None, :]).sum(axis=2).argmax(axis=1)
    return np.asarray(rows[np.arange(len(rows)), best], np.int32)


def augmented(
    encoded: NDArray[np.float32],
    rows: NDArray[np.int32],
    table: NDArray[np.float16],
    parts: tuple[int, ...],
    *,
    on_unit: bool,
) -> NDArray[np.float32]:
    """Unit vectors z [N, D] of labels, as ``AuxiliaryVectors`` has them in training.

    Args:
        encoded: [N, D] the encoder's vectors of the labels' texts, not normalised.
        rows: [N] rows of the table; ``NO_VECTOR`` adds nothing.
        table: [K, D] the auxiliary vectors.
        parts: Widths of the encoder's parts.
        on_unit: Whether the vector joins the normalised E(text) or the raw one.
    """
    scale = np.float32(len(parts) ** 0.5)
    base = scale * (unit_parts(encoded, parts) if on_unit else encoded)
    has = rows != NO_VECTOR
    base[has] += table[rows[has]]
    return unit_parts(base, parts)


def mean_directions(
    documents: NDArray[np.floating[Any]], labels: Ragged, rows: NDArray[np.int64], size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Where the documents of some labels lie.

    Args:
        documents: [N, D] unit vectors of documents.
        labels: N rows of their label rows.
        rows: [M] the labels asked about.
        size: Number of labels.

    Returns:
        [M, D] the normalised sum of the documents of each, zeros where there are none, and [M] how
        many there are.
    """
    place = np.full(size, -1)
    place[rows] = np.arange(len(rows))
    sums = np.zeros((len(rows), documents.shape[1]), np.float32)
    for start in range(0, len(labels), _BLOCK):
        block = labels.slice(start, min(start + _BLOCK, len(labels)))
        asked = place[block.data] >= 0
        carriers = start + block.row_ids()[asked]
        np.add.at(sums, place[block.data[asked]], documents[carriers].astype(np.float32))
    return unit_rows(sums), labels.counts(size)[rows]
