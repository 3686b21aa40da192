"""Encoders side by side: each sees every text, and their cosines are averaged.

Two bags of embeddings that differ by chance alone err on different labels. A transformer sees words
in their context, a bag holds rare names in vectors of their own. All are trained on the same
batches, each by a loss of its own: by one loss of their mean they lean on each other, and what one
gets wrong the other learns to outweigh on the training documents alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xcflow.distributed.world import World
from xcflow.encoders.base import Encoder
from xcflow.encoders.files import SIDE_BY_SIDE, tensors_of_member
from xcflow.encoders.parts import unit_parts
from xcflow.ragged import Ragged
from xcflow.row_table import RowTable


class SideBySide(Encoder):
    """E(text) = [unit(E_1(text)), .., unit(E_n(text))] / sqrt(n): cosines are means of cosines.

    Args:
        members: E_1 to E_n.
    """

    KIND = SIDE_BY_SIDE

    def __init__(self, members: Sequence[Encoder]) -> None:
        super().__init__()
        self.members: Sequence[Encoder] = nn.ModuleList(members)  # type: ignore[assignment]
        self.dim = sum(self.parts)

    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors [B, D] of a batch."""
        vectors = torch.cat([member(tokens) for member in self.members], dim=1)
        return unit_parts(vectors, self.parts)

    def forward_dealt(self, texts: Sequence[Ragged], world: World) -> Tensor:
        """Vectors of this rank's texts."""
        members = [member.forward_dealt(texts, world) for member in self.members]
        return unit_parts(torch.cat(members, dim=1), self.parts)

    @property
    def parts(self) -> tuple[int, ...]:
        """The members' widths."""
        return tuple(member.dim for member in self.members)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of all members."""
        return [p for member in self.members for p in member.pretrained_parameters()]

    def tables(self) -> dict[str, RowTable]:
        """Those of all members."""
        return {
            f"{number}.{name}": table
            for number, member in enumerate(self.members)
            for name, table in member.tables().items()
        }

    def sparse_step(self, rate: float) -> None:
        """Update the members' token tables."""
        for member in self.members:
            member.sparse_step(rate)

    def settings(self) -> dict[str, Any]:
        """The kind and the members' settings."""
        return {"kind": self.KIND, "members": [member.settings() for member in self.members]}

    def state(self, *, training: bool) -> dict[str, Tensor]:
        """The tensors of all members, under their numbers."""
        return {
            f"{number}.{name}": tensor
            for number, member in enumerate(self.members)
            for name, tensor in member.state(training=training).items()
        }

    def restore(self, tensors: dict[str, Tensor], *, training: bool) -> None:
        """Take back what ``state`` gave."""
        for number, member in enumerate(self.members):
            member.restore(tensors_of_member(tensors, number), training=training)
