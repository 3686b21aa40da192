"""Where a step's output comes from: the same facts for manifests and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from xcflow.artifact import json_digest, read_manifest, writing
from xcflow.config import Config
from xcflow.distributed.world import World
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
    return {"config_digest": config.digest(*STEPS[step].identity), "inputs": digests}


@contextmanager
def written_by_first(
    world: World, output: Path, kind: str, origin: Provenance, meta: dict[str, Any] | None = None
) -> Iterator[Path | None]:
    """``artifact.writing`` at the first rank; the others get no folder, but may have to send.

    Args:
        world: The ranks, each of which calls this.
        output: The folder.
        kind: What it is.
        origin: Where it comes from.
        meta: Small facts for readers.
    """
    if world.first:
        with writing(output, kind, **origin, meta=meta) as folder:
            yield folder
    else:
        yield None


def checkpoint_of(step: str, config: Config, origin: Provenance) -> Checkpoint:
    """The checkpoint that belongs to just this work, by just this code, on any number of ranks."""
    key = json_digest([library_digest(), origin["config_digest"], origin["inputs"]])
    place = config.checkpoint
    return Checkpoint(step, key, place.every_seconds, place.uri, World.of_environment())
