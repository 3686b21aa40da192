"""What ranks exchange, and how gradients flow through it.

Every rank calls the same functions in the same order; that keeps them in step. In a world of one
each of them gives back what it got.

The loss of a batch is a sum, and each rank holds the summands of what was dealt to it. So backward
passes add up: the gradient of what a rank gave to all is the sum of what all have to say of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as ranks
from numpy.typing import NDArray
from torch import Tensor, nn

from xcflow.distributed.world import World

_NOTHING = torch.empty(0, dtype=torch.uint8)


def total(world: World, *values: float) -> tuple[float, ...]:
    """Each value added up over the ranks."""
    if world.alone:
        return values
    sums = torch.tensor(values, dtype=torch.float64)
    ranks.all_reduce(sums)
    return tuple(sums.tolist())


def order_of_first(
    world: World, documents: int, make: Callable[[], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """[documents] the order that the first rank makes while the others wait."""
    if world.alone:
        return make()
    order = torch.from_numpy(make()) if world.first else torch.empty(documents, dtype=torch.int64)
    ranks.broadcast(order, src=0)
    return order.numpy()


def text_of_first(world: World, text: str) -> str:
    """The first rank's text."""
    if world.alone:
        return text
    content = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else _NOTHING
    size = torch.tensor([len(content)])
    ranks.broadcast(size, src=0)
    if not world.first:
        content = torch.empty(int(size), dtype=torch.uint8)
    ranks.broadcast(content, src=0)
    return content.numpy().tobytes().decode()


def rows_of_first(world: World, rows: Tensor, *, dealt: bool, block: int = 16_384) -> Tensor:
    """The first rank's rows: all of them, or those that are dealt to each rank.

    Args:
        world: The ranks.
        rows: The others bring a tensor of the same shape and type, which is not looked at.
        dealt: Whether each rank gets its own rows alone.
        block: Rows sent at a time.
    """
    if world.alone:
        return rows
    size = max(1, block // world.size) * world.size
    step = world.size if dealt else 1
    own = rows.new_empty(len(rows[world.rank :: step] if dealt else rows), *rows.shape[1:])
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        part = part.contiguous() if world.first else torch.empty(part.shape, dtype=part.dtype)
        ranks.broadcast(part.view(-1).view(torch.uint8), src=0)
        mine = part[world.rank :: step] if dealt else part
        own[start // step :][: len(mine)] = mine
    return own


def stacked(world: World, tensor: Tensor) -> Tensor:
    """[size, ...] the tensors of all ranks, which have one shape, with gradients."""
    if world.alone:
        return tensor[None]
    every: Tensor = _Stacked.apply(world, tensor)  # type: ignore[no-untyped-call]
    return every


def dealt_rows(world: World, rows: Tensor, count: int) -> Tensor:
    """[count, ...] all rows, of which each rank brings those dealt to it, with gradients."""
    if world.alone:
        return rows
    lacking = -(-count // world.size) - len(rows)
    every = stacked(world, torch.cat([rows, rows.new_zeros(lacking, *rows.shape[1:])]))
    return every.transpose(0, 1).reshape(-1, *rows.shape[1:])[:count]


def dealt_rows_at_first(world: World, rows: Tensor, count: int) -> Tensor:
    """[count, ...] all rows at the first rank, none at the others."""
    if world.alone:
        return rows
    rows = rows.detach()
    size = -(-count // world.size)
    own = torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])])
    every = [torch.empty_like(own) for _ in range(world.size)] if world.first else None
    ranks.gather(own, every, dst=0)
    if every is None:
        return rows[:0]
    return torch.stack(every, 1).reshape(-1, *rows.shape[1:])[:count]


def blocks_at_first(
    world: World, rows: Tensor, count: int, block: int = 16_384
) -> Iterator[Tensor]:
    """The same block by block, so that the first rank never holds all rows."""
    size = max(1, block // world.size) * world.size
    for start in range(0, count, size):
        stop = min(start + size, count)
        yield dealt_rows_at_first(
            world, rows[start // world.size :][: world.share(stop - start)], stop - start
        )


def sum_gradients(world: World, parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of parameters over the ranks, in one exchange."""
    if world.alone:
        return
    trained = list(parameters)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = torch.cat([grad.ravel() for grad in grads])
    ranks.all_reduce(flat)
    parts = torch.split(flat, [p.numel() for p in trained])
    for parameter, part in zip(trained, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def sum_rows(world: World, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Add up rows of a table over the ranks, each at the rank it belongs to.

    Args:
        world: The ranks.
        rows: [U] distinct row numbers that this rank has something to say of.
        values: [U, D] float32.

    Returns:
        The rows dealt to this rank that any rank named, rising, and their sums.
    """
    owner = rows % world.size
    order = torch.argsort(owner, stable=True)
    counts = torch.bincount(owner, minlength=world.size)
    received = _exchanged(_packed(rows[order], values.index_select(0, order)), counts)
    numbers, values = _unpacked(received)
    own, place = torch.unique(numbers, return_inverse=True)
    return own, values.new_zeros(len(own), values.shape[1]).index_add_(0, place, values)


def all_rows(world: World, rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The rows [U] and values [U, D] of all ranks, one after the other."""
    packed = _packed(rows, values)
    counts = torch.full((world.size,), len(rows))
    return _unpacked(_exchanged(packed.repeat(world.size, 1), counts))


def _packed(rows: Tensor, values: Tensor) -> Tensor:
    """[U, D + 1]: the row's number stands, bit for bit, behind its values."""
    return torch.cat([values, rows.int().view(torch.float32)[:, None]], 1)


def _unpacked(packed: Tensor) -> tuple[Tensor, Tensor]:
    return packed[:, -1].contiguous().view(torch.int32).long(), packed[:, :-1]


def _exchanged(parts: Tensor, counts: Tensor) -> Tensor:
    """What the ranks have for this one; ``counts[r]`` rows of ``parts`` are for rank ``r``."""
    coming = torch.empty_like(counts)
    ranks.all_to_all_single(coming, counts)
    received = parts.new_empty(int(coming.sum()), *parts.shape[1:])
    ranks.all_to_all_single(received, parts, coming.tolist(), counts.tolist())
    return received


class _Stacked(torch.autograd.Function):
    """Give a tensor to all ranks; its gradient is the sum of what they have to say of it."""

    @staticmethod
    def forward(ctx: Any, world: World, tensor: Tensor) -> Tensor:
        ctx.world = world
        every = tensor.new_empty(world.size, *tensor.shape)
        ranks.all_gather_single(every.view(-1), tensor.contiguous().view(-1))
        return every

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        received = torch.empty_like(gradient, memory_format=torch.contiguous_format)
        ranks.all_to_all_single(received, gradient.contiguous())
        return None, received.sum(0)
