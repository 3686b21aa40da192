"""Siblings in the place of true labels: related labels that a model takes for each other.

The siblings of a label are the labels whose vectors lie nearest to its own. A true label is
confused where it is missing among the first few predictions of a document and one of its siblings,
itself wrong, stands there instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.string_table import StringTable
from xcflow.evaluation.metrics import contains
from xcflow.evaluation.result import CANDIDATE, LABEL_IDS, LABEL_TEXTS, TRUTH, read_predictions
from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL

DEPTH = 5
SIBLINGS = 10
PAIRS = 20
_BLOCK_DOCUMENTS = 10_000

# (rows of N labels, k) -> [N, k] rows of the labels nearest to each, ``NO_LABEL`` for none.
Nearest = Callable[[NDArray[np.integer[Any]], int], NDArray[np.int32]]


class Siblings(NamedTuple):
    """The siblings of those labels that the test split asks for.

    Attributes:
        labels: [T] rising label rows.
        nearest: [T, S] the siblings of each.
    """

    labels: NDArray[np.int32]
    nearest: NDArray[np.int32]


class Confused(NamedTuple):
    """How often siblings stood in the place of true labels.

    Attributes:
        missing: True pairs that are not among the first predictions.
        confused: Those of them with a sibling of the true label among the first predictions.
        by_pair: [T, S] documents in which each sibling stood for each label.
    """

    missing: int
    confused: int
    by_pair: NDArray[np.int32]


def confusion_facts(
    folder: Path, models: Sequence[str], nearest: Nearest, depth: int = DEPTH
) -> dict[str, Any]:
    """How often siblings stand in the place of true labels, and which most often.

    Args:
        folder: An evaluation's folder with the results of each document.
        models: The models to look at, the candidate among them.
        nearest: Finds the siblings of labels.
        depth: Predictions of each document that are looked at, as far as they are kept.

    Returns:
        ``depth`` and ``siblings``; ``models``: name -> true pairs ``missing`` and ``confused``;
        ``pairs``: the candidate's most frequent
        ones.
    """
    truth = Ragged.load(folder / TRUTH)
    asked = np.unique(truth.data)
    siblings = Siblings(asked, nearest(asked, SIBLINGS))
    found = {name: _count(folder, name, truth, siblings, depth) for name in models}
    pairs = _most_frequent(folder, truth, siblings, found[CANDIDATE].by_pair)
    return {
        "depth": depth,
        "siblings": SIBLINGS,
        "models": {
            name: {"missing": counted.missing, "confused": counted.confused}
            for name, counted in found.items()
        },
        "pairs": pairs,
    }


def _count(folder: Path, model: str, truth: Ragged, siblings: Siblings, depth: int) -> Confused:
    predicted = read_predictions(folder, model).labels
    size = int(max(truth.data.max(), predicted.max(initial=0), siblings.nearest.max())) + 1
    by_pair = np.zeros(siblings.nearest.shape, np.int32)
    missing = confused = 0
    for start in range(0, len(truth), _BLOCK_DOCUMENTS):
        labels = np.asarray(predicted[start : start + _BLOCK_DOCUMENTS, :depth])
        block = truth.slice(start, start + len(labels))
        wrong = np.where(contains(block, labels, size), NO_LABEL, labels)
        lost = ~_also_in(labels, block)
        rows, places = block.row_ids()[lost], np.searchsorted(siblings.labels, block.data[lost])
        stands = _stands(siblings.nearest[places], wrong[rows])
        missing += len(rows)
        confused += int(stands.any(axis=1).sum())
        pair, sibling = np.nonzero(stands)
        np.add.at(by_pair, (places[pair], sibling), 1)
    return Confused(missing, confused, by_pair)


def _also_in(labels: NDArray[np.integer[Any]], rows: Ragged) -> NDArray[np.bool_]:
    """[T] whether each value of B rows stands in the same row of ``labels`` [B, k]."""
    return np.asarray((labels[rows.row_ids()] == rows.data[:, None]).any(axis=1))


def _stands(siblings: NDArray[np.int32], wrong: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """[M, S] which of a label's siblings [M, S] are among the wrong predictions [M, k]."""
    among = (siblings[:, :, None] == wrong[:, None, :]).any(axis=2)
    return np.asarray(among & (siblings != NO_LABEL))


def _most_frequent(
    folder: Path, truth: Ragged, siblings: Siblings, by_pair: NDArray[np.int32]
) -> list[dict[str, Any]]:
    """The pairs of most documents; of equally frequent ones that of the lower label row."""
    ids, texts = StringTable.load(folder / LABEL_IDS), StringTable.load(folder / LABEL_TEXTS)
    asked = truth.counts(len(ids))
    order = np.argsort(-by_pair, axis=None, kind="stable")[:PAIRS]
    pairs = []
    for place, sibling in zip(*np.unravel_index(order, by_pair.shape), strict=True):
        label, instead = int(siblings.labels[place]), int(siblings.nearest[place, sibling])
        if documents := int(by_pair[place, sibling]):
            pairs.append(
                {
                    "true": ids[label],
                    "true_text": texts[label],
                    "instead": ids[instead],
                    "instead_text": texts[instead],
                    "documents": documents,
                    "asked": int(asked[label]),
                }
            )
    return pairs
