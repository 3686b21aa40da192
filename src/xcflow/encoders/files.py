"""The two files of a trained encoder: ``encoder.json`` (settings) and ``encoder.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xcflow.errors import ArtifactError

SETTINGS = "encoder.json"
WEIGHTS = "encoder.safetensors"
# Kinds of encoders, as settings name them, that need no torch to answer by themselves.
BAG = "bag_of_embeddings"
SIDE_BY_SIDE = "side_by_side"

T = TypeVar("T")

_TYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of the encoder in a folder.

    Raises:
        ArtifactError: The folder holds none.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from error
    return settings


def mapped_tensors(folder: Path) -> dict[str, NDArray[Any]]:
    """The encoder's tensors, memory-mapped: what a text does not need is never read.

    The format (huggingface/safetensors, "Format"): a header's length in 8 bytes, the header as
    JSON, then the tensors, each where the header says.

    Raises:
        ArtifactError: The folder holds none.
    """
    path = folder / WEIGHTS
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        # As a plain array: each look at a memmap costs microseconds.
        whole = np.asarray(np.memmap(path, np.uint8, mode="r", offset=8 + size))
        return {
            name: whole[slice(*entry["data_offsets"])]
            .view(_TYPES[entry["dtype"]])
            .reshape(entry["shape"])
            for name, entry in header.items()
        }
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise unreadable(folder, error) from error


def unreadable(folder: Path, error: Exception) -> ArtifactError:
    """The error of a folder without an encoder."""
    return ArtifactError(f"{folder}: holds no readable encoder: {error}")


def tensors_of_member(tensors: Mapping[str, T], number: int) -> dict[str, T]:
    """The part of the tensors that one of several encoders side by side gave."""
    start = f"{number}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
