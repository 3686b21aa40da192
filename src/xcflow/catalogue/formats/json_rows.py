"""Lines that hold one JSON object each, and in a few words why one does not."""

from __future__ import annotations

import json
from typing import Any

from xcflow.catalogue.formats.lines import decoded


def parsed(line: bytes) -> Any:
    """The value of a line.

    Raises:
        ValueError: With the reason in a few words.
    """
    text = decoded(line)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(_json_fault(error)) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def check_string(name: str, value: Any) -> None:
    """Refuse what is not a string that can be written as UTF-8.

    Raises:
        ValueError: With the reason in a few words.
    """
    if type(value) is not str:
        raise ValueError(f"{name} must be a string, got {named(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} holds half a surrogate pair (\\ud800 to \\udfff)") from None


def named(value: Any) -> str:
    """A JSON value in a few words."""
    kinds = {dict: "an object", list: "a list", bool: "the truth value", str: "the string"}
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return kinds[type(value)]
    text = json.dumps(value, ensure_ascii=False)
    return f"{kinds.get(type(value), 'the number')} {text[:40]}"


def _json_fault(error: json.JSONDecodeError) -> str:
    if error.pos >= len(error.doc) or error.msg.startswith("Unterminated string"):
        return "ends before its JSON object does: the line was cut off"
    message = error.msg[:1].lower() + error.msg[1:]
    return f"is not JSON: {message} at character {error.pos + 1} of {len(error.doc)}"
