"""Third step: Module I."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from xcflow.artifact import read_manifest
from xcflow.catalogue.dataset import Dataset
from xcflow.config import Config
from xcflow.distributed.world import World
from xcflow.encoders.build import initial_encoder, save_encoder
from xcflow.labels.auxiliary import AuxiliaryVectors
from xcflow.phases import phase
from xcflow.steps.provenance import checkpoint_of, provenance, written_by_first
from xcflow.training.data import Splits
from xcflow.training.loop import Plan, train
from xcflow.training.module_one import ModuleOne


def run(config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Write the encoder, the auxiliary vectors of all labels, and the history of training."""
    world, dataset = World.of_environment(), Dataset.open(inputs["dataset"])
    clusters = read_manifest(inputs["clusters"], "clusters")
    row_of_label = np.load(inputs["clusters"] / "row_of_label.npy", allow_pickle=False)
    settings, seed = config.module_one, config.run.seed
    with phase("initial encoder"):
        encoder = initial_encoder(config.encoder, dataset)
    auxiliary = AuxiliaryVectors(
        row_of_label,
        int(clusters.meta["rows"]),
        encoder.parts,
        on_unit=settings.auxiliary_on == "unit",
        norm=settings.auxiliary_norm,
        generator=torch.Generator().manual_seed(seed),
    )
    splits = Splits.of(dataset)
    origin = provenance("train_encoder", config, inputs)
    module = ModuleOne(encoder, auxiliary, splits, dataset.labels.tokens, settings, seed, world)
    plan = Plan(
        "encoder",
        settings.epochs,
        settings.batch_size,
        settings.warmup_steps,
        settings.patience,
        seed,
    )
    with checkpoint_of("train_encoder", config, origin).claimed() as checkpoint:
        history = train(module, len(splits.fit), plan, checkpoint, world)
        meta = {"dim": encoder.dim}
        with written_by_first(world, output, "encoder", origin, meta) as folder:
            if folder:  # all ranks hold the same
                save_encoder(encoder, folder, {"auxiliary.weight": auxiliary.table.weight})
                np.save(folder / "row_of_label.npy", row_of_label)
                (folder / "history.json").write_text(json.dumps(history, indent=1) + "\n")
