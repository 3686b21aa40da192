"""What every encoder offers: token ids in, vectors out, states that a checkpoint can hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from xcflow.progress import progress
from xcflow.ragged import Ragged

ENCODE_ROWS = 4096


class Encoder(nn.Module, ABC):
    """A text encoder shared by documents and labels.

    Attributes:
        dim: Width D of the vectors.
    """

    dim: int

    @abstractmethod
    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors [B, D] of a batch of token rows, not normalised, with gradients in training."""

    @abstractmethod
    def sparse_step(self, rate: float) -> None:
        """Update what the encoder trains outside autograd's parameters (its token table)."""

    @abstractmethod
    def state(self, *, training: bool) -> dict[str, Tensor]:
        """Tensors to save: weights, and with ``training`` the moments of its own tables."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""

    @torch.no_grad()
    def encode(self, tokens: Ragged, *, title: str = "") -> Tensor:
        """Unit vectors [N, D] float32 of many token rows, without dropout, in blocks.

        Args:
            tokens: N rows.
            title: Shows progress under this name.
        """
        out = torch.empty(len(tokens), self.dim)
        with evaluating(self), progress(title, len(tokens), "texts") as advance:
            for start, block in blocks(tokens, ENCODE_ROWS):
                vectors = nn.functional.normalize(self(block).float(), dim=1)
                out[start : start + len(block)] = vectors
                advance(len(block))
        return out


def blocks(tokens: Ragged, rows: int) -> Iterator[tuple[int, Ragged]]:
    """Consecutive parts of at most ``rows`` rows, with the number of their first row."""
    for start in range(0, len(tokens), rows):
        yield start, tokens.slice(start, min(start + rows, len(tokens)))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def token_rows(tokens: Ragged) -> tuple[Tensor, Tensor]:
    """Token ids [T] and row starts [B] as int64 tensors."""
    ids = torch.from_numpy(tokens.data.astype("int64"))
    return ids, torch.from_numpy(tokens.offsets[:-1].copy())


def encoder_file(folder: Path) -> Path:
    """The weights of an encoder inside a step's folder or a bundle."""
    return folder / "encoder.safetensors"
