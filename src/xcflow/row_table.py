"""Tables of which a step touches few rows: token table, auxiliary vectors, classifiers.

A step gathers the rows it needs into a small leaf tensor, lets autograd fill the leaf's dense
gradient, and updates those rows only. No gradient of the table's size is ever made and nothing is
coalesced; time and traffic of a step follow the rows in use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xcflow.distributed.collectives import all_rows, sum_rows
from xcflow.distributed.world import ALONE, World


class RowTable:
    """A [R, D] table with Adam state for each row, updated only where a step looked.

    Bias correction counts the updates of each row, not of the table, so that a row seen for the
    first time late in training takes a step of the usual size.

    Where several ranks train one table, each holds all its rows but the Adam state only of those
    dealt to it. It adds up what the ranks have to say of these, updates them and hands them out, so
    that all ranks hold the same values to the last bit.

    Attributes:
        weight: [R, D] float32 values.
        first: [R, D] first moments.
        second: [R] second moments, one for a row: the mean square of its gradient (a third of the
            memory of Adam's state, and rare rows keep the direction of their gradient).
        updates: [R] number of updates so far.
    """

    STATE = ("first", "second", "updates")

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
        self._rows: Tensor | None = None
        self._leaf: Tensor | None = None

    def deal_to(self, world: World) -> None:
        """From now on, train the table together with the other ranks; before the first step."""
        self._world = world
        for name in self.STATE:
            setattr(self, name, getattr(self, name)[world.rank :: world.size].clone())

    def gather(self, rows: Tensor) -> Tensor:
        """The leaf [U, D] of the given distinct rows, for one forward and backward pass."""
        self._rows = rows
        self._leaf = self.weight.index_select(0, rows).requires_grad_()
        return self._leaf

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update the gathered rows with Adam and the leaf's gradient.

        Args:
            rate: Learning rate of this step.
        """
        if self._leaf is None or self._rows is None or self._leaf.grad is None:
            raise RuntimeError("step without gather and backward")
        rows, changed, gradient = self._rows, self._leaf.detach(), self._leaf.grad
        self._leaf = self._rows = None
        if self._world.alone:
            self._update(rows, changed, gradient, rate)
        else:
            rows, gradient = sum_rows(self._world, rows, gradient)
            changed = self.weight.index_select(0, rows)
            self._update(rows // self._world.size, changed, gradient, rate)
            rows, changed = all_rows(self._world, rows, changed)
        self.weight.index_copy_(0, rows, changed)

    def _update(self, rows: Tensor, values: Tensor, gradient: Tensor, rate: float) -> None:
        """Update values [U, D] in place; ``rows`` is where their state stands."""
        beta1, beta2 = self._betas
        updates = self.updates[rows] + 1.0
        # Whole rows are copied by index_select and index_copy, value by value by plain indexing.
        first = self.first.index_select(0, rows).lerp_(gradient, 1.0 - beta1)
        mean_square = torch.linalg.vector_norm(gradient, dim=1).square_() / gradient.shape[1]
        second = self.second[rows].lerp_(mean_square, 1.0 - beta2)
        scale = second.div(1.0 - beta2**updates).sqrt_().add_(self._epsilon)
        scale = rate / (scale * (1.0 - beta1**updates))
        values.addcmul_(first, scale[:, None], value=-1.0)
        self.first.index_copy_(0, rows, first)
        self.second[rows] = second
        self.updates[rows] = updates

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, under names that start with ``prefix``."""
        return {f"{prefix}.{name}": getattr(self, name) for name in ("weight", *self.STATE)}

    def restore(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        for name in ("weight", *self.STATE):
            getattr(self, name).copy_(tensors[f"{prefix}.{name}"])
