"""The measurement itself: all models on the same frozen test split, block by block.

Filtered pairs leave the predictions before the top k are taken, and leave the truth; for this
each model is asked for as many more labels as the longest row of the filter has. Documents
without a true label left are skipped and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue.arrays import RaggedWriter
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.hashing import hash_strings
from xcflow.catalogue.string_table import StringTableWriter
from xcflow.config import EvaluationConfig
from xcflow.errors import DataError
from xcflow.evaluation.metrics import Measure, drop_filtered, without
from xcflow.evaluation.model_names import in_order
from xcflow.evaluation.rankers import Queries, Ranker
from xcflow.evaluation.ratios import slices_present, summarise
from xcflow.evaluation.result import (
    DOCUMENT_IDS,
    EXCERPTS,
    LABEL_COUNTS,
    LABEL_IDS,
    LABEL_TEXTS,
    TRUTH,
    DocumentWriter,
    read_ranking,
    read_truth,
)
from xcflow.evaluation.slices import SLICES, slice_facts
from xcflow.phases import phase
from xcflow.progress import progress
from xcflow.ragged import Ragged

EXCERPT_CHARACTERS = 300


class Block(NamedTuple):
    """Some test documents with a true label left.

    Attributes:
        start: Number of the first among all such documents.
        rows: Their rows in the test split.
        queries: Their texts and tokens.
        truth: Their true labels without filtered pairs.
        filtered: The filtered pairs.
    """

    start: int
    rows: NDArray[np.int64]
    queries: Queries
    truth: Ragged
    filtered: Ragged


def measured_rows(dataset: Dataset, block: int) -> NDArray[np.int64]:
    """Rows of the test documents that have a true label once filtered pairs are taken out.

    Raises:
        DataError: There is none.
    """
    found = [np.empty(0, np.int64)]
    for start in range(0, len(dataset.test), block):
        stop = min(start + block, len(dataset.test))
        truth = without(
            dataset.test.labels.slice(start, stop), dataset.test_filter.slice(start, stop)
        )
        found.append(start + np.flatnonzero(truth.lengths))
    rows = np.concatenate(found)
    if len(rows) == 0:
        raise DataError("no test document has a label left after the filter: nothing to evaluate")
    return rows


def blocks(dataset: Dataset, rows: NDArray[np.int64], size: int) -> Iterator[Block]:
    """The given test documents, ``size`` at a time."""
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        filtered = dataset.test_filter.take(chosen)
        truth = without(dataset.test.labels.take(chosen), filtered)
        queries = Queries(dataset.test.texts.take(chosen), dataset.test.tokens.take(chosen))
        yield Block(start, chosen, queries, truth, filtered)


def measure_models(
    dataset: Dataset,
    rows: NDArray[np.int64],
    rankers: Sequence[Callable[[], Ranker]],
    config: EvaluationConfig,
    folder: Path,
) -> dict[str, Any]:
    """Measure models on the test split and write the results of each document.

    Args:
        dataset: The data set; propensities and slices come from its whole training split.
        rows: Rows of the test documents to measure on.
        rankers: Make the models. Each is made when its turn comes and let go after it, so that
            one is in memory at a time.
        config: Depths, constants, size of a block.
        folder: The evaluation's folder, which gets ``per_document`` and ``labels``.

    Returns:
        The data's and models' part of ``metrics.json``.
    """
    counts = dataset.label_counts()
    measure = Measure.of_training(counts, len(dataset.train), config)
    (folder / "labels").mkdir()
    np.save(folder / LABEL_COUNTS, counts)
    names = _measure_blocks(dataset, rows, rankers, measure, config, folder)
    sizes = read_truth(folder).sizes
    return {
        "ks": list(config.ks),
        **figures_of(folder, names, config.ks),
        "label_slices": _label_slices(counts, measure, sizes),
        "counts": _counts(dataset, rows, counts, sizes),
        "propensity": {
            "a": config.propensity_a,
            "b": config.propensity_b,
            "train_documents": len(dataset.train),
            "label_counts": label_counts_digest(dataset),
        },
        "dataset": dataset.manifest.digest,
        "catalogue": dataset.manifest.meta.get("catalogue_digest", ""),
        "data_report": {
            "status": dataset.manifest.meta.get("status", ""),
            "findings": dataset.manifest.meta.get("findings", []),
        },
        "test_split": split_digest(dataset),
    }


def figures_of(folder: Path, names: Sequence[str], ks: tuple[int, ...]) -> dict[str, Any]:
    """All metrics of models whose results stand in a folder, whole and by slice."""
    truth = read_truth(folder)
    rankings = {name: read_ranking(folder, name) for name in names}
    present = slices_present(truth)
    return {
        "models": {name: summarise(truth, rankings[name], ks) for name in names if present},
        "slices": {
            name: {part: summarise(truth, rankings[name], ks, part) for part in present}
            for name in names
        },
    }


def width_asked(dataset: Dataset, measure: Measure) -> int:
    """How many labels of a document a model is asked for, so that enough outlive the filter."""
    return measure.depth + int(dataset.test_filter.lengths.max(initial=0))


def _measure_blocks(
    dataset: Dataset,
    rows: NDArray[np.int64],
    rankers: Sequence[Callable[[], Ranker]],
    measure: Measure,
    config: EvaluationConfig,
    folder: Path,
) -> list[str]:
    """Fill ``per_document`` and name the labels; gives the names of the models."""
    (folder / "per_document").mkdir()
    dataset.labels.ids.save(folder / LABEL_IDS)
    dataset.labels.texts.save(folder / LABEL_TEXTS)
    writer = DocumentWriter(folder, len(rows), config.kept_predictions)
    with (
        StringTableWriter(folder / DOCUMENT_IDS) as ids,
        StringTableWriter(folder / EXCERPTS) as excerpts,
        RaggedWriter(folder / TRUTH, np.int32) as truth,
    ):
        for block in blocks(dataset, rows, config.block_documents):
            ids.append_strings(dataset.test.ids.take(block.rows))
            excerpts.append_strings([text[:EXCERPT_CHARACTERS] for text in block.queries.texts])
            truth.append(block.truth)
            writer.add_truth(block.start, measure.truth(block.truth))
    k = width_asked(dataset, measure)
    names: set[str] = set()
    with progress("evaluate", len(rows) * len(rankers), "answers") as advance:
        for make in rankers:
            ranker = make()
            for block in blocks(dataset, rows, config.block_documents):
                answers = ranker(block.queries, k)
                with phase("metrics"):
                    for name, top in answers.items():
                        best = drop_filtered(top, block.filtered, measure.size, measure.depth)
                        part = measure.ranking(best.labels, block.truth)
                        writer.add_ranking(name, block.start, part, best)
                names.update(answers)
                advance(len(block.rows))
            del ranker  # before the next one is made
    writer.close()
    return in_order(sorted(names))


def _label_slices(
    counts: NDArray[np.int64], measure: Measure, truth_sizes: NDArray[np.int32]
) -> dict[str, Any]:
    test_positives = truth_sizes.sum(axis=0, dtype=np.int64).tolist()
    facts = slice_facts(counts, measure.slice_of)
    return {
        name: asdict(facts[name]) | {"test_positives": positives}
        for name, positives in zip(SLICES, test_positives, strict=True)
    }


def _counts(
    dataset: Dataset,
    rows: NDArray[np.int64],
    counts: NDArray[np.int64],
    truth_sizes: NDArray[np.int32],
) -> dict[str, int]:
    return {
        "documents": len(rows),
        "skipped_documents": len(dataset.test) - len(rows),
        "test_pairs": int(truth_sizes.sum(dtype=np.int64)),
        "filtered_pairs": int(dataset.test_filter.lengths.sum()),
        "labels": len(dataset.labels),
        "cold_labels": int((counts == 0).sum()),
        "train_documents": len(dataset.train),
        "train_pairs": int(counts.sum()),
    }


def split_digest(dataset: Dataset) -> str:
    """The identity of the test split: document ids, the ids of their labels, filtered pairs.

    It does not depend on the rows that labels have, so the same test documents keep it when labels
    join the catalogue.
    """
    hashes = hash_strings(dataset.labels.ids.to_list())
    digest = hashlib.sha256()
    for table in (dataset.test.ids.rows, dataset.test.labels, dataset.test_filter):
        digest.update(table.offsets.tobytes())
    digest.update(dataset.test.ids.rows.data.tobytes())
    for pairs in (dataset.test.labels, dataset.test_filter):
        order = np.lexsort((hashes[pairs.data], pairs.row_ids()))
        digest.update(hashes[pairs.data][order].tobytes())
    return digest.hexdigest()


def label_counts_digest(dataset: Dataset) -> str:
    """The identity of what propensities and slices follow from: labels' training documents.

    It depends neither on the labels' rows nor on labels without a training document.
    """
    counts = dataset.label_counts()
    seen = np.flatnonzero(counts)
    hashes = hash_strings(dataset.labels.ids.take(seen))
    order = np.argsort(hashes)
    return hashlib.sha256(hashes[order].tobytes() + counts[seen][order].tobytes()).hexdigest()
