"""Second step: balanced clusters of labels, one auxiliary vector each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from xcflow.artifact import writing
from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config
from xcflow.encoders.build import initial_encoder
from xcflow.labels.auxiliary import map_labels
from xcflow.phases import phase
from xcflow.progress import log
from xcflow.steps.provenance import provenance


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write ``row_of_label.npy``: [L] int32 row of each label's auxiliary vector."""
    dataset = Dataset.open(inputs["dataset"])
    counts = dataset.label_counts(dataset.fit_rows)
    vectors = torch.empty(0)
    if config.clustering.clusters:
        with phase("label vectors"):
            vectors = initial_encoder(config.encoder, dataset).encode(dataset.labels.tokens)
    with phase("clustering"):
        rows, size = map_labels(vectors, counts, config.clustering, config.run.seed)
    private = int((np.bincount(rows[rows >= 0], minlength=1) == 1).sum()) if size else 0
    log(f"auxiliary vectors: {size:,} for {len(rows):,} labels")
    meta = {"rows": size, "labels": len(rows), "rows_of_one_label": private}
    origin = provenance("cluster_labels", config, inputs)
    with writing(output, "clusters", **origin, meta=meta) as folder:
        np.save(folder / "row_of_label.npy", rows)
