"""Fourth step: vectors of all training documents and augmented vectors of all labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.artifact import writing
from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config
from xcflow.encoders.base import Encoder
from xcflow.encoders.build import load_encoder
from xcflow.labels.auxiliary import AuxiliaryVectors
from xcflow.phases import phase
from xcflow.progress import progress
from xcflow.ragged import Ragged
from xcflow.steps.provenance import provenance
from xcflow.training.module_one import augmented_labels
from xcflow.vectors import SHARD_ROWS, ShardedVectors


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write ``documents/`` and ``labels/``: sharded float16 unit vectors."""
    dataset = Dataset.open(inputs["dataset"])
    encoder, tensors = load_encoder(inputs["encoder"])
    row_of_label = np.load(inputs["encoder"] / "row_of_label.npy", allow_pickle=False)
    auxiliary = AuxiliaryVectors(
        row_of_label,
        len(tensors["auxiliary.weight"]),
        encoder.parts,
        on_unit=config.module_one.auxiliary_on == "unit",
    )
    auxiliary.table.weight.copy_(tensors["auxiliary.weight"])
    origin = provenance("export_embeddings", config, inputs)
    with writing(output, "embeddings", **origin, meta={"dim": encoder.dim}) as folder:
        with phase("documents"):
            ShardedVectors.write(folder / "documents", _documents(encoder, dataset.train.tokens))
        with phase("labels"):
            labels = augmented_labels(encoder, auxiliary, dataset.labels.tokens, SHARD_ROWS)
            ShardedVectors.write(folder / "labels", (block.numpy() for block in labels))


def _documents(encoder: Encoder, tokens: Ragged) -> Iterator[NDArray[Any]]:
    with progress("embedding documents", len(tokens), "documents") as advance:
        for start in range(0, len(tokens), SHARD_ROWS):
            block = tokens.slice(start, min(start + SHARD_ROWS, len(tokens)))
            yield encoder.encode(block).numpy()
            advance(len(block))
