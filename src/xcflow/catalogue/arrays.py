"""Writing .npy files piece by piece, so that what is written need never be in memory at once."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import DTypeLike, NDArray

from xcflow.ragged import Ragged


class ArrayWriter:
    """Appends pieces to a one-dimensional .npy file of a length that is known only at the end."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._stream = Path(path).open("wb")  # noqa: SIM115 - the writer is the context manager
        self._write_header()

    def append(self, values: NDArray[Any]) -> None:
        """Add a piece; values are cast to the file's type."""
        self._stream.write(np.ascontiguousarray(values, self.dtype).data)
        self.length += len(values)

    def close(self) -> None:
        """Write the final length into the header."""
        if not self._stream.closed:
            self._stream.seek(0)
            self._write_header()
            self._stream.close()

    def _write_header(self) -> None:
        # The .npy format pads its header so that a growing first axis never changes its size.
        header = {
            "descr": npy_format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.length,),
        }
        npy_format.write_array_header_1_0(self._stream, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RaggedWriter:
    """Appends rows to the files of a ``Ragged``."""

    def __init__(self, prefix: Path, dtype: DTypeLike) -> None:
        self._data = ArrayWriter(Path(f"{prefix}.data.npy"), dtype)
        self._offsets = ArrayWriter(Path(f"{prefix}.offsets.npy"), np.int64)
        self._offsets.append(np.zeros(1, np.int64))

    def append(self, rows: Ragged) -> None:
        """Add rows."""
        self._offsets.append(rows.offsets[1:] + self._data.length)
        self._data.append(rows.data)

    def close(self) -> None:
        """Finish both files."""
        self._data.close()
        self._offsets.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
