"""The report on a catalogue: ``report.json`` for programs, ``report.html`` for people.

The page is one file without outside references: it can be kept, mailed and read offline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xcflow.catalogue.findings import Finding, Status, percent
from xcflow.catalogue.summary import Histogram, Summary

JSON_NAME = "report.json"
HTML_NAME = "report.html"

ORDER: tuple[Status, ...] = ("failed", "warning", "noted", "passed")


@dataclass(frozen=True)
class Report:
    """What is reported on a catalogue.

    Attributes:
        files: Name of each file -> rows read from it.
        digest: The catalogue's digest.
        findings: The result of each check.
        summary: The figures; None when the catalogue was refused before they were known.
    """

    files: Mapping[str, int]
    digest: str
    findings: Sequence[Finding]
    summary: Summary | None = None

    @property
    def status(self) -> Status:
        """The gravest status of all findings."""
        return min((f.status for f in self.findings), key=ORDER.index, default="passed")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "status": self.status,
            "catalogue_digest": self.digest,
            "files": dict(self.files),
            "summary": dict(self.summary.sizes) if self.summary else None,
            "checks": [_finding_dict(f) for f in self.findings],
            "histograms": [asdict(h) for h in self.summary.histograms] if self.summary else [],
        }

    def write(self, folder: Path) -> None:
        """Write both files into ``folder``."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        (folder / JSON_NAME).write_text(text + "\n", encoding="utf-8")
        (folder / HTML_NAME).write_text(render(self), encoding="utf-8")


def _finding_dict(finding: Finding) -> dict[str, Any]:
    check = finding.check
    return {
        "name": check.name,
        "title": check.title,
        "status": finding.status,
        "count": finding.count,
        "total": finding.total,
        "unit": check.unit,
        "share": finding.share,
        "allowed_share": finding.allowed,
        "threshold": f"validation.{check.threshold}" if check.threshold else None,
        "meaning": check.meaning,
        "advice": check.advice,
        "examples": [asdict(example) for example in finding.examples],
    }


def render(report: Report) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("xcflow.catalogue", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["figure"] = figure
    environment.filters["percent"] = percent
    charts = [chart(h) for h in report.summary.histograms] if report.summary else []
    findings = sorted(report.findings, key=lambda f: ORDER.index(f.status))
    template = environment.get_template("report.html.j2")
    return template.render(report=report, findings=findings, charts=charts, sentences=_VERDICTS)


_VERDICTS: Mapping[Status, str] = {
    "failed": "The catalogue is refused",
    "warning": "The catalogue can be used, with warnings",
    "noted": "The catalogue is in order",
    "passed": "The catalogue is in order",
}


def figure(value: float) -> str:
    """A number with at most one decimal."""
    return f"{value:,.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Bar:
    """A bar of a chart, in the units of its view box; the baseline is at ``CHART_HEIGHT``."""

    x: float
    width: float
    height: float
    label: str
    count: int
    shows_label: bool


@dataclass(frozen=True)
class Chart:
    """A histogram drawn in a view box of ``CHART_WIDTH`` x ``CHART_HEIGHT``."""

    histogram: Histogram
    bars: tuple[Bar, ...]
    most: int


CHART_WIDTH = 400
CHART_HEIGHT = 130
MAX_AXIS_LABELS = 7


def chart(histogram: Histogram) -> Chart:
    """Place the bars of a histogram."""
    counts = histogram.counts
    most = max(counts, default=0)
    step = CHART_WIDTH / max(len(counts), 1)
    every = -(-len(counts) // MAX_AXIS_LABELS)
    bars = tuple(
        Bar(
            x=round(i * step, 2),
            width=round(step * 0.86, 2),
            # A range that holds anything shows at least a line.
            height=round(max(CHART_HEIGHT * count / most, 1.0), 2) if count else 0.0,
            label=label,
            count=count,
            shows_label=i % every == 0,
        )
        for i, (label, count) in enumerate(zip(histogram.ranges, counts, strict=True))
    )
    return Chart(histogram, bars, most)
