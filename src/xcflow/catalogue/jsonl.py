"""The project's own format: a folder of JSON Lines files, plain or gzip-compressed.

``labels.jsonl`` has rows ``{"id", "text"}``, ``train.jsonl`` and ``test.jsonl`` have rows
``{"id", "text", "labels": [label ids]}``, and the optional ``test_filter.jsonl`` has rows
``{"id", "labels": [label ids]}``. ``trn``, ``tst`` and ``tst_filter`` are accepted names too.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from xcflow.catalogue.readers import EXCERPT_CHARS, Chunk, Fault, Role
from xcflow.errors import DataError

STEMS: Mapping[Role, tuple[str, ...]] = {
    "labels": ("labels",),
    "train": ("train", "trn"),
    "test": ("test", "tst"),
    "test_filter": ("test_filter", "tst_filter"),
}
OPTIONAL: tuple[Role, ...] = ("test_filter",)
KEYS: Mapping[Role, tuple[str, ...]] = {
    "labels": ("id", "text"),
    "train": ("id", "text", "labels"),
    "test": ("id", "text", "labels"),
    "test_filter": ("id", "labels"),
}

# A chunk ends early at this many bytes, so that long texts do not multiply its memory.
CHUNK_BYTES = 8 * 2**20
# A longer line means that the file is not JSON Lines at all; nobody should wait for it in memory.
MAX_LINE_BYTES = 64 * 2**20
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"


class JsonLinesReader:
    """Reads the project's own format; see the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        found = {role: _candidates(self.folder, role) for role in STEMS}
        for paths in found.values():
            if len(paths) > 1:
                names = " and ".join(path.name for path in paths)
                raise DataError(f"both {names} stand here: keep one of them", self.folder)
        missing = [role for role, paths in found.items() if not paths and role not in OPTIONAL]
        if missing:
            wanted = "; ".join(" or ".join(_names(role)) for role in missing)
            raise DataError(f"misses {wanted}", self.folder)
        self.files: Mapping[Role, Path] = {role: paths[0] for role, paths in found.items() if paths}

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether any of the format's files stands there."""
        return any(_candidates(folder, role) for role in STEMS)

    @classmethod
    def description(cls) -> str:
        """The files of the format."""
        return "labels.jsonl, train.jsonl and test.jsonl (each plain or .gz)"

    def chunks(self, role: Role, rows: int) -> Iterator[Chunk]:
        """See ``CatalogueReader.chunks``."""
        path = self.files[role]
        chunk, size = Chunk(), 0
        for number, line in _lines(path):
            _parse_into(chunk, line, number, path.name, KEYS[role])
            size += len(line)
            if len(chunk) + len(chunk.faults) >= rows or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = Chunk(), 0
        if chunk.ids or chunk.faults:
            yield chunk


def _names(role: Role) -> list[str]:
    return [f"{stem}.jsonl{end}" for stem in STEMS[role] for end in ("", ".gz")]


def _candidates(folder: Path, role: Role) -> list[Path]:
    return [path for name in _names(role) if (path := folder / name).is_file()]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line that is not blank, without byte order mark and line end."""
    number = 0
    try:
        with _open(path) as stream:
            while line := stream.readline(MAX_LINE_BYTES):
                number += 1
                if len(line) == MAX_LINE_BYTES:
                    limit = MAX_LINE_BYTES // 2**20
                    reason = f"is longer than {limit} MiB: expected one JSON object on each line"
                    raise DataError(reason, path, number)
                if number == 1:
                    line = line.removeprefix(BOM)
                if line := line.strip():
                    yield number, line
    except EOFError:
        reason = "the gzip stream ends too early, it was cut off or damaged: fetch the file again"
        raise DataError(reason, path, number + 1) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        reason = f"the gzip stream is damaged ({error}): fetch the file again"
        raise DataError(reason, path, number + 1) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error


def _open(path: Path) -> IO[bytes]:
    """Open a file whose compression must be what its name says."""
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == GZIP_MAGIC
    if path.suffix == ".gz" and not is_gzip and path.stat().st_size:
        raise DataError("is not gzip, though its name ends in .gz: rename it to .jsonl", path)
    if path.suffix != ".gz" and is_gzip:
        raise DataError("is gzip, though its name lacks .gz: rename it to .jsonl.gz", path)
    return cast(IO[bytes], gzip.open(path, "rb")) if is_gzip else path.open("rb")


def _parse_into(chunk: Chunk, line: bytes, number: int, file: str, keys: tuple[str, ...]) -> None:
    """Add a line's row to the chunk, or the reason why it is none to the chunk's faults."""
    try:
        row = json.loads(line.decode())
        _check(row, keys)
    except UnicodeDecodeError as error:
        byte = f"0x{line[error.start]:02x}"
        reason = f"is not UTF-8: byte {byte} at position {error.start + 1} of {len(line)}"
    except json.JSONDecodeError as error:
        reason = _json_fault(error)
    except RecursionError:
        reason = "is nested too deeply"
    except ValueError as error:
        reason = str(error)
    else:
        chunk.lines.append(number)
        chunk.ids.append(row["id"])
        chunk.texts.append(row.get("text", "") if "text" in keys else "")
        chunk.labels.append(row["labels"] if "labels" in keys else [])
        return
    excerpt = line[: 4 * EXCERPT_CHARS].decode(errors="replace")[:EXCERPT_CHARS]
    chunk.faults.append(Fault(file, number, reason, excerpt))


def _json_fault(error: json.JSONDecodeError) -> str:
    if error.pos >= len(error.doc) or error.msg.startswith("Unterminated string"):
        return "ends before its JSON object does: the line was cut off"
    message = error.msg[:1].lower() + error.msg[1:]
    return f"is not JSON: {message} at character {error.pos + 1} of {len(error.doc)}"


def _check(row: Any, keys: tuple[str, ...]) -> None:
    """Refuse a row of another shape.

    Raises:
        ValueError: With the reason.
    """
    if type(row) is not dict:
        raise ValueError(f"expected an object with {', '.join(keys)}, got {_named(row)}")
    for key in keys:
        if key not in row:
            raise ValueError(f"{key} is missing")
        value = row[key]
        if key != "labels":
            _check_string(key, value)
        elif type(value) is not list:
            raise ValueError(f"labels must be a list of label ids, got {_named(value)}")
        else:
            for item in value:
                _check_string("a label id", item)


def _check_string(name: str, value: Any) -> None:
    if type(value) is not str:
        raise ValueError(f"{name} must be a string, got {_named(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} holds half a surrogate pair (\\ud800 to \\udfff)") from None


def _named(value: Any) -> str:
    """A JSON value in a few words."""
    kinds = {dict: "an object", list: "a list", bool: "the truth value", str: "the string"}
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return kinds[type(value)]
    text = json.dumps(value, ensure_ascii=False)
    return f"{kinds.get(type(value), 'the number')} {text[:40]}"
