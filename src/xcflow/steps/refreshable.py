"""The parts of a champion that a refresh takes over or goes on from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xcflow.artifact import Manifest, read_manifest
from xcflow.catalogue.hashing import Hashes
from xcflow.errors import ArtifactError
from xcflow.retrieval.fusion import Fusion
from xcflow.retrieval.voices import Voices
from xcflow.serving.bundle import (
    AUXILIARY,
    CLUSTERS,
    CONFIG,
    DOCUMENT_HASHES,
    KIND,
    LABEL_COUNTS,
    SETTINGS,
)
from xcflow.serving.embedding import Embedder

_ARRAYS = {
    "counts": LABEL_COUNTS,
    "row_of_label": CLUSTERS,
    "auxiliary": AUXILIARY,
    "document_hashes": DOCUMENT_HASHES,
}


@dataclass(frozen=True, eq=False)
class Refreshable:
    """A bundle with all that new labels and documents need to find their place in it.

    Attributes:
        folder: The bundle.
        manifest: Its description.
        settings: Its ``bundle.json``.
        config: Its ``config.json``: how it was trained.
        embedder: Its own tokenizer and encoder.
        voices: Its vectors and indexes.
        counts: [L] training documents of each label that its classifier learned from.
        row_of_label: [L] row of each label's auxiliary vector.
        auxiliary: [K, D] these vectors.
        document_hashes: [N] hash of the text of each document that votes.
    """

    folder: Path
    manifest: Manifest
    settings: dict[str, Any]
    config: dict[str, Any]
    embedder: Embedder
    voices: Voices
    counts: NDArray[np.int64]
    row_of_label: NDArray[np.int32]
    auxiliary: NDArray[np.float16]
    document_hashes: Hashes

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a bundle.

        Raises:
            ArtifactError: It is none, was altered, or another version of xcflow built it.
        """
        manifest = read_manifest(folder, KIND, verify=True)
        settings, config = (_read(folder / name) for name in (SETTINGS, CONFIG))
        try:
            Fusion.from_dict(settings["fusion"])  # taken over as it is, so it must be of this one
            for section in ("encoder", "module_one", "retrieval"):
                config[section]
            return cls(
                folder,
                manifest,
                settings,
                config,
                Embedder.load(folder, settings),
                Voices.load(folder, settings["voices"]),
                **{k: np.load(folder / v, allow_pickle=False) for k, v in _ARRAYS.items()},
            )
        except (FileNotFoundError, KeyError) as error:
            lacking = Path(error.filename).name if isinstance(error, OSError) else error.args[0]
            raise ArtifactError(
                f"{folder}: lacks {lacking}, another version of xcflow built it and it cannot be "
                "refreshed: train a model (xcflow run)"
            ) from error


def _read(path: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return tree
