"""Runs compared with a reference as a page for people: one file, readable offline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from markupsafe import Markup

from xcflow.errors import ArtifactError
from xcflow.evaluation.bootstrap import Difference
from xcflow.evaluation.contrast import Contrast
from xcflow.evaluation.examples import Answer, Example
from xcflow.evaluation.ratios import MetricName
from xcflow.evaluation.report import main_metrics
from xcflow.report.charts import Series, bar_chart, interval
from xcflow.report.page import render

LETTERS = "ABCDEFG"


@dataclass(frozen=True)
class Line:
    """A difference as a row of a table.

    Attributes:
        name: What was measured.
        found: The difference, other - reference.
        plot: Its interval, on the axis of its table.
        mark: ``better``, ``worse``, or empty where the interval holds zero.
    """

    name: str
    found: Difference
    plot: Markup
    mark: str


def mark_of(found: Difference) -> str:
    """``better`` or ``worse`` where the interval says so, else empty."""
    return "better" if found.low > 0 else "worse" if found.high < 0 else ""


def slice_metrics(ks: Sequence[int], part: str) -> list[str]:
    """The few metrics of a slice that a reader looks at first."""
    few = max((k for k in ks if k <= 5), default=ks[0])
    many = max((k for k in ks if k <= 10), default=ks[0])
    return [str(MetricName("R", many, part)), str(MetricName("PSP", few, part))]


def comparison_page(contrasts: Sequence[Contrast]) -> str:
    """Comparisons with one reference as a page.

    Args:
        contrasts: At least one, all with the same reference.

    Raises:
        ArtifactError: More runs than the page has colours.
    """
    runs = [contrasts[0].reference, *(c.other for c in contrasts)]
    if len(runs) > len(LETTERS):
        raise ArtifactError(f"a page shows at most {len(LETTERS)} runs, not {len(runs)}")
    letters = dict(zip(range(len(runs)), LETTERS, strict=False))
    return render(
        "xcflow.evaluation",
        "comparison.html.j2",
        runs=[(letters[i], f"s{i + 1}", run) for i, run in enumerate(runs)],
        documents=contrasts[0].comparison.documents,
        confidence=f"{100 * contrasts[0].comparison.confidence:.0f}%",
        frequency_chart=_frequency_chart(contrasts),
        parts=[_part(letters[i], contrast) for i, contrast in enumerate(contrasts, 1)],
    )


def _part(letter: str, contrast: Contrast) -> dict[str, object]:
    """What the page shows of one comparison."""
    differences = contrast.comparison.differences
    ks = sorted({MetricName.parse(name).k for name in differences})
    main = main_metrics(ks)
    sliced = [name for part in contrast.slices for name in slice_metrics(ks, part)]
    rest = [name for name in differences if name not in main and name not in sliced]
    by_name = {
        title: _lines((name, differences[name]) for name in names if name in differences)
        for title, names in (("main", main), ("slices", sliced), ("rest", rest))
    }
    better, worse = contrast.examples
    return {
        "letter": letter,
        "contrast": contrast,
        **by_name,
        "frequency": list(
            zip(
                contrast.frequency,
                _lines((f.group.name, f.recall) for f in contrast.frequency),
                strict=True,
            )
        ),
        "counts": (len(contrast.flips.better), len(contrast.flips.worse), contrast.flips.same),
        "examples": [("better", _pairs(e), e) for e in better]
        + [("worse", _pairs(e), e) for e in worse],
    }


def _lines(found: Iterable[tuple[str, Difference]]) -> list[Line]:
    """Rows whose intervals share one axis."""
    rows = list(found)
    bounds = [x for _, d in rows for x in (d.low, d.high) if math.isfinite(x)]
    span = 1.1 * max(map(abs, bounds), default=0.0) or 1.0
    return [
        Line(name, d, interval(d.low, d.difference, d.high, None, span), mark_of(d))
        for name, d in rows
        if math.isfinite(d.low)
    ]


def _pairs(example: Example) -> list[tuple[Answer | None, Answer | None]]:
    return list(zip_longest(example.a, example.b))


def _frequency_chart(contrasts: Sequence[Contrast]) -> Markup | None:
    """Recall of each group by each run; none where no comparison has groups."""
    known = [(i, c) for i, c in enumerate(contrasts, 1) if c.frequency]
    if not known:
        return None
    groups = known[0][1].frequency
    places = list(range(len(groups)))
    series = [
        Series(
            f"{LETTERS[0]}: {contrasts[0].reference.name}",
            "s1",
            places,
            [100.0 * f.recall.b for f in groups],
        )
    ]
    series += [
        Series(
            f"{LETTERS[i]}: {c.other.name}",
            f"s{i + 1}",
            places,
            [100.0 * f.recall.a for f in c.frequency],
        )
        for i, c in known
    ]
    return bar_chart([f.group.name for f in groups], series)
