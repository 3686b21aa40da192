"""What ranks exchange, and how gradients flow through it.

Every rank calls the same functions in the same order; that keeps them in step. In a world of one
each of them gives back what it got.

The loss of a batch is a sum, and each rank holds the summands of what was dealt to it. So backward
passes add up: the gradient of what a rank gave to all is the sum of what all have to say of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as ranks
from numpy.typing import NDArray
from torch import Tensor, nn

from xcflow.distributed.world import World

BLOCK = 16_384  # rows that are sent at a time
_NOTHING = torch.empty(0, dtype=torch.uint8)


class Dealt(NamedTuple):
    """How a tensor is dealt to the ranks.

    Attributes:
        axis: 0 for rows (like cards), 1 for columns (in blocks).
        size: Rows or columns that there are.
    """

    axis: int
    size: int


def total(world: World, *values: float) -> tuple[float, ...]:
    """Each value added up over the ranks."""
    if world.alone:
        return values
    sums = torch.tensor(values, dtype=torch.float64)
    ranks.all_reduce(sums)
    return tuple(sums.tolist())


def sum_of_ranks(world: World, values: Tensor) -> Tensor:
    """Values of one shape added up over the ranks, in place."""
    if not world.alone:
        ranks.all_reduce(values)
    return values


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


def part_of_first(world: World, whole: Tensor, dealt: Dealt | None, block: int = BLOCK) -> Tensor:
    """The first rank's tensor: all of it, or what is dealt to each rank.

    Args:
        world: The ranks.
        whole: The others bring a tensor of the same shape and type, which is not looked at.
        dealt: How it is dealt to them.
        block: Rows sent at a time.
    """
    if world.alone:
        return whole
    count, size = len(whole), max(1, block // world.size) * world.size
    rows = slice(world.rank, None, world.size) if dealt and dealt.axis == 0 else slice(None)
    columns = world.columns(dealt.size) if dealt and dealt.axis == 1 else slice(None)
    shape = list(whole.shape)
    if dealt:
        shape[dealt.axis] = world.share(count) if dealt.axis == 0 else columns.stop - columns.start
    own, filled = torch.empty(shape, dtype=whole.dtype), 0
    for start in range(0, count, size):
        part = whole[start : start + size]
        part = part.contiguous() if world.first else torch.empty(part.shape, dtype=part.dtype)
        ranks.broadcast(part.view(-1).view(torch.uint8), src=0)
        mine = part[rows, columns] if part.ndim > 1 else part[rows]
        own[filled : filled + len(mine)] = mine
        filled += len(mine)
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


def columns_of_all(world: World, own: Tensor, count: int) -> Tensor:
    """[N, count] all columns, of which each rank brings those that belong to it; no gradients."""
    if world.alone:
        return own
    widest = -(-count // world.size)
    padded = own.new_zeros(len(own), widest)
    padded[:, : own.shape[1]] = own
    every = stacked(world, padded)
    parts = [part[:, :width] for part, width in zip(every, _widths(world, count), strict=True)]
    return torch.cat(parts, 1)


def _widths(world: World, count: int) -> list[int]:
    """How many columns belong to each rank."""
    columns = [World(rank, world.size).columns(count) for rank in range(world.size)]
    return [each.stop - each.start for each in columns]


def blocks_at_first(
    world: World, own: Tensor, dealt: Dealt, block: int = BLOCK
) -> Iterator[Tensor]:
    """Consecutive rows of a tensor at the first rank, which never holds them all.

    Args:
        world: The ranks.
        own: What this rank holds of it.
        dealt: How it is dealt to them.
        block: Rows that come at a time.
    """
    if dealt.axis == 1:
        for part in torch.split(own, block):
            yield columns_of_all(world, part, dealt.size)
        return
    size = max(1, block // world.size) * world.size
    for start in range(0, dealt.size, size):
        stop = min(start + size, dealt.size)
        part = own[start // world.size :][: world.share(stop - start)]
        yield dealt_rows_at_first(world, part, stop - start)


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


def own_rows(world: World, columns: Tensor, count: int, shares: Sequence[int]) -> Tensor:
    """[n, count] all columns of this rank's rows, with gradients.

    Args:
        world: The ranks.
        columns: [N, d] those columns of all rows that belong to this rank.
        count: Columns that there are.
        shares: How many of the N rows each rank wants, one after the other.
    """
    if world.alone:
        return columns
    rows: Tensor = _OwnRows.apply(world, columns, count, shares)  # type: ignore[no-untyped-call]
    return rows


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


class _OwnRows(torch.autograd.Function):
    """From columns of all rows to all columns of some rows, and back."""

    @staticmethod
    def forward(
        ctx: Any, world: World, columns: Tensor, count: int, shares: Sequence[int]
    ) -> Tensor:
        ctx.world, ctx.shares = world, shares
        ctx.widths = widths = _widths(world, count)
        rows, width = shares[world.rank], columns.shape[1]
        sent = [width * share for share in shares]
        received = columns.new_empty(rows * sum(widths))
        coming = [rows * each for each in widths]
        ranks.all_to_all_single(received, columns.contiguous().view(-1), coming, sent)
        parts = torch.split(received, coming)
        return torch.cat([p.view(rows, w) for p, w in zip(parts, widths, strict=True)], 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        world, shares = ctx.world, ctx.shares
        rows, width = shares[world.rank], ctx.widths[world.rank]
        sent = torch.cat([part.reshape(-1) for part in torch.split(gradient, ctx.widths, 1)])
        received = gradient.new_empty(sum(shares) * width)
        ranks.all_to_all_single(
            received, sent, [share * width for share in shares], [rows * w for w in ctx.widths]
        )
        return None, received.view(-1, width), None, None
