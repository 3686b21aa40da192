"""How a catalogue differs from the last accepted one, in figures and examples, and whether it may.

Labels and documents are matched by their ids. Distributions are compared by distances that are
shares: so large a part of the rows, at least, would have to have another value for the
distributions to be equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcflow.catalogue import drift_checks as checks
from xcflow.catalogue.contents import LabelTable
from xcflow.catalogue.expectations import Expectations, Share
from xcflow.catalogue.findings import (
    MAX_EXAMPLES,
    Check,
    Example,
    Finding,
    Observed,
    Status,
    Tally,
)
from xcflow.catalogue.matching import match_labels
from xcflow.catalogue.profile import MAX_CHARS, Profile
from xcflow.catalogue.readers import EXCERPT_CHARS
from xcflow.catalogue.summary import Histogram, by_doubling
from xcflow.config import DriftConfig, DriftLimits

# With fewer of the smaller catalogue's labels in common, it is another catalogue.
MIN_COMMON_SHARE = 0.05
NEW, OLD = "this catalogue", "the accepted one"
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Drift:
    """What came out.

    Attributes:
        accepted: Digest of the catalogue that this one was compared with.
        common_labels: Labels whose ids are in both.
        labels: Labels of the smaller of the two.
        is_of_another: Whether the two have next to nothing to do with each other.
        findings: The result of each check.
        histograms: The same distribution before and now, in pairs.
    """

    accepted: str
    common_labels: int
    labels: int
    is_of_another: bool
    findings: tuple[Finding, ...]
    histograms: tuple[tuple[Histogram, Histogram], ...]


def find_drift(accepted: Profile, present: Profile, config: DriftConfig) -> Drift:
    """Compare a catalogue with the last accepted one.

    Args:
        accepted: The profile of the last accepted catalogue.
        present: The profile of this one.
        config: How much may differ.
    """
    compared = Comparison(accepted, present)
    return Drift(
        accepted.catalogue,
        len(compared.match.kept),
        compared.smaller,
        compared.is_of_another,
        _judged(compared.observed(), config),
        () if compared.is_of_another else _histograms(accepted, present),
    )


def kolmogorov_smirnov(before: Counts, now: Counts) -> float:
    """The largest difference between two distribution functions, ``max |F(x) - G(x)|``.

    Args:
        before: How often each value from 0 on occurs.
        now: The same of the other sample.
    """
    size = max(len(before), len(now))
    functions = [np.cumsum(np.pad(_shares(c), (0, size - len(c)))) for c in (before, now)]
    return float(np.abs(functions[0] - functions[1]).max(initial=0.0))


class Comparison:
    """Two catalogues, the labels of the one matched with those of the other.

    Args:
        accepted: The profile of the last accepted one.
        present: The profile of this one.

    Attributes:
        match: How the labels of this one match those of the accepted one.
        smaller: The number of labels of the smaller catalogue.
    """

    def __init__(self, accepted: Profile, present: Profile) -> None:
        self._old, self._new = accepted, present
        self.match = match_labels(
            LabelTable(accepted.label_ids, accepted.label_texts),
            LabelTable(present.label_ids, present.label_texts),
        )
        self.smaller = min(len(accepted.label_ids), len(present.label_ids))

    @property
    def is_of_another(self) -> bool:
        """Whether the two have next to nothing to do with each other."""
        return len(self.match.kept) < MIN_COMMON_SHARE * self.smaller

    def observed(self) -> list[Observed]:
        """The counts behind the findings.

        Beside another catalogue altogether, distributions say nothing: only labels are counted.
        """
        old, new = self._old, self._new
        removed = _labels(
            old, OLD, _most_frequent(old, self.match.removed), len(self.match.removed)
        )
        added = _labels(new, NEW, _most_frequent(new, self.match.added), len(self.match.added))
        labels = [
            Observed(checks.REMOVED_LABELS, len(old.label_ids), removed),
            Observed(checks.ADDED_LABELS, len(new.label_ids), added),
        ]
        return labels if self.is_of_another else [*labels, *self._contents()]

    def _contents(self) -> list[Observed]:
        old, new = self._old, self._new
        frequencies = np.bincount(old.label_counts), np.bincount(new.label_counts)
        return [
            self._renamed_labels(),
            *self._documents(),
            self._label_shares(),
            _distance(checks.LABEL_FREQUENCIES, *frequencies),
            _distance(checks.DOCUMENT_LENGTHS, old.document_lengths, new.document_lengths),
            _distance(checks.LABEL_LENGTHS, old.label_lengths, new.label_lengths),
            self._unknown_tokens(),
        ]

    def _renamed_labels(self) -> Observed:
        old, new = self._old, self._new
        shown = _most_frequent(new, self.match.renamed)
        texts = old.label_texts.take(self.match.old_rows[shown])
        remarks = [f"was: {text[:EXCERPT_CHARS]}" for text in texts]
        tally = _labels(new, NEW, shown, len(self.match.renamed), remarks)
        return Observed(checks.RENAMED_LABELS, len(self.match.kept), tally)

    def _documents(self) -> list[Observed]:
        old, new = self._old.document_ids, self._new.document_ids
        kept = len(np.intersect1d(old, new, assume_unique=True))
        return [
            Observed(checks.REMOVED_DOCUMENTS, len(old), Tally(len(old) - kept)),
            Observed(checks.ADDED_DOCUMENTS, len(new), Tally(len(new) - kept)),
        ]

    def _label_shares(self) -> Observed:
        """Total variation distance between the labels' shares of the pairs: sum |p - q| / 2."""
        old, new = _shares(self._old.label_counts), _shares(self._new.label_counts)
        before = np.where(self.match.old_rows >= 0, old[self.match.old_rows], 0.0)
        distance = (np.abs(new - before).sum() + old[self.match.removed].sum()) / 2
        shown = self.match.kept[np.argsort(-np.abs(new - before)[self.match.kept], kind="stable")]
        shown = shown[:MAX_EXAMPLES]
        shown = shown[new[shown] != before[shown]]
        remarks = [f"{100 * before[i]:.3g}% before, {100 * new[i]:.3g}% now" for i in shown]
        pairs = int(self._new.label_counts.sum())
        tally = _labels(self._new, NEW, shown, round(distance * pairs), remarks)
        return Observed(checks.LABEL_SHARES, pairs, tally)

    def _unknown_tokens(self) -> Observed:
        old, new = self._old, self._new
        before = old.unknown_tokens / max(old.tokens, 1)
        risen = max(new.unknown_tokens - round(before * new.tokens), 0)
        return Observed(checks.UNKNOWN_TOKENS_RISE, new.tokens, Tally(risen))


