"""The columns of a scipy CSR matrix in an ``.npz`` file, a part at a time.

``numpy.load`` would take all of it into memory, so the arrays' streams are read directly: plain
integers after numpy's own header. Object arrays, which would need a pickle, are refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from xcflow.errors import DataError

# Rows that are read at a time.
ROWS = 4096
ERRORS = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class CsrFile:
    """One file.

    Attributes:
        path: The file.
        shape: (rows, columns).
    """

    def __init__(self, path: Path) -> None:
        """Read the shape.

        Raises:
            DataError: The file cannot be read, or is no CSR matrix.
        """
        self.path = path
        try:
            if not zipfile.is_zipfile(path):
                raise ValueError("it is no zip archive")
            with np.load(path, allow_pickle=False) as arrays:
                kind = str(arrays["format"].astype("U"))
                rows, columns = (int(size) for size in arrays["shape"])
        except ERRORS as error:
            raise _unreadable(path, error) from error
        if kind != "csr":
            raise DataError(f"holds a matrix in the format {kind!r}: save it as csr", path)
        self.shape = (rows, columns)

    def columns(self) -> Iterator[tuple[int, list[int]]]:
        """1-based number and columns of each row, whatever their values are.

        Raises:
            DataError: The file cannot be read further, or its arrays do not fit together.
        """
        row = 0
        try:
            with (
                zipfile.ZipFile(self.path) as archive,
                archive.open("indptr.npy") as bounds,
                archive.open("indices.npy") as columns,
            ):
                bounds_type, columns_type = _integer_type(bounds), _integer_type(columns)
                stop = _read(bounds, bounds_type, 1)
                if stop[0] != 0:
                    raise ValueError("the first row does not begin at 0")
                while row < self.shape[0]:
                    ends = _read(bounds, bounds_type, min(ROWS, self.shape[0] - row))
                    lengths = np.diff(np.concatenate([stop, ends]))
                    if (lengths < 0).any():
                        raise ValueError("rows end before they begin")
                    flat = _read(columns, columns_type, int(lengths.sum())).tolist()
                    start = 0
                    for length in lengths.tolist():
                        row += 1
                        yield row, flat[start : start + length]
                        start += length
                    stop = ends[-1:]
        except ERRORS as error:
            raise _unreadable(self.path, error) from error


def _integer_type(stream: IO[bytes]) -> np.dtype[Any]:
    """Read an array's header.

    Raises:
        ValueError: It is no flat array of integers.
    """
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read(stream)
    if len(shape) != 1 or dtype.kind not in "iu":
        raise ValueError(f"expected a flat array of integers, got {dtype} of shape {shape}")
    return dtype


def _read(stream: IO[bytes], dtype: np.dtype[Any], size: int) -> NDArray[np.int64]:
    content = stream.read(size * dtype.itemsize)
    if len(content) < size * dtype.itemsize:
        raise EOFError("an array ends too early")
    return np.frombuffer(content, dtype).astype(np.int64)


def _unreadable(path: Path, error: Exception) -> DataError:
    what = (error.strerror if isinstance(error, OSError) else None) or str(error) or "cut off"
    reason = f"cannot be read as a scipy CSR matrix ({' '.join(what.split())}): save it again"
    return DataError(reason, path)
