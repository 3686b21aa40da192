"""Trained encoders for answering.

A server starts in a second, because nothing loads torch: bags of embeddings need numpy alone, a
transformer is run by onnxruntime where the bundle holds an export of it. Where it holds none, torch
runs the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xcflow.encoders.files import (
    BAG,
    SIDE_BY_SIDE,
    mapped_tensors,
    read_settings,
    tensors_of_member,
)
from xcflow.encoders.frozen_transformer import FrozenTransformer, Precision
from xcflow.encoders.phrases import Phrases
from xcflow.encoders.unit import unit_rows
from xcflow.ragged import Ragged


class FrozenEncoder(Protocol):
    """An encoder that no longer learns.

    Attributes:
        dim: Width D of the vectors.
        parts: Widths of their parts, which stem from encoders side by side.
    """

    dim: int
    parts: tuple[int, ...]

    def encode(self, tokens: Ragged, *, unit: bool = True) -> NDArray[np.float32]:
        """Vectors [N, D] of N token rows, normalised unless told otherwise."""


class FrozenBag:
    """v + W relu(v) + b, v = sum of rows / sqrt(number of tokens), as ``BagOfEmbeddings`` has it.

    Args:
        tensors: The encoder's tensors; the table may be memory-mapped.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._phrases = Phrases.restored(tensors)
        self._table = tensors["encoder.table.weight"]
        self._residual = np.ascontiguousarray(tensors["encoder.residual.weight"].T)
        self._bias = np.array(tensors["encoder.residual.bias"])
        self.dim: int = self._table.shape[1]
        self.parts: tuple[int, ...] = (self.dim,)

    def encode(self, tokens: Ragged, *, unit: bool = True) -> NDArray[np.float32]:
        """Vectors [N, D] of N token rows, normalised unless told otherwise."""
        units = self._phrases.added_to(tokens)
        vectors = np.empty((len(units), self.dim), np.float32)
        for row in range(len(units)):
            self._table[units[row]].sum(axis=0, dtype=np.float32, out=vectors[row])
        vectors /= np.sqrt(np.maximum(tokens.lengths, 1), dtype=np.float32)[:, None]
        # One by one: a product with all of them at once rounds by their number, so that a text's
        # vector would depend on the others.
        vectors += (np.maximum(vectors, 0.0)[:, None] @ self._residual)[:, 0] + self._bias
        return unit_rows(vectors) if unit else vectors


class FrozenSideBySide:
    """[unit(E_1(text)), .., unit(E_n(text))] / sqrt(n), as ``SideBySide`` has it.

    Args:
        members: E_1 to E_n.
    """

    def __init__(self, members: Sequence[FrozenEncoder]) -> None:
        self._members = members
        self.parts = tuple(member.dim for member in members)
        self.dim = sum(self.parts)

    def encode(self, tokens: Ragged, *, unit: bool = True) -> NDArray[np.float32]:
        """Vectors [N, D] of N token rows, which are of norm 1 in any case."""
        parts = [member.encode(tokens, unit=False) for member in self._members]
        vectors = unit_parts(np.concatenate(parts, axis=1), self.parts)
        return unit_rows(vectors) if unit else vectors


class FrozenInTorch:
    """An encoder with a transformer in it, run by torch.

    Args:
        folder: Holds the encoder.
    """

    def __init__(self, folder: Path) -> None:
        from xcflow.encoders.build import load_encoder

        self._encoder = load_encoder(folder)[0]
        self.dim, self.parts = self._encoder.dim, self._encoder.parts

    def encode(self, tokens: Ragged, *, unit: bool = True) -> NDArray[np.float32]:
        """Vectors [N, D] of N token rows, normalised unless told otherwise."""
        return np.asarray(self._encoder.encode(tokens, unit=unit).numpy())


def load_frozen(folder: Path, precision: Precision | None = None) -> FrozenEncoder:
    """Open the encoder of a bundle for answering.

    Args:
        folder: Holds the encoder.
        precision: Which export of its transformer answers; without one torch does.

    Raises:
        ArtifactError: The folder holds no encoder that this version knows.
        MissingExtraError: An export is to answer, and onnxruntime is not installed.
    """
    settings = read_settings(folder)
    if precision is None and has_transformer(settings):
        return FrozenInTorch(folder)
    tensors = mapped_tensors(folder)

    def frozen(
        settings: dict[str, Any], tensors: Mapping[str, NDArray[Any]], number: int | None = None
    ) -> FrozenEncoder:
        if precision is None or settings["kind"] == BAG:
            return FrozenBag(tensors)
        return FrozenTransformer(settings, folder, precision, number)

    if settings["kind"] != SIDE_BY_SIDE:
        return frozen(settings, tensors)
    return FrozenSideBySide(
        [
            frozen(member, tensors_of_member(tensors, number), number)
            for number, member in enumerate(settings["members"])
        ]
    )


def has_transformer(settings: Mapping[str, Any]) -> bool:
    """Whether an encoder with these settings is, or has among its members, anything but bags."""
    return any(member["kind"] != BAG for member in settings.get("members", [settings]))


def unit_parts(vectors: NDArray[np.float32], parts: tuple[int, ...]) -> NDArray[np.float32]:
    """Rows [N, D] of norm 1 whose parts, of these widths, all have the same norm."""
    bounds = np.cumsum(parts)[:-1]
    units = [unit_rows(part) for part in np.split(vectors, bounds, axis=1)]
    return np.asarray(np.concatenate(units, axis=1) * len(parts) ** -0.5, np.float32)
