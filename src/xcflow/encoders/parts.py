"""Vectors made of parts of equal length, one for each of the encoders that stand side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unit_parts(vectors: Tensor, parts: tuple[int, ...]) -> Tensor:
    """Unit vectors [N, D] whose parts all have the same length."""
    if len(parts) == 1:
        return nn.functional.normalize(vectors, dim=1)
    units = [nn.functional.normalize(part, dim=1) for part in parts_of(vectors, parts)]
    return torch.cat(units, dim=1) * float(len(parts) ** -0.5)


def parts_of(vectors: Tensor, parts: tuple[int, ...]) -> list[Tensor]:
    """Views of the parts, [N, width] each."""
    starts = [sum(parts[:i]) for i in range(len(parts))]
    return [vectors.narrow(1, start, width) for start, width in zip(starts, parts, strict=True)]
