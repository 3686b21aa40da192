"""A configuration as TOML. The standard library only reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def to_toml(tree: Mapping[str, Any], prefix: str = "") -> str:
    """Nested values as TOML tables.

    Args:
        tree: Strings, numbers, booleans, lists, and nested mappings.
        prefix: Name of the table that ``tree`` stands in, with a dot at its end.
    """
    plain = {k: v for k, v in tree.items() if not isinstance(v, Mapping)}
    tables = {k: v for k, v in tree.items() if isinstance(v, Mapping)}
    text = "".join(f"{_key(key)} = {toml_value(value)}\n" for key, value in plain.items())
    for key, table in tables.items():
        inner = to_toml(table, f"{prefix}{_key(key)}.")
        header = "" if inner.startswith("[") else f"[{prefix}{_key(key)}]\n"
        text += ("\n" if text else "") + header + inner
    return text


def toml_value(value: Any) -> str:
    """A value as TOML; strings, numbers and booleans are written alike in JSON and TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(k)} = {toml_value(v)}' for k, v in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
