"""Where a step's output comes from: the same facts for manifests and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from xcflow.artifact import json_digest, read_manifest
from xcflow.config import Config
from xcflow.library import library_digest
from xcflow.steps import STEPS
from xcflow.training.checkpoint import Checkpoint


class Provenance(TypedDict):
    """Keyword arguments of ``artifact.writing``."""

    config_digest: str
    inputs: dict[str, str]


def provenance(step: str, config: Config, inputs: Mapping[str, Path]) -> Provenance:
    """What determines a step's result besides the library: configuration and inputs."""
    digests = {name: read_manifest(path).digest for name, path in inputs.items()}
    sections = [section for section in STEPS[step].sections if section != "checkpoint"]
    return {"config_digest": config.digest(*sections), "inputs": digests}


def checkpoint_of(step: str, config: Config, origin: Provenance) -> Checkpoint:
    """The checkpoint that belongs to just this work, by just this code."""
    key = json_digest([library_digest(), origin["config_digest"], origin["inputs"]])
    return Checkpoint(step, key, config.checkpoint.every_seconds, config.checkpoint.uri)
