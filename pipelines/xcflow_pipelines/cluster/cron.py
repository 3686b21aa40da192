"""Times of a schedule, as Kubeflow Pipelines writes them: six fields, the seconds first, in UTC.

The endpoint also takes five fields and gives each of them another meaning than cron does, so what
is meant is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from xcflow_pipelines.shell import BadUsageError

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
EXAMPLE = "0 0 3 * * *"
# Days of each month, of February in the longest year.
LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Field(NamedTuple):
    """One field of the expression.

    Attributes:
        name: What it counts.
        low: Smallest number.
        high: Largest number.
        names: Names of the numbers from the smallest on.
    """

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int | None:
        """What a number or a name stands for, None where it is neither."""
        if text in self.names:
            return self.low + self.names.index(text)
        return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None


FIELDS = (
    Field("second", 0, 59),
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of the week", 0, 6, DAYS),
)


def checked_cron(text: str) -> str:
    """An expression in one form, where it means something.

    Args:
        text: Six fields: second, minute, hour, day of the month, month, day of the week. In each
            ``*`` or ``?``, a number or name, ``LOW-HIGH``, any of these with ``/STEP``, and lists
            of them with commas.

    Raises:
        BadUsageError: It is none, or names no day that there is; says which field is wrong, and
            what is meant perhaps.
    """
    parts = text.upper().split()
    if len(parts) == len(FIELDS) - 1:
        raise BadUsageError(
            f"--cron {text!r} has 5 fields, Kubeflow Pipelines counts 6 with the seconds first: "
            f"'0 {' '.join(parts)}' is the same at second 0"
        )
    if len(parts) != len(FIELDS):
        raise BadUsageError(
            f"--cron {text!r} must have 6 fields (second, minute, hour, day of the month, month, "
            f"day of the week), as in '{EXAMPLE}' for 03:00:00 UTC each day"
        )
    for field, part in zip(FIELDS, parts, strict=True):
        for item in part.split(","):
            if reason := _wrong(field, item):
                raise BadUsageError(f"--cron {text!r}: {field.name}: {reason}")
    if _never(*parts[3:]):
        raise BadUsageError(f"--cron {text!r}: never comes: no such month has such a day")
    return " ".join(parts)


def _never(days: str, months: str, weekdays: str) -> bool:
    """Whether all days are too late for all months; where weekdays are given, one is enough."""
    first = min(_numbers(FIELDS[3], days))
    longest = max(LENGTHS[month - 1] for month in _numbers(FIELDS[4], months))
    return weekdays in ("*", "?") and first > longest


def _numbers(field: Field, part: str) -> Iterator[int]:
    """What a right part stands for, of a field that counts from 1."""
    for item in part.split(","):
        where, slash, step = item.partition("/")
        first, dash, last = where.partition("-")
        start = field.number(first) or field.low
        single = not (slash or dash or first in ("*", "?"))
        end = start if single else field.number(last) or field.high
        yield from range(start, end + 1, int(step or 1))


def _wrong(field: Field, item: str) -> str:
    """What is wrong with one item of a field; empty where nothing is."""
    where, slash, step = item.partition("/")
    if slash and not re.fullmatch(r"[1-9][0-9]{0,3}", step):
        return f"{item!r}: after / stands a step of at least 1"
    if where in ("*", "?"):
        return ""
    first, dash, last = where.partition("-")
    numbers = [field.number(text) for text in ((first, last) if dash else (first,))]
    known = f"{field.low} to {field.high}"
    if field.names:
        known += f", or {field.names[0]} to {field.names[-1]}"
    if any(number is None or not field.low <= number <= field.high for number in numbers):
        return f"{item!r} is not within {known}"
    return f"{item!r} begins after its end" if _backwards(numbers) else ""


def _backwards(numbers: list[int | None]) -> bool:
    return len(numbers) == 2 and (numbers[0] or 0) > (numbers[1] or 0)
