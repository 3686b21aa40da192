"""Tables of which a step touches few rows: token table, auxiliary vectors, classifiers.

A step gathers the rows it needs into a small leaf tensor, lets autograd fill the leaf's dense
gradient, and updates those rows only. No gradient of the table's size is ever made and nothing is
coalesced; time and traffic of a step follow the rows in use.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xcflow.distributed.collectives import BLOCK, Dealt, columns_of_all, own_rows, sum_of_ranks
from xcflow.distributed.world import ALONE, World

_TENSORS = ("weight", "first", "second", "updates")


class RowTable:
    """A [R, D] table with Adam state for each row, updated only where a step looked.

    Bias correction counts the updates of each row, not of the table, so that a row seen for the
    first time late in training takes a step of the usual size.

    Several ranks that train one table share its columns: each looks up, for all of them, the rows
    of the whole batch in the columns that belong to it, and updates these. What ranks exchange are
    the sums that lookups end in, far less than rows and their gradients. Of ``second``, of which a
    row has one, and ``updates`` each holds all.

    Attributes:
        weight: [R, D] float32 values; of several ranks, other columns than a rank's own are as
            they were when ``make_whole`` was last called.
        first: [R, D] first moments; of several ranks, each holds its columns.
        second: [R] second moments, one for a row: the mean square of its gradient (a third of the
            memory of Adam's state, and rare rows keep the direction of their gradient).
        updates: [R] number of updates so far.
    """

    def __init__(
        self, weight: Tensor, *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        self.weight = weight
        self.first = torch.zeros_like(weight)
        self.second = torch.zeros(len(weight))
        self.updates = torch.zeros(len(weight))
        self._betas = (beta1, beta2)
        self._epsilon = epsilon
        self._world = ALONE
        self._own = weight
        self._rows: Tensor | None = None
        self._leaf: Tensor | None = None

    def deal_to(self, world: World) -> None:
        """From now on, train the table together with the other ranks; before the first step."""
        self._world = world
        columns = world.columns(self.weight.shape[1])
        self._own, self.first = self.weight[:, columns], self.first[:, columns].clone()

    @property
    def dealt(self) -> Dealt:
        """How ``first`` is dealt to the ranks."""
        return Dealt(1, self.weight.shape[1])

    @torch.no_grad()
    def make_whole(self) -> None:
        """Bring the columns of the other ranks up to date."""
        if self._world.alone:
            return
        for start in range(0, len(self.weight), BLOCK):
            rows = slice(start, start + BLOCK)
            self.weight[rows] = columns_of_all(self._world, self._own[rows], self.weight.shape[1])

    def gather(self, rows: Tensor) -> Tensor:
        """The leaf [U, D] of the given distinct rows, for one forward and backward pass.

        Of several ranks each gets its columns, and all must ask for the same rows.
        """
        self._rows = rows
        self._leaf = self._own.index_select(0, rows).requires_grad_()
        return self._leaf

    def own_rows(self, columns: Tensor, shares: Sequence[int]) -> Tensor:
        """What was made of the leaf, column by column, with all columns.

        Args:
            columns: [N, d] this rank's columns of N sums of rows.
            shares: How many of these each rank wants, one after the other.

        Returns:
            [n, D] those that this rank wants, with gradients.
        """
        return own_rows(self._world, columns, self.weight.shape[1], shares)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update the gathered rows with Adam and the leaf's gradient.

        Args:
            rate: Learning rate of this step.
        """
        if self._leaf is None or self._rows is None or self._leaf.grad is None:
            raise RuntimeError("step without gather and backward")
        rows, changed, gradient = self._rows, self._leaf.detach(), self._leaf.grad
        beta1, beta2 = self._betas
        updates = self.updates[rows] + 1.0
        # Whole rows are copied by index_select and index_copy, value by value by plain indexing.
        first = self.first.index_select(0, rows).lerp_(gradient, 1.0 - beta1)
        squares = sum_of_ranks(self._world, torch.linalg.vector_norm(gradient, dim=1).square_())
        mean_square = squares / self.weight.shape[1]
        second = self.second[rows].lerp_(mean_square, 1.0 - beta2)
        scale = second.div(1.0 - beta2**updates).sqrt_().add_(self._epsilon)
        scale = rate / (scale * (1.0 - beta1**updates))
        changed.addcmul_(first, scale[:, None], value=-1.0)
        self._own.index_copy_(0, rows, changed)
        self.first.index_copy_(0, rows, first)
        self.second[rows] = second
        self.updates[rows] = updates
        self._leaf = self._rows = None

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, under names that start with ``prefix``."""
        return {f"{prefix}.{name}": getattr(self, name) for name in _TENSORS}

    def restore(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        for name in _TENSORS:
            getattr(self, name).copy_(tensors[f"{prefix}.{name}"])
