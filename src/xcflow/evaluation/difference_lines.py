"""Differences between two models as rows of a table, with their intervals drawn on one axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from xcflow.evaluation.bootstrap import Difference
from xcflow.evaluation.frequency import FrequencyDifference, FrequencyGroup
from xcflow.report.charts import interval


@dataclass(frozen=True)
class Line:
    """A difference as a row of a table.

    Attributes:
        name: What was measured.
        found: The difference, other - reference.
        plot: Its interval, on the axis of its table.
        mark: ``better``, ``worse``, or empty where the interval holds zero.
        group: The labels it is about; none where it is about all.
    """

    name: str
    found: Difference
    plot: Markup
    mark: str
    group: FrequencyGroup | None = None


def mark_of(found: Difference) -> str:
    """``better`` or ``worse`` where the interval says so, else empty."""
    return "better" if found.low > 0 else "worse" if found.high < 0 else ""


def lines_of(found: Iterable[tuple[str, Difference]]) -> list[Line]:
    """Rows for named differences; those of no document are left out."""
    return _lines((name, difference, None) for name, difference in found)


def frequency_lines(found: Sequence[FrequencyDifference]) -> list[Line]:
    """Rows for groups of labels, named by their frequencies."""
    return _lines((f.group.name, f.recall, f.group) for f in found)


def _lines(found: Iterable[tuple[str, Difference, FrequencyGroup | None]]) -> list[Line]:
    rows = [row for row in found if math.isfinite(row[1].low)]
    bounds = [x for _, d, _ in rows for x in (d.low, d.high)]
    span = 1.1 * max(map(abs, bounds), default=0.0) or 1.0
    return [
        Line(name, d, interval(d.low, d.difference, d.high, None, span), mark_of(d), group)
        for name, d, group in rows
    ]
