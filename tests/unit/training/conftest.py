"""Tiny modules that can be made again and again in the same state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xcflow.catalogue.dataset import Dataset
from xcflow.config import (
    ClusteringConfig,
    EncoderConfig,
    ModuleOneConfig,
    ModuleTwoConfig,
    RetrievalConfig,
)
from xcflow.distributed.world import ALONE, World
from xcflow.encoders.build import initial_encoder
from xcflow.labels.auxiliary import AuxiliaryVectors, map_labels
from xcflow.training.data import Splits
from xcflow.training.module_one import ModuleOne
from xcflow.training.module_two import ModuleTwo
from xcflow.vectors import ShardedVectors

SEED = 3


@pytest.fixture(scope="session")
def splits(themed: Dataset) -> Splits:
    return Splits.of(themed)


@pytest.fixture(scope="session")
def make_module_one(themed: Dataset, splits: Splits, pretrained: Path) -> Callable[..., ModuleOne]:
    """Module I on the themed data set, anew with each call."""

    def make(
        kind: str = "bag_of_embeddings",
        bags: int = 1,
        clusters: int = 4,
        dropout: float = 0.2,
        world: World = ALONE,
        **settings: Any,
    ) -> ModuleOne:
        encoder_config = EncoderConfig(
            kind=kind,  # type: ignore[arg-type]
            bags=bags,
            model=str(pretrained),
            bf16="off",
            dropout=dropout,
        )
        encoder = initial_encoder(encoder_config, themed)
        rows, size = map_labels(
            encoder.encode(themed.labels.tokens),
            themed.label_counts(themed.fit_rows),
            ClusteringConfig(clusters=clusters, private_min_count=8),
            SEED,
        )
        rates = (
            "learning_rate",
            "dense_learning_rate",
            "pretrained_learning_rate",
            "auxiliary_learning_rate",
        )
        defaults = {"cluster_from_epoch": 1} | dict.fromkeys(rates, 0.01)
        config = ModuleOneConfig(**defaults | settings)
        auxiliary = AuxiliaryVectors(
            rows,
            size,
            encoder.parts,
            on_unit=True,
            norm=1.0,
            generator=torch.Generator().manual_seed(SEED),
        )
        return ModuleOne(encoder, auxiliary, splits, themed.labels.tokens, config, SEED, world)

    return make


@pytest.fixture(scope="session")
def embeddings(
    themed: Dataset, make_module_one: Callable[..., ModuleOne], tmp_path_factory: Any
) -> tuple[ShardedVectors, ShardedVectors]:
    """Vectors of documents and labels from the encoder before training."""
    folder: Path = tmp_path_factory.mktemp("embeddings")
    module = make_module_one()
    documents = module._encoder.encode(themed.train.tokens).numpy()
    ShardedVectors.write(folder / "documents", iter(np.array_split(documents, 3)))
    ShardedVectors.write(
        folder / "labels",
        (block.numpy() for block in module.label_vectors(np.arange(len(themed.labels)))),
    )
    return ShardedVectors.open(folder / "documents"), ShardedVectors.open(folder / "labels")


@pytest.fixture(scope="session")
def make_module_two(
    themed: Dataset, splits: Splits, embeddings: tuple[ShardedVectors, ShardedVectors]
) -> Callable[..., ModuleTwo]:
    """Module II on the themed data set, anew with each call."""

    def make(world: World = ALONE, **settings: Any) -> ModuleTwo:
        defaults = {"learning_rate": 0.05, "cluster_size": 4, "mined": 3, "mined_per_batch": 5}
        config = ModuleTwoConfig(**defaults | settings)
        used = np.flatnonzero(themed.label_counts(themed.fit_rows))
        return ModuleTwo(*embeddings, used, splits, config, RetrievalConfig(), SEED, world)

    return make
