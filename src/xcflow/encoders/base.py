"""What every encoder offers: token ids in, vectors out, states that a checkpoint can hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from xcflow.distributed.world import World
from xcflow.ragged import Ragged
from xcflow.row_table import RowTable

ENCODE_ROWS = 4096


class Encoder(nn.Module, ABC):
    """A text encoder shared by documents and labels.

    Attributes:
        dim: Width D of the vectors.
    """

    dim: int

    @property
    def parts(self) -> tuple[int, ...]:
        """Widths of the vectors' parts, which stem from encoders side by side.

        A cosine of whole vectors is the mean of the parts' cosines.
        """
        return (self.dim,)

    @abstractmethod
    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors [B, D] of a batch of token rows, not normalised, with gradients in training."""

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Dense weights that come from pre-training; they learn at a rate of their own."""
        return []

    def forward_dealt(self, texts: Sequence[Ragged], world: World) -> Tensor:
        """Vectors of this rank's texts of a batch that all ranks know, in training.

        Args:
            texts: The texts of each rank.
            world: The ranks, to which ``tables`` have been dealt.
        """
        vectors: Tensor = self(texts[world.rank])
        return vectors

    def tables(self) -> dict[str, RowTable]:
        """What the encoder trains outside autograd's parameters, by its name in ``state``."""
        return {}

    @abstractmethod
    def sparse_step(self, rate: float) -> None:
        """Update what the encoder trains outside autograd's parameters (its token table)."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What besides the tensors is needed to make the encoder again, as JSON values."""

    @abstractmethod
    def state(self, *, training: bool) -> dict[str, Tensor]:
        """Tensors to save: weights, and with ``training`` the moments of its own tables."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""

    @torch.no_grad()
    def encode(self, tokens: Ragged, *, unit: bool = True) -> Tensor:
        """Vectors [N, D] float32 of many token rows, without dropout, in blocks.

        Args:
            tokens: N rows.
            unit: Whether the vectors are normalised.
        """
        out = torch.empty(len(tokens), self.dim)
        with evaluating(self):
            for start, block in blocks(tokens, ENCODE_ROWS):
                vectors = self(block)
                # Here, where it costs no second copy of all vectors.
                out[start : start + len(block)] = (
                    nn.functional.normalize(vectors, dim=1) if unit else vectors
                )
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
