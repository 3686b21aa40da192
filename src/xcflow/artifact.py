"""The folder that a step writes: whole or absent, described by a ``manifest.json``.

A step writes under a temporary name beside its output; the manifest is written last and the folder
is renamed when whole, so a folder that carries the output's name is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xcflow
from xcflow.disk import replace_folder, writable
from xcflow.errors import ArtifactError
from xcflow.phases import phase

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


def sha256_file(path: Path) -> str:
    """The hexadecimal sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """The sha256 of the canonical JSON form of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a step's folder holds and where it came from.

    Attributes:
        kind: What the folder is, for example ``dataset`` or ``encoder``.
        files: Path relative to the folder (POSIX) -> sha256 of the file.
        config_digest: Digest of the configuration sections the step read.
        inputs: Name of an input -> digest of its manifest (or of the catalogue).
        meta: Small JSON facts for readers: sizes, the tokenizer's name, the seed.
        library_version: The version of xcflow that wrote the folder.
        schema_version: The version of this layout.
    """

    kind: str
    files: Mapping[str, str]
    config_digest: str
    inputs: Mapping[str, str]
    meta: Mapping[str, Any] = field(default_factory=dict)
    library_version: str = field(default_factory=lambda: xcflow.__version__)
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """The identity of the folder's content: sha256 over the manifest."""
        return json_digest(self.__dict__)


@contextmanager
def writing(
    output: Path,
    kind: str,
    *,
    config_digest: str = "",
    inputs: Mapping[str, str] | None = None,
    meta: dict[str, Any] | None = None,
) -> Iterator[Path]:
    """Write the folder ``output`` atomically.

    Yields:
        A new empty folder beside ``output``. When the block ends without an error a manifest is
        added and the folder takes the name ``output``, replacing what stood there; when it fails
        the folder is removed and what stood there stays. ``meta`` may be filled inside the block.

    Raises:
        StorageError: The folder cannot be written (permissions, full disk).
    """
    output = Path(output)
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    try:
        with writable(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
            with phase("digests"):
                files = {
                    path.relative_to(partial).as_posix(): sha256_file(path)
                    for path in sorted(partial.rglob("*"))
                    if path.is_file()
                }
            manifest = Manifest(kind, files, config_digest, dict(inputs or {}), dict(meta or {}))
            text = json.dumps(manifest.__dict__, indent=2, sort_keys=True, ensure_ascii=False)
            (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
            with phase("to disk"):
                replace_folder(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_manifest(
    folder: Path,
    kind: str | None = None,
    *,
    verify: bool = False,
    only: Collection[str] = (),
) -> Manifest:
    """Read a step's folder description.

    Args:
        folder: The folder.
        kind: The kind that the caller needs; another one is refused.
        verify: Whether each file's sha256 is checked too (reads all bytes).
        only: The folders inside whose files must be there, where not all were fetched.

    Raises:
        ArtifactError: No manifest, an unknown layout, another kind, a missing or altered file.
    """
    path = Path(folder) / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        layout = values["schema_version"]
        manifest = Manifest(**values) if layout == SCHEMA_VERSION else None
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder}: not a complete {kind or 'step output'} (no {MANIFEST}): run that step again"
        ) from None
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    if manifest is None:
        raise ArtifactError(
            f"{path}: layout {layout} is not the one this version of xcflow reads "
            f"({SCHEMA_VERSION}): write the folder again"
        )
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{folder}: holds a {manifest.kind}, not a {kind}")
    for name, digest in manifest.files.items():
        if only and name.partition("/")[0] not in only:
            continue
        file = Path(folder) / name
        if not file.is_file():
            raise ArtifactError(f"{file}: is missing: write the folder again")
        if verify and sha256_file(file) != digest:
            raise ArtifactError(f"{file}: was altered after it was written (sha256 differs)")
    return manifest
