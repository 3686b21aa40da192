"""The gate: PROMOTE, HOLD or REJECT, from one evaluation and the thresholds alone.

The candidate meets each opponent that was measured beside it on the same documents: the baselines,
and the champion where there is one. Against each, the primary metric must rise and no secondary
metric may fall by more than a margin; against the champion no slice of the labels may fall by more
than a margin of its own. Each such question is answered by the bounds of a paired bootstrap, each
budget by a number, and every answer is *yes*, *no* or *cannot tell*:

A champion that took in another catalogue without training is asked other things (``refreshed``).

- all answers are yes: PROMOTE;
- one is no: REJECT;
- otherwise: HOLD.

The rate at which a candidate no better than the champion is promoted is at most ``alpha``, because
all questions must be answered with yes and the primary one errs that often. It needs no correction
for the number of questions: more of them can only lower it (an intersection-union test, Berger
1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

from xcflow.config import GateConfig
from xcflow.evaluation.bootstrap import Difference, paired_bootstrap
from xcflow.evaluation.conditions import budget_checks, data_findings, trust_checks
from xcflow.evaluation.ratios import Ratio
from xcflow.evaluation.refreshed import (
    FINDS,
    TAKES_IN,
    metric_alone,
    plain_encoder,
    refresh_checks,
    refresh_of,
)
from xcflow.evaluation.result import (
    BASELINES,
    CANDIDATE,
    CHAMPION,
    ENCODER,
    WITHOUT_AUXILIARY,
    Evaluation,
)
from xcflow.evaluation.shared import recall_alone
from xcflow.evaluation.verdict import Check, Judgement, Outcome, Verdict
from xcflow.report.page import signed_points

OPPONENTS = {
    CHAMPION: "the champion",
    "baseline_tfidf": "matching label texts by words",
    "baseline_untrained": "the untrained encoder",
    WITHOUT_AUXILIARY: "label texts alone",
    ENCODER: "its encoder alone",
}
# How likely the rise is to be found that a verdict names as one that would have been.
POWER = 0.8


class _Question(NamedTuple):
    """What is asked of a difference to an opponent.

    Attributes:
        asked: ``rises``, ``does not fall``, or ``does not fall in a slice``.
        metric: The metric.
        opponent: The opponent.
        a: The metric of the candidate.
        b: The metric of the opponent.
    """

    asked: str
    metric: str
    opponent: str
    a: Ratio
    b: Ratio


def decide(evaluation: Evaluation, gate: GateConfig) -> Judgement:
    """Judge the candidate of an evaluation.

    Args:
        evaluation: Candidate, baselines and, where there is one, champion on one test split.
        gate: The thresholds.

    Raises:
        ArtifactError: The evaluation lacks a metric that the gate asks for.
    """
    checks = tuple(_checks(evaluation, gate))
    verdict: Verdict = "PROMOTE"
    if any(check.outcome == "no" for check in checks):
        verdict = "REJECT"
    elif any(check.outcome == "cannot tell" for check in checks):
        verdict = "HOLD"
    metrics = evaluation.metrics
    return Judgement(
        verdict=verdict,
        reasons=tuple(_reasons(verdict, checks, gate)),
        notes=tuple(_notes(evaluation, checks, gate)),
        checks=checks,
        candidate=metrics["candidate"]["bundle"],
        champion=metrics["champion"]["bundle"] if metrics["champion"] else "",
        evaluation=evaluation.digest,
        dataset=metrics["dataset"],
        catalogue=metrics["catalogue"],
        test_split=metrics["test_split"],
        documents=evaluation.documents,
        thresholds=gate,
    )


def _reasons(verdict: Verdict, checks: tuple[Check, ...], gate: GateConfig) -> Iterator[str]:
    """The answers that decided; where all are yes, those about falls and budgets in one line."""
    if verdict != "PROMOTE":
        deciding = "no" if verdict == "REJECT" else "cannot tell"
        yield from (check.words for check in checks if check.outcome == deciding)
        return
    yield from (check.words for check in checks if check.question in (TAKES_IN, FINDS))
    yield from (check.words for check in checks if check.question == "rises")
    if guarded := dict.fromkeys(c.metric for c in checks if c.question == "does not fall"):
        margin = f"{100.0 * gate.margin:g} points"
        yield f"Against none of them a fall beyond {margin}: {', '.join(guarded)}."
    fallen = (c for c in checks if c.question == "does not fall in a slice")
    if slices := [c.metric for c in fallen if c.against == CHAMPION]:
        margin = f"{100.0 * gate.slice_margin:g} points"
        yield f"In no slice a fall beyond {margin} against the champion: {', '.join(slices)}."


def _notes(evaluation: Evaluation, checks: tuple[Check, ...], gate: GateConfig) -> Iterator[str]:
    for check in checks:
        if check.question == "rises" and check.against == CHAMPION and check.difference:
            yield (
                f"With these test documents a real rise of {check.metric} by "
                f"{100.0 * _detectable(check.difference, gate):.1f} points over the champion is "
                f"seen {POWER:.0%} of the time."
            )
    refresh = refresh_of(evaluation)
    if refresh and refresh["since_training"] > 1:
        yield f"It is the refresh number {refresh['since_training']} since the last training."
    shared = evaluation.metrics["shared"]
    if shared:
        yield (
            f"Candidate and champion know different labels. They are compared on the "
            f"{shared['labels']:,} that both know, in {shared['counts']['documents']:,} documents."
        )
        alone = {model: facts for model, facts in shared["alone"].items() if facts["labels"]}
        for model, facts in alone.items():
            name = "the candidate" if model == CANDIDATE else "the champion"
            labels = facts["labels"]
            words = f"{labels:,} label{' is' if labels == 1 else 's are'} known to {name} alone"
            if facts["test_pairs"]:
                share = facts["found"] / facts["test_pairs"]
                words += (
                    f"; of their {facts['test_pairs']:,} test pairs it finds {share:.1%} among its "
                    f"first {facts['depth']}"
                )
            yield f"{words}."
    for sentence in data_findings(evaluation, worse_than="noted"):
        yield f"The data report warns: {sentence}."


def _detectable(difference: Difference, gate: GateConfig) -> float:
    """The rise that the question finds with a probability of ``POWER``, by a normal bound."""
    normal = NormalDist()
    z = normal.inv_cdf(1.0 - gate.alpha)
    error = (difference.high - difference.low) / (2.0 * z)
    return gate.lift + (z + normal.inv_cdf(POWER)) * error


def _checks(evaluation: Evaluation, gate: GateConfig) -> Iterator[Check]:
    champion = evaluation.metrics["champion"]
    if champion and champion["bundle"] == evaluation.metrics["candidate"]["bundle"]:
        yield Check("is new", "cannot tell", "The candidate is the champion already.")
        return
    yield from trust_checks(evaluation, gate)
    yield from refresh_checks(evaluation, gate)
    questions = list(_questions(evaluation, gate))
    differences = paired_bootstrap(
        [question.a for question in questions],
        [question.b for question in questions],
        resamples=gate.resamples,
        alpha=gate.alpha,
        seed=0,
    )
    for question, difference in zip(questions, differences, strict=True):
        yield _answered(question, difference, gate)
    yield from budget_checks(evaluation, gate)


def _questions(evaluation: Evaluation, gate: GateConfig) -> Iterator[_Question]:
    refreshed = refresh_of(evaluation) is not None
    opponents = (*([CHAMPION] if evaluation.metrics["champion"] else []), *BASELINES)
    for opponent in opponents:
        # Baselines know every label.
        common = evaluation.shared() if opponent == CHAMPION else evaluation
        as_before = refreshed and opponent == CHAMPION
        asked = {gate.primary: "does not fall" if as_before else "rises"}
        for metric in gate.secondary:
            asked.setdefault(metric, "does not fall")
        pairs = list(asked.items())
        if opponent == CHAMPION and gate.slice_metric:
            slices = common.metrics["slices"][CANDIDATE]
            pairs += [(f"{gate.slice_metric}/{s}", "does not fall in a slice") for s in slices]
        for metric, question in pairs:
            a, b = (common.ratio(model, metric) for model in (CANDIDATE, opponent))
            yield _Question(question, metric, opponent, a, b)
    if refreshed:
        yield from _questions_of_refresh(evaluation, gate)


def _questions_of_refresh(evaluation: Evaluation, gate: GateConfig) -> Iterator[_Question]:
    """New labels push between old ones, and should be found at least as by their texts alone."""
    if evaluation.metrics["shared"]:
        a, b = (evaluation.ratio(model, gate.primary) for model in (CANDIDATE, CHAMPION))
        yield _Question("does not fall", f"{gate.primary} among all labels", CHAMPION, a, b)
    plain, found = plain_encoder(evaluation), recall_alone(evaluation, CANDIDATE)
    if plain and found.denominator.any():
        other = recall_alone(evaluation, plain)
        yield _Question("does not fall in a slice", metric_alone(evaluation), plain, found, other)


def _answered(question: _Question, difference: Difference, gate: GateConfig) -> Check:
    metric, opponent = question.metric, question.opponent
    if math.isnan(difference.difference):
        words = f"{metric} has nothing to measure: no test document has a label of this slice."
        return Check("can be measured", "cannot tell", words, metric, opponent)
    if question.asked == "rises":
        threshold = gate.lift if opponent == CHAMPION else gate.floor_lift
        outcome, words = _rises(difference, opponent, threshold)
    elif question.asked == "does not fall":
        threshold = -gate.margin
        outcome, words = _does_not_fall(difference, gate.margin)
    else:
        threshold = -gate.slice_margin
        documents = int(question.a.denominator.sum())
        outcome, words = _slice_does_not_fall(difference, documents, gate)
    sentence = _sentence(metric, difference, opponent, words, gate)
    return Check(question.asked, outcome, sentence, metric, opponent, threshold, difference)


def _rises(difference: Difference, opponent: str, lift: float) -> tuple[Outcome, str]:
    if opponent == CHAMPION:
        # Equal models must not replace one another; a rise that is only too small is no harm.
        outcome = _answer(difference.low > lift, difference.high < 0.0)
    else:
        # Where every model is right there is no room above a baseline.
        outcome = _answer(difference.low >= lift, difference.high < lift)
    enough = f"more than {100.0 * lift:.1f}" if lift else "enough"
    return outcome, {
        "yes": "a significant rise" if difference.low > 0 else "no fall",
        "no": "a significant fall" if difference.high < 0 else f"significantly not {enough}",
        "cannot tell": "too close to call" if not lift else f"not certainly {enough}",
    }[outcome]


def _does_not_fall(difference: Difference, margin: float) -> tuple[Outcome, str]:
    outcome = _answer(difference.low >= -margin, difference.high < -margin)
    name = f"the margin of {100.0 * margin:.1f}"
    return outcome, {
        "yes": "no fall" if difference.difference >= 0 else f"within {name}",
        "no": f"a fall beyond {name}",
        "cannot tell": f"perhaps a fall beyond {name}",
    }[outcome]


def _slice_does_not_fall(
    difference: Difference, documents: int, gate: GateConfig
) -> tuple[Outcome, str]:
    """A slice of few documents would hold every candidate, so it only speaks when it is sure."""
    outcome, words = _does_not_fall(difference, gate.slice_margin)
    if outcome == "cannot tell" and documents < gate.slice_documents:
        return "yes", f"no certain fall, in {documents:,} documents only"
    return outcome, words


def _answer(yes: bool, no: bool) -> Outcome:
    return "yes" if yes else "no" if no else "cannot tell"


def _sentence(
    metric: str, difference: Difference, opponent: str, words: str, gate: GateConfig
) -> str:
    """Metrics are given in points, as tables show them."""
    change = 100.0 * difference.difference
    side = "above" if change >= 0 else "below"
    return (
        f"{metric} is {100.0 * difference.a:.1f}, {abs(change):.1f} {side} {OPPONENTS[opponent]} "
        f"({100.0 * difference.b:.1f}): {words} ({100.0 * (1.0 - gate.alpha):g}% bounds "
        f"{signed_points(difference.low)} and {signed_points(difference.high)})."
    )
