"""The identity of the installed code, for cache keys and records."""

from __future__ import annotations

import hashlib
from pathlib import Path

from xcflow.artifact import sha256_file


def library_digest() -> str:
    """The sha256 over the names and contents of all files of the package."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(root).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()
