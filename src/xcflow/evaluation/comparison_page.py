"""Runs compared with a reference as a page for people: one file, readable offline."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from xcflow.errors import ArtifactError
from xcflow.evaluation.contrast import Contrast
from xcflow.evaluation.difference_lines import frequency_lines, lines_of
from xcflow.evaluation.ratios import MetricName
from xcflow.evaluation.report import main_metrics
from xcflow.report.charts import Series, bar_chart
from xcflow.report.page import render

LETTERS = "ABCDEFG"


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
        title: lines_of((name, differences[name]) for name in names if name in differences)
        for title, names in (("main", main), ("slices", sliced), ("rest", rest))
    }
    better, worse = contrast.examples
    return {
        "letter": letter,
        "contrast": contrast,
        **by_name,
        "frequency": frequency_lines(contrast.frequency),
        "counts": (len(contrast.flips.better), len(contrast.flips.worse), contrast.flips.same),
        "examples": [("better", e) for e in better] + [("worse", e) for e in worse],
    }


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
