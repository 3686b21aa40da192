"""One evaluation: candidate, baselines and champion on the same test split, into one folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xcflow.catalogue.dataset import Dataset
from xcflow.config import EvaluationConfig
from xcflow.distributed.world import ALONE, World
from xcflow.evaluation.calibration import calibration_facts
from xcflow.evaluation.confusion import confusion_facts
from xcflow.evaluation.protocol import measure_models, measured_rows
from xcflow.evaluation.rankers import BundleRanker, Ranker, VoicedPredictor, dealt_among
from xcflow.evaluation.result import (
    CANDIDATE,
    CHAMPION,
    METRICS,
    TIMINGS,
    TRUTH,
    read_predictions,
)
from xcflow.evaluation.shared import measure_shared
from xcflow.phases import peak_memory_mb, phase
from xcflow.ragged import Ragged

SCHEMA_VERSION = 1
LATENCY_K = 10
WARM_UP_TEXTS = 5


def evaluate(
    dataset: Dataset,
    candidate: BundleRanker,
    champion: BundleRanker | None,
    baselines: Sequence[Callable[[], Ranker]],
    config: EvaluationConfig,
    folder: Path,
    world: World = ALONE,
) -> None:
    """Measure models on the test split and write the figures.

    Several ranks share the documents of each block; all of them write all results, each into a
    folder of its own.

    Args:
        dataset: The data set.
        candidate: The model in question, by all its voices.
        champion: What it would replace, if anything.
        baselines: Make what it must beat.
        config: How to measure.
        folder: An empty folder to fill.
        world: The ranks, each of which calls this.

    Raises:
        DataError: No test document has a label.
    """
    start = time.monotonic()
    config = replace(config, block_documents=world.size * config.block_documents)
    rows = measured_rows(dataset, config.block_documents)
    bundles = {CANDIDATE: candidate} | ({CHAMPION: champion} if champion else {})
    # The baselines first: until they are gone, the bundles' mapped files are not in memory.
    rankers = [partial(_dealt, world, make) for make in baselines]
    rankers += [partial(dealt_among, world, ranker) for ranker in bundles.values()]
    with phase("test documents"):
        measured = measure_models(dataset, rows, rankers, config, folder)
    with phase("shared labels"):
        shared = measure_shared(dataset, rows, bundles, config, folder, world)
    seconds = time.monotonic() - start
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "candidate": candidate.facts(),
        "champion": champion.facts() if champion else None,
        **measured,
        "shared": shared,
        "calibration": {
            name: _calibration(folder, name, ranker.predictor) for name, ranker in bundles.items()
        },
        "confusion": confusion_facts(folder, list(measured["models"]), candidate.nearest_labels),
    }
    world.meet()  # so that nobody works beside the one who takes the time
    texts = dataset.test.texts.take(rows[: config.latency_texts if world.first else 0])
    with phase("latency"):
        answers = latencies({m: ranker.predictor for m, ranker in bundles.items()}, texts)
    timings = {"seconds": seconds, "peak_memory_mb": peak_memory_mb(), "latency_ms": answers}
    for name, tree in ((METRICS, metrics), (TIMINGS, timings)):
        text = json.dumps(tree, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _dealt(world: World, make: Callable[[], Ranker]) -> Ranker:
    return dealt_among(world, make())


def _calibration(folder: Path, model: str, predictor: VoicedPredictor) -> dict[str, Any]:
    """How far the probabilities of a model's kept predictions can be trusted."""
    top = read_predictions(folder, model)
    return calibration_facts(top, predictor.probabilities(top.scores), Ragged.load(folder / TRUTH))


def latencies(
    predictors: Mapping[str, VoicedPredictor], texts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Milliseconds that each predictor takes for the ten best labels of a single text.

    They answer each text one after the other, so that what else the machine does meets all alike.
    Without a text nothing is measured.
    """
    for text in texts[:WARM_UP_TEXTS]:
        for predictor in predictors.values():
            predictor.top_k([text], LATENCY_K)
    times: dict[str, list[float]] = {name: [] for name in predictors}
    for text in texts:
        for name, predictor in predictors.items():
            start = time.perf_counter()
            predictor.top_k([text], LATENCY_K)
            times[name].append(1000.0 * (time.perf_counter() - start))
    return {name: _percentiles(taken) for name, taken in times.items() if taken}


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times, (50, 99)).tolist()
    return {"p50": p50, "p99": p99, "mean": float(np.mean(times)), "texts": len(times)}
