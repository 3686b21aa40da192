"""Candidate and champion on the labels that both know; labels that one alone knows, apart.

A catalogue gains labels between two trainings. To an older champion each of their pairs is a miss
that says nothing of its quality, and any candidate that was trained later would look better for
it. So where the two know different labels they are measured once more: true pairs of other labels
are taken out, and both models rank as if they had never known any but the shared ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.dataset import Dataset
from xcflow.config import EvaluationConfig
from xcflow.distributed.world import ALONE, World
from xcflow.evaluation.metrics import Measure, contains, drop_filtered
from xcflow.evaluation.protocol import blocks, figures_of, width_asked
from xcflow.evaluation.rankers import BundleRanker, dealt_among
from xcflow.evaluation.ratios import Ratio
from xcflow.evaluation.result import (
    CANDIDATE,
    LABELS_ALONE,
    SHARED,
    TRUTH,
    DocumentWriter,
    Evaluation,
    read_predictions,
    read_truth,
)
from xcflow.ragged import Ragged

_BLOCK = 10_000  # documents read at a time: bounds memory


def measure_shared(
    dataset: Dataset,
    rows: NDArray[np.int64],
    bundles: Mapping[str, BundleRanker],
    config: EvaluationConfig,
    folder: Path,
    world: World = ALONE,
) -> dict[str, Any] | None:
    """Measure models on the labels that all of them know.

    Args:
        dataset: The data set; propensities and slices stay those of all its labels.
        rows: Rows of the test documents to measure on.
        bundles: Name of a model -> the model.
        config: Depths, constants, size of a block.
        folder: The evaluation's folder, in which the models were measured on all labels; gets
            the folder ``shared`` and the rows of the labels that the candidate alone knows.
        world: Ranks that share the documents of a block.

    Returns:
        The part ``shared`` of ``metrics.json``; None where the models know the same labels.
    """
    shared = np.logical_and.reduce([ranker.knows for ranker in bundles.values()])
    if all(np.array_equal(ranker.knows, shared) for ranker in bundles.values()):
        return None
    measure = Measure.of_training(dataset.label_counts(), len(dataset.train), config)
    k = width_asked(dataset, measure)
    rankers = {name: ranker.restricted_to(shared) for name, ranker in bundles.items()}
    ask = dealt_among(
        world, lambda queries, k: {name: ranker(queries, k) for name, ranker in rankers.items()}
    )
    writer = DocumentWriter(folder / SHARED, len(rows), config.kept_predictions)
    for block in blocks(dataset, rows, config.block_documents):
        truth = block.truth.keep(shared[block.truth.data])
        writer.add_truth(block.start, measure.truth(truth))
        for name, top in ask(block.queries, k).items():
            best = drop_filtered(top, block.filtered, measure.size, measure.depth)
            writer.add_ranking(name, block.start, measure.ranking(best.labels, truth), best)
    writer.close()
    alone = bundles[CANDIDATE].knows & ~shared
    np.save(folder / LABELS_ALONE, np.flatnonzero(alone))
    sizes = read_truth(folder / SHARED).sizes.sum(axis=1, dtype=np.int64)
    return {
        "labels": int(shared.sum()),
        "counts": {"documents": int((sizes > 0).sum()), "test_pairs": int(sizes.sum())},
        **figures_of(folder / SHARED, list(bundles), config.ks),
        "alone": {
            name: _found_alone(folder, name, ranker.knows & ~shared, config)
            for name, ranker in bundles.items()
        },
    }


def recall_alone(evaluation: Evaluation, model: str) -> Ratio:
    """How much of the labels that the candidate alone knows a model finds; zeros without such.

    Each document that has such labels counts with the share of them that is among the kept
    predictions, at most the deepest ``k`` of them.
    """
    documents = evaluation.documents
    if not evaluation.metrics["shared"]:
        return Ratio(np.zeros(documents), np.zeros(documents))
    labels = np.zeros(len(evaluation.label_ids()), np.bool_)
    labels[np.load(evaluation.path / LABELS_ALONE, allow_pickle=False)] = True
    pairs, found = _found_in_each(evaluation.path, model, labels, depth=evaluation.ks[-1])
    return Ratio(found / np.maximum(pairs, 1), (pairs > 0).astype(np.float64))


def _found_alone(
    folder: Path, model: str, labels: NDArray[np.bool_], config: EvaluationConfig
) -> dict[str, int]:
    """How many true pairs of labels that a model alone knows are among its kept predictions."""
    depth = min(config.kept_predictions, config.ks[-1])
    pairs, found = _found_in_each(folder, model, labels, depth)
    return {
        "labels": int(labels.sum()),
        "test_pairs": int(pairs.sum()),
        "found": int(found.sum()),
        "depth": depth,
    }


def _found_in_each(
    folder: Path, model: str, labels: NDArray[np.bool_], depth: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[N] true pairs of some labels in each document, and how many a model's best few hold."""
    truth, predicted = Ragged.load(folder / TRUTH), read_predictions(folder, model).labels
    pairs, found = np.zeros((2, len(truth)), np.int64)
    for start in range(0, len(truth), _BLOCK):
        top = np.asarray(predicted[start : start + _BLOCK, :depth])
        rows = truth.slice(start, start + len(top))
        rows = rows.keep(labels[rows.data])
        part = slice(start, start + len(top))
        pairs[part] = rows.lengths
        found[part] = contains(rows, top, len(labels)).sum(axis=1)
    return pairs, found
