"""Pages that a command writes where the user wants them."""

from __future__ import annotations

from pathlib import Path

from xcflow.errors import StorageError


def write_page(path: Path, text: str) -> None:
    """Write a page, with the folders above it.

    Raises:
        StorageError: It cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
