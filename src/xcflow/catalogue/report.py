"""The report on a catalogue: ``report.json`` for programs, ``report.html`` for people.

The page is one file without outside references: it can be kept, mailed and read offline.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from markupsafe import Markup

from xcflow.catalogue.drift import Drift
from xcflow.catalogue.findings import Check, Example, Finding, Status, percent
from xcflow.catalogue.summary import Histogram, Summary
from xcflow.errors import DataError
from xcflow.progress import log
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
        drift: What differs from the last accepted catalogue; None where there is none yet.
    """

    files: Mapping[str, int]
    digest: str
    findings: Sequence[Finding]
    summary: Summary | None = None
    drift: Drift | None = None

    @property
    def all_findings(self) -> list[Finding]:
        """On the catalogue by itself, and beside the last accepted one."""
        return [*self.findings, *(self.drift.findings if self.drift else ())]

    @property
    def status(self) -> Status:
        """The gravest status of all findings."""
        return min((f.status for f in self.all_findings), key=ORDER.index, default="passed")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``write`` wrote of a catalogue by itself."""
        tree = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
        histograms = tuple(_histogram(h) for h in tree["histograms"])
        summary = Summary(tree["summary"], histograms) if tree["summary"] else None
        findings = [_finding(row) for row in tree["checks"]]
        return cls(tree["files"], tree["catalogue_digest"], findings, summary)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "status": self.status,
            "catalogue_digest": self.digest,
            "files": dict(self.files),
            "summary": dict(self.summary.sizes) if self.summary else None,
            "checks": [_finding_dict(f) for f in self.all_findings],
            "histograms": [asdict(h) for h in self.summary.histograms] if self.summary else [],
            "drift": _drift_dict(self.drift) if self.drift else None,
        }

    def write(self, folder: Path) -> None:
        """Write both files into ``folder``."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        (folder / JSON_NAME).write_text(text + "\n", encoding="utf-8")
        (folder / HTML_NAME).write_text(page(self), encoding="utf-8")

    def error(self, catalogue: Path | None, page: Path) -> DataError:
        """The first failed finding in one line, with its first example and where to read on."""
        first, *others = [finding for finding in self.all_findings if finding.status == "failed"]
        more = f"; {len(others)} more failed" if others else ""
        reason = f"{first.sentence}{more}; report: {page}"
        if catalogue is None or not first.examples:
            return DataError(reason, catalogue)
        example = first.examples[0]
        what = "; ".join(part for part in (example.remark, reason) if part)
        return DataError(what, catalogue / example.file, example.line or None)


def tell(findings: Iterable[Finding], page: Path) -> None:
    """Log the warnings and where the page with all findings stands."""
    for finding in findings:
        if finding.status == "warning":
            log(f"warning: {finding.sentence}")
    log(f"report on the catalogue: {page}")


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
        "threshold": check.key or None,
        "meaning": check.meaning,
        "advice": check.advice,
        "examples": [asdict(example) for example in finding.examples],
    }


def _finding(row: Mapping[str, Any]) -> Finding:
    """The inverse of ``_finding_dict``."""
    words = {key: row[key] for key in ("name", "title", "unit", "meaning", "advice")}
    check = Check(**words, threshold=(row["threshold"] or "").removeprefix("validation."))
    examples = tuple(Example(**example) for example in row["examples"])
    return Finding(check, row["count"], row["total"], row["allowed_share"], row["status"], examples)


def _histogram(row: Mapping[str, Any]) -> Histogram:
    return Histogram(row["title"], tuple(row["ranges"]), tuple(row["counts"]))


def _drift_dict(drift: Drift) -> dict[str, Any]:
    return {
        "accepted_catalogue_digest": drift.accepted,
        "labels_in_common": drift.common_labels,
        "is_of_another_catalogue": drift.is_of_another,
        "histograms": [
            {"before": asdict(before), "now": asdict(now)} for before, now in drift.histograms
        ],
    }


def page(report: Report) -> str:
    """The page for people."""
    histograms = report.summary.histograms if report.summary else ()
    return render(
        "xcflow.catalogue",
        "report.html.j2",
        report=report,
        findings=_by_status(report.findings),
        charts=[(h.title, _chart(h)) for h in histograms],
        drift=report.drift,
        drift_findings=_by_status(report.drift.findings) if report.drift else [],
        drift_charts=[
            (before.title, _chart_of_two(before, now))
            for before, now in (report.drift.histograms if report.drift else ())
        ],
        percent=percent,
        figure=figure,
    )


def _by_status(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: ORDER.index(f.status))


def figure(value: float) -> str:
    """A number with at most one decimal."""
    return f"{value:,.1f}".removesuffix(".0")


def _chart(histogram: Histogram) -> Markup:
    places = range(len(histogram.ranges))
    return bar_chart(histogram.ranges, [Series("number", "s1", places, histogram.counts)])


def _chart_of_two(before: Histogram, now: Histogram) -> Markup:
    """Both distributions in percent, so that catalogues of different sizes can be compared."""
    series = []
    for name, style, histogram in (("before", "s6", before), ("now", "s1", now)):
        total = max(sum(histogram.counts), 1)
        shares = [100 * count / total for count in histogram.counts]
        series.append(Series(f"{name}, percent", style, range(len(shares)), shares))
    return bar_chart(max(before.ranges, now.ranges, key=len), series)
