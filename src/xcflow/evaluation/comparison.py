"""Two models compared on the same documents, within one evaluation or across two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xcflow.errors import ArtifactError
from xcflow.evaluation.bootstrap import Difference, paired_bootstrap
from xcflow.evaluation.ratios import MetricName
from xcflow.evaluation.result import CANDIDATE, Evaluation

RESAMPLES = 2_000
ALPHA = 0.025


@dataclass(frozen=True)
class Comparison:
    """Differences between two models, metric by metric.

    Attributes:
        a: Name of the one model in its evaluation.
        b: Name of the other.
        documents: Number of test documents both were measured on.
        confidence: Two-sided confidence of the intervals, for example 0.95.
        differences: Metric -> difference a - b.
        left_out: Metrics that cannot be compared, and why.
    """

    a: str
    b: str
    documents: int
    confidence: float
    differences: dict[str, Difference]
    left_out: dict[str, str]


def compare(
    evaluation_a: Evaluation,
    evaluation_b: Evaluation,
    *,
    a: str = CANDIDATE,
    b: str = CANDIDATE,
    metrics: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    alpha: float = ALPHA,
    seed: int = 0,
) -> Comparison:
    """Compare model ``a`` of one evaluation with model ``b`` of another, or of the same one.

    Args:
        evaluation_a: Where ``a`` was measured.
        evaluation_b: Where ``b`` was measured.
        a: The one model.
        b: The other model.
        metrics: Names of metrics; by default all that both evaluations have, without slices.
        resamples: Resamples of the paired bootstrap.
        alpha: Error level of each end of an interval.
        seed: Seed of the resamples.

    Raises:
        ArtifactError: The two were measured on different test splits, or a model or metric is
            missing.
    """
    _require_same_split(evaluation_a, evaluation_b)
    names = metrics or [m for m in evaluation_a.metric_names() if m in evaluation_b.metric_names()]
    left_out = {name: why for name in names if (why := _obstacle(evaluation_a, evaluation_b, name))}
    names = [name for name in names if name not in left_out]
    differences = paired_bootstrap(
        [evaluation_a.ratio(a, name) for name in names],
        [evaluation_b.ratio(b, name) for name in names],
        resamples=resamples,
        alpha=alpha,
        seed=seed,
    )
    found = dict(zip(names, differences, strict=True))
    return Comparison(a, b, evaluation_a.documents, 1.0 - 2.0 * alpha, found, left_out)


def _obstacle(a: Evaluation, b: Evaluation, metric: str) -> str:
    """Why a metric means something else in the two evaluations; empty where it does not.

    Propensities and slices of the labels follow from the training split, which may differ.
    """
    name = MetricName.parse(metric)
    of_a, of_b = a.metrics["propensity"], b.metrics["propensity"]
    if name.slice and of_a["label_counts"] != of_b["label_counts"]:
        return "the slices differ, because the training splits do"
    if name.kind == "PSP" and of_a != of_b:
        return "the propensities differ, because the training splits or the constants do"
    return ""


def _require_same_split(a: Evaluation, b: Evaluation) -> None:
    if a.metrics["test_split"] != b.metrics["test_split"]:
        raise ArtifactError(
            f"{a.path} and {b.path} were measured on different test splits "
            f"({a.documents:,} and {b.documents:,} documents): evaluate both models on one data "
            "set first (xcflow evaluate)"
        )
