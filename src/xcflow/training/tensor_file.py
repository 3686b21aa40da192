"""Tensor files (safetensors) of tensors that are dealt to ranks.

The first rank writes them, block by block as they come in, so that it never holds them all, and
hands out what it reads in the same way. The file looks as if one process had written it: any number
of ranks can go on from it.

Format: the length of the header as 8 bytes, little-endian; the header, JSON of each tensor's type,
shape and place; the tensors' bytes end to end (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save_file
from torch import Tensor

from xcflow.disk import shared
from xcflow.distributed.collectives import Dealt, blocks_at_first, part_of_first, text_of_first
from xcflow.distributed.world import World

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: dict[str, str],
    dealt: Mapping[str, Dealt],
    world: World,
) -> None:
    """Write one file; all ranks take part, and the first one writes.

    Args:
        path: The file; its folder is made.
        tensors: What this rank holds: the same names on all ranks.
        metadata: Goes into the header.
        dealt: Names of tensors that are dealt to the ranks, and how.
        world: The ranks.

    Raises:
        OSError: It cannot be written; the other ranks do not notice.
    """
    if world.alone:
        path.parent.mkdir(parents=True, exist_ok=True)
        with shared(path):
            save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata)
        return
    # Large types first, so that each tensor stands at a multiple of its type's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    blocks = (
        block.contiguous()
        for name in names
        for block in _blocks(tensors[name], dealt.get(name), world)
    )
    try:
        if world.first:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                _write_header(file, {name: tensors[name] for name in names}, metadata, dealt)
                for block in blocks:
                    block.numpy().tofile(file)
    finally:
        for _ in blocks:  # where writing failed, too: the others send what they have
            pass


def tensors_of_first(
    world: World, tensors: Mapping[str, Tensor], dealt: Mapping[str, Dealt]
) -> dict[str, Tensor]:
    """What the first rank read from a file; of dealt tensors each rank gets its own rows.

    Args:
        world: The ranks.
        tensors: Whole tensors, possibly memory-mapped; read at the first rank alone.
        dealt: Names of tensors of which each rank gets its part, and how.
    """
    if world.alone:
        return dict(tensors)
    shapes = {name: (_TYPES[t.dtype], list(t.shape)) for name, t in tensors.items()}
    types = {name: dtype for dtype, name in _TYPES.items()}
    out = {}
    for name, (kind, shape) in json.loads(text_of_first(world, json.dumps(shapes))).items():
        # Memory that is never written to is not taken.
        rows = tensors[name] if world.first else torch.empty(shape, dtype=types[kind])
        part = part_of_first(world, rows.reshape(1) if rows.ndim == 0 else rows, dealt.get(name))
        out[name] = part if shape else part.reshape(())
    return out


def _blocks(tensor: Tensor, dealt: Dealt | None, world: World) -> Iterator[Tensor]:
    if dealt is None:
        yield tensor
    else:
        yield from blocks_at_first(world, tensor, dealt)


def _write_header(
    file: BinaryIO,
    tensors: Mapping[str, Tensor],
    metadata: dict[str, str],
    dealt: Mapping[str, Dealt],
) -> None:
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, tensor in tensors.items():
        shape = list(tensor.shape)
        if name in dealt:
            shape[dealt[name].axis] = dealt[name].size
        stop = start + tensor.element_size() * torch.Size(shape).numel()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": shape,
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
