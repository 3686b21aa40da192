"""Fifth step: Module II."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config
from xcflow.distributed.collectives import Dealt, blocks_at_first
from xcflow.distributed.world import World
from xcflow.steps.provenance import checkpoint_of, provenance, written_by_first
from xcflow.training.data import Splits
from xcflow.training.loop import Plan, train
from xcflow.training.module_two import ModuleTwo
from xcflow.vectors import ShardedVectors


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write the classifiers of the labels in use, their label rows, and the history."""
    world, dataset = World.of_environment(), Dataset.open(inputs["dataset"])
    documents = ShardedVectors.open(inputs["embeddings"] / "documents")
    labels = ShardedVectors.open(inputs["embeddings"] / "labels")
    splits = Splits.of(dataset)
    used = np.flatnonzero(dataset.label_counts(dataset.fit_rows))
    settings, seed = config.module_two, config.run.seed
    origin = provenance("train_classifier", config, inputs)
    module = ModuleTwo(documents, labels, used, splits, settings, config.retrieval, seed, world)
    plan = Plan(
        "classifiers",
        settings.epochs,
        settings.batch_size,
        settings.warmup_steps,
        settings.patience,
        seed,
    )
    meta = {"labels_in_use": len(used), "labels": len(dataset.labels)}
    with checkpoint_of("train_classifier", config, origin).claimed() as checkpoint:
        history = train(module, len(splits.fit), plan, checkpoint, world)
        with written_by_first(world, output, "classifier", origin, meta) as folder:
            blocks = blocks_at_first(world, module.classifiers(), Dealt(0, len(used)))
            if folder:
                _write_rows(folder / "classifiers.npy", (len(used), documents.dim), blocks)
                np.save(folder / "labels_in_use.npy", used)
                (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")
            for _ in blocks:  # the other ranks send what they hold
                pass


def _write_rows(path: Path, shape: tuple[int, int], blocks: Iterator[Tensor]) -> None:
    """Write a float16 array that is never in memory as a whole."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    start = 0
    for block in blocks:
        array[start : start + len(block)] = block.numpy()
        start += len(block)
    array.flush()
