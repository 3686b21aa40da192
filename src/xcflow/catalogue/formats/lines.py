"""Lines of text files that came in, plain or gzip-compressed, and what can be wrong with them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar, cast

from xcflow.catalogue.readers import EXCERPT_CHARS, Fault
from xcflow.errors import DataError

# A longer line means that the file is of another kind; nobody should wait for it in memory.
MAX_LINE_BYTES = 64 * 2**20
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
T = TypeVar("T")


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """1-based number and bytes of each line, without byte order mark and line end.

    Raises:
        DataError: The file cannot be read (further).
    """
    for number, line in whole_lines(path):
        yield number, line.removesuffix(b"\n").removesuffix(b"\r")


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """As ``lines``, each line with its end.

    Raises:
        DataError: The file cannot be read (further).
    """
    number = 0
    try:
        with _open(path) as stream:
            while line := stream.readline(MAX_LINE_BYTES):
                number += 1
                if len(line) == MAX_LINE_BYTES:
                    reason = f"is longer than {MAX_LINE_BYTES // 2**20} MiB: expected lines of text"
                    raise DataError(reason, path, number)
                yield number, line.removeprefix(BOM) if number == 1 else line
    except EOFError:
        reason = "the gzip stream ends too early, it was cut off or damaged: fetch the file again"
        raise DataError(reason, path, number + 1) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        reason = f"the gzip stream is damaged ({error}): fetch the file again"
        raise DataError(reason, path, number + 1) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error


def filled_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """As ``lines``, without blank ones and without the space around each.

    Raises:
        DataError: The file cannot be read (further).
    """
    for number, line in lines(path):
        if line := line.strip():
            yield number, line


def each(
    path: Path, lines: Iterable[tuple[int, bytes]], parse: Callable[[bytes], T]
) -> Iterator[tuple[int, T | Fault]]:
    """Number and value of each line, or a fault where ``parse`` raises ``ValueError``."""
    for number, line in lines:
        try:
            yield number, parse(line)
        except ValueError as error:
            yield number, fault(path, number, str(error), line)


def decoded(line: bytes) -> str:
    """The text of a line.

    Raises:
        ValueError: With the reason in a few words.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        byte = f"0x{line[error.start]:02x}"
        reason = f"is not UTF-8: byte {byte} at position {error.start + 1} of {len(line)}"
        raise ValueError(reason) from None


def fault(path: Path, number: int, reason: str, line: bytes) -> Fault:
    """A line that cannot be read, with its beginning."""
    excerpt = line[: 4 * EXCERPT_CHARS].decode(errors="replace")[:EXCERPT_CHARS]
    return Fault(path.name, number, reason, excerpt)


def _open(path: Path) -> IO[bytes]:
    """Open a file whose compression must be what its name says."""
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == GZIP_MAGIC
    if path.suffix == ".gz" and not is_gzip and path.stat().st_size:
        raise DataError(f"is not gzip, though its name ends in .gz: rename it to {path.stem}", path)
    if path.suffix != ".gz" and is_gzip:
        raise DataError(f"is gzip, though its name lacks .gz: rename it to {path.name}.gz", path)
    return cast(IO[bytes], gzip.open(path, "rb")) if is_gzip else path.open("rb")