def _judged(observed: Sequence[Observed], config: DriftConfig) -> tuple[Finding, ...]:
    """Let great-expectations compare each share with its limits."""
    unlimited = DriftLimits(warn=1.0)
    limits = [getattr(config, o.check.name, unlimited) for o in observed]
    findings = [
        Finding(o.check, o.tally.count, o.total, limit.fail, "passed", tuple(o.tally.examples))
        for o, limit in zip(observed, limits, strict=True)
    ]
    shares = [
        Share(f.check.name, f.share, limit.fail, limit.warn)
        for f, limit in zip(findings, limits, strict=True)
    ]
    exceeded = Expectations().exceeded("drift", shares)
    return tuple(replace(f, status=_status(f, exceeded)) for f in findings)


def _histograms(old: Profile, new: Profile) -> tuple[tuple[Histogram, Histogram], ...]:
    values = {
        "Labels by number of training documents": (old.label_counts, new.label_counts),
        "Documents by number of characters": (
            _values(old.document_lengths),
            _values(new.document_lengths),
        ),
        "Label texts by number of characters": (
            _values(old.label_lengths),
            _values(new.label_lengths),
        ),
    }
    return tuple(
        (by_doubling(title, before), by_doubling(title, now))
        for title, (before, now) in values.items()
    )


def _distance(check: Check, before: Counts, now: Counts) -> Observed:
    total = int(now.sum())
    return Observed(check, total, Tally(round(kolmogorov_smirnov(before, now) * total)))


def _status(finding: Finding, exceeded: Mapping[str, set[str]]) -> Status:
    if finding.check.name in exceeded["allowed"]:
        return "failed"
    if finding.check.name in exceeded["tolerated"]:
        return "warning"
    return "noted" if finding.count else "passed"


def _shares(counts: Counts) -> NDArray[np.float64]:
    return counts / max(int(counts.sum()), 1)


def _values(counts: Counts) -> Counts:
    """The values behind a histogram of lengths."""
    return np.repeat(np.arange(MAX_CHARS + 1), counts)


def _most_frequent(profile: Profile, rows: NDArray[Any]) -> NDArray[Any]:
    """The first few of some labels, those with most documents first."""
    return rows[np.argsort(-profile.label_counts[rows], kind="stable")][:MAX_EXAMPLES]


def _labels(
    profile: Profile,
    place: str,
    rows: NDArray[Any],
    count: int,
    remarks: Sequence[str] = (),
) -> Tally:
    """A count with labels as examples."""
    remarks = remarks or [f"training documents: {n:,}" for n in profile.label_counts[rows].tolist()]
    columns = profile.label_ids.take(rows), profile.label_texts.take(rows), remarks
    examples = [
        Example(place, 0, label, text[:EXCERPT_CHARS], remark)
        for label, text, remark in zip(*columns, strict=True)
    ]
    return Tally(count, examples)
