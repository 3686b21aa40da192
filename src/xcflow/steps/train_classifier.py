"""Fifth step: Module II."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xcflow.artifact import writing
from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config
from xcflow.steps.provenance import checkpoint_of, provenance
from xcflow.training.data import Splits
from xcflow.training.loop import Plan, train
from xcflow.training.module_two import ModuleTwo
from xcflow.vectors import ShardedVectors


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write the classifiers of the labels in use, their label rows, and the history."""
    dataset = Dataset.open(inputs["dataset"])
    documents = ShardedVectors.open(inputs["embeddings"] / "documents")
    labels = ShardedVectors.open(inputs["embeddings"] / "labels")
    splits = Splits.of(dataset)
    used = np.flatnonzero(dataset.label_counts(dataset.fit_rows))
    settings, seed = config.module_two, config.run.seed
    origin = provenance("train_classifier", config, inputs)
    module = ModuleTwo(documents, labels, used, splits, settings, config.retrieval, seed)
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
        history = train(module, len(splits.fit), plan, checkpoint)
        with writing(output, "classifier", **origin, meta=meta) as folder:
            np.save(folder / "classifiers.npy", module.classifiers().numpy().astype(np.float16))
            np.save(folder / "labels_in_use.npy", used)
            (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")
