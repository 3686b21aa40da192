"""The report on a catalogue: ``report.json`` for programs, ``report.html`` for people.

The page is one file without outside references: it can be kept, mailed and read offline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from xcflow.catalogue.findings import Finding, Status, percent
from xcflow.catalogue.summary import Histogram, Summary
from xcflow.report.charts import Series, bar_chart
from xcflow.report.page import render

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
        (folder / HTML_NAME).write_text(page(self), encoding="utf-8")


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


def page(report: Report) -> str:
    """The page for people."""
    histograms = report.summary.histograms if report.summary else ()
    return render(
        "xcflow.catalogue",
        "report.html.j2",
        report=report,
        findings=sorted(report.findings, key=lambda f: ORDER.index(f.status)),
        charts=[(h.title, _chart(h)) for h in histograms],
        percent=percent,
        figure=figure,
    )


def figure(value: float) -> str:
    """A number with at most one decimal."""
    return f"{value:,.1f}".removesuffix(".0")


def _chart(histogram: Histogram) -> Markup:
    places = range(len(histogram.ranges))
    return bar_chart(histogram.ranges, [Series("number", "s1", places, histogram.counts)])
