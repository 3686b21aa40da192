"""Fourth step: vectors of all training documents and augmented vectors of all labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config
from xcflow.distributed.collectives import dealt_rows_at_first
from xcflow.distributed.world import World
from xcflow.encoders.base import ENCODE_ROWS
from xcflow.encoders.build import load_encoder
from xcflow.labels.auxiliary import AuxiliaryVectors
from xcflow.phases import phase
from xcflow.progress import progress
from xcflow.steps.provenance import provenance, written_by_first
from xcflow.training.module_one import augmented_labels
from xcflow.vectors import SHARD_ROWS, ShardedVectors


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write ``documents/`` and ``labels/``: sharded float16 unit vectors."""
    world, dataset = World.of_environment(), Dataset.open(inputs["dataset"])
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

    def label_vectors(rows: NDArray[np.int64]) -> Tensor:
        return augmented_labels(encoder, auxiliary, dataset.labels.tokens, rows)

    def document_vectors(rows: NDArray[np.int64]) -> Tensor:
        return encoder.encode(dataset.train.tokens.take(rows))

    with written_by_first(world, output, "embeddings", origin, {"dim": encoder.dim}) as folder:
        for what, count, encode in (
            ("documents", len(dataset.train), document_vectors),
            ("labels", len(dataset.labels), label_vectors),
        ):
            shards = _shards(world, what, count, encoder.dim, encode)
            with phase(what):
                if folder:
                    ShardedVectors.write(folder / what, shards)
                for _ in shards:  # the other ranks send what they encode
                    pass


def _shards(
    world: World,
    what: str,
    count: int,
    dim: int,
    encode: Callable[[NDArray[np.int64]], Tensor],
) -> Iterator[NDArray[Any]]:
    """Shards of vectors at the first rank; of each, blocks are dealt to the ranks."""
    with progress(f"embedding {what}", count, what) as advance:
        for start in range(0, count, SHARD_ROWS):
            stop = min(start + SHARD_ROWS, count)
            firsts = range(start, stop, ENCODE_ROWS)
            own = torch.empty(world.share(len(firsts)), ENCODE_ROWS, dim, dtype=torch.float16)
            for block, first in zip(own, firsts[world.rank :: world.size], strict=True):
                rows = np.arange(first, min(first + ENCODE_ROWS, stop))
                block[: len(rows)] = encode(rows)
            shard = dealt_rows_at_first(world, own, len(firsts)).flatten(0, 1)
            yield shard[: stop - start].numpy()
            advance(stop - start)
