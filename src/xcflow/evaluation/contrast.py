"""Two runs side by side: figures with intervals, slices, frequencies, documents, configuration.

The first run is the reference: a positive difference means that the other run is better. All
figures come from the arrays that the two evaluations keep of each document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xcflow.errors import ArtifactError
from xcflow.evaluation.comparison import Comparison, compare
from xcflow.evaluation.examples import Answers, Example, Flips, side_by_side
from xcflow.evaluation.frequency import FrequencyDifference, frequency_differences, kept_depth
from xcflow.evaluation.ratios import SLICED_KINDS, MetricName
from xcflow.evaluation.result import CANDIDATE, Evaluation

DEPTH = 5
FLIPPED = 3
SAMPLED = 15


@dataclass(frozen=True, eq=False)
class Run:
    """A run that takes part in a comparison.

    Attributes:
        name: What a reader calls it.
        evaluation: What was measured of its model.
        settings: Its configuration as ``section.key`` -> text; empty where none is recorded.
    """

    name: str
    evaluation: Evaluation
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Setting:
    """A value in which two configurations differ.

    Attributes:
        key: As in ``section.key``.
        before: The reference's value, ``None`` where it has no such key.
        after: The other's.
    """

    key: str
    before: str | None
    after: str | None


@dataclass(frozen=True, eq=False)
class Contrast:
    """How a run differs from the reference.

    Attributes:
        reference: The run it is compared with.
        other: The run.
        comparison: Differences in all common metrics and slices, other - reference.
        slices: The slices that the test split has.
        frequency_depth: Depth of the recall by frequency.
        frequency: Recall by frequency in training, most frequent labels first.
        flips: Documents on which the run finds more, or fewer, right labels.
        flipped: Those that changed most, for better and for worse.
        examples: Documents drawn from those on which the runs differ: better ones, worse ones.
        settings: In what the configurations differ.
        left_out: What cannot be compared, and why.
    """

    reference: Run
    other: Run
    comparison: Comparison
    slices: tuple[str, ...]
    frequency_depth: int
    frequency: tuple[FrequencyDifference, ...]
    flips: Flips
    flipped: tuple[tuple[Example, ...], tuple[Example, ...]]
    examples: tuple[tuple[Example, ...], tuple[Example, ...]]
    settings: tuple[Setting, ...]
    left_out: Mapping[str, str]


def contrast(reference: Run, other: Run) -> Contrast:
    """Set a run against the reference.

    Raises:
        ArtifactError: They were measured on different test splits, or at no common depth.
    """
    a, b = reference.evaluation, other.evaluation
    ks = _common_depths(reference, other)
    slices = list(a.metrics["slices"][CANDIDATE])
    metrics = [m for m in a.metric_names() if MetricName.parse(m).k in ks]
    sliced = [
        str(MetricName(kind, k, part)) for part in slices for kind in SLICED_KINDS for k in ks
    ]
    comparison = compare(b, a, metrics=[*metrics, *sliced])
    left_out = _missing_depths(reference, other) | _grouped(comparison.left_out)
    depth = min(kept_depth(a), kept_depth(b))
    try:
        frequency = frequency_differences(b, a, depth)
    except ArtifactError as error:
        frequency, left_out["recall by label frequency"] = (), str(error)
    shown = max((k for k in ks if k <= DEPTH), default=ks[0])
    answers = [Answers(evaluation, CANDIDATE, shown) for evaluation in (a, b)]
    flips = Flips.between(answers[0], answers[1], shown)
    better, worse = (
        tuple(side_by_side(answers[0], answers[1], rows)) for rows in flips.sample(SAMPLED, FLIPPED)
    )
    if unknown := [run.name for run in (reference, other) if not run.settings]:
        left_out["configuration"] = f"none is recorded of {' and '.join(unknown)}"
    return Contrast(
        reference,
        other,
        comparison,
        tuple(slices),
        depth,
        frequency,
        flips,
        (better[:FLIPPED], worse[:FLIPPED]),
        (better, worse),
        () if unknown else _settings(reference.settings, other.settings),
        left_out,
    )


def _common_depths(reference: Run, other: Run) -> tuple[int, ...]:
    a, b = reference.evaluation.ks, other.evaluation.ks
    ks = tuple(k for k in a if k in b)
    if not ks:
        depths = " and ".join(", ".join(map(str, k)) for k in (a, b))
        raise ArtifactError(
            f"{reference.name} and {other.name} have no depth in common ({depths}): evaluate both "
            "with the same evaluation.ks"
        )
    return ks


def _missing_depths(reference: Run, other: Run) -> dict[str, str]:
    """Depths of which only one of the two knows, and which."""
    missing = {}
    for run, lacking in ((reference, other), (other, reference)):
        alone = [k for k in run.evaluation.ks if k not in lacking.evaluation.ks]
        if alone:
            names = ", ".join(f"@{k}" for k in alone)
            missing[f"metrics {names}"] = f"measured of {run.name} only"
    return missing


def _grouped(left_out: Mapping[str, str]) -> dict[str, str]:
    """One entry for each reason, instead of one for each metric."""
    by_reason: dict[str, list[str]] = {}
    for metric, why in left_out.items():
        name = MetricName.parse(metric)
        subject = "metrics of the slices" if name.slice else f"{name.kind}@k"
        subjects = by_reason.setdefault(why, [])
        if subject not in subjects:
            subjects.append(subject)
    return {", ".join(subjects): why for why, subjects in by_reason.items()}


def _settings(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Setting, ...]:
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return tuple(Setting(key, before.get(key), after.get(key)) for key in changed)
