"""The labels that the documents of a batch are scored against, with what is known of each pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcflow.distributed.world import World
from xcflow.ragged import Ragged


@dataclass(frozen=True)
class Pairs:
    """Entries of a [B, U] block of scores.

    Attributes:
        rows: [P] int64 document positions.
        columns: [P] int64 candidate positions.
    """

    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, rows: NDArray[Any], columns: NDArray[Any]) -> Pairs:
        """From arrays."""
        return cls(torch.from_numpy(rows), torch.from_numpy(columns))

    def moved(self, column: Tensor) -> Pairs:
        """The pairs whose column has a new number in [U], which is not negative."""
        columns = column[self.columns]
        stays = columns >= 0
        return Pairs(self.rows[stays], columns[stays])


@dataclass(frozen=True)
class Candidates:
    """Candidate labels shared by a batch; every candidate that is not known is a negative.

    Attributes:
        labels: [U] int64 label rows, rising.
        positives: Pairs whose label is true.
        ignored: Pairs that are neither positive nor negative: label and document are one item.
    """

    labels: NDArray[np.int64]
    positives: Pairs
    ignored: Pairs

    @classmethod
    def shared(
        cls, labels: NDArray[np.integer[Any]], truth: Ragged, same_item: NDArray[np.int64]
    ) -> Candidates:
        """Candidates of a batch from the labels that anyone proposes.

        Args:
            labels: Proposed label rows, repeated or not.
            truth: B rows of true labels; those that nobody proposes take no part.
            same_item: [B] the label that is the document itself, -1 where there is none.
        """
        distinct = np.unique(labels).astype(np.int64)
        rows, columns = _places(distinct, truth.row_ids(), truth.data)
        itself = np.flatnonzero(same_item >= 0)
        ignored = _places(distinct, itself, same_item[itself])
        return cls(distinct, Pairs.of(rows, columns), Pairs.of(*ignored))

    def dealt_to(self, world: World) -> Candidates:
        """Those labels that belong to a rank, numbered among all that do, and their pairs."""
        if world.alone:
            return self
        own = self.labels % world.size == world.rank
        column = torch.from_numpy(np.where(own, np.cumsum(own) - 1, -1))
        pairs = (each.moved(column) for each in (self.positives, self.ignored))
        return Candidates(self.labels[own] // world.size, *pairs)


def _places(
    candidates: NDArray[np.int64], rows: NDArray[np.int64], labels: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs whose label is among the candidates, with the candidate's position."""
    columns = np.searchsorted(candidates, labels)
    columns[columns == len(candidates)] = 0
    found = candidates[columns] == labels
    return rows[found], columns[found]
