"""The gate: PROMOTE, HOLD or REJECT, from one evaluation and the thresholds alone.

The candidate meets each opponent that was measured beside it on the same documents: the baselines,
and the champion where there is one. Against each, the primary metric must rise and no secondary
metric may fall by more than a margin. Every such question is answered by the bounds of a paired
bootstrap and can end in *yes*, *no* or *cannot tell*:

- all answers are yes: PROMOTE;
- one is no: REJECT;
- otherwise: HOLD.

The rate at which a candidate no better than the champion is promoted is at most ``alpha``, because
all questions must be answered with yes and the primary one errs that often.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from xcflow.artifact import read_manifest
from xcflow.config import GateConfig
from xcflow.errors import ArtifactError
from xcflow.evaluation.bootstrap import Difference
from xcflow.evaluation.comparison import compare
from xcflow.evaluation.result import BASELINES, CANDIDATE, CHAMPION, Evaluation
from xcflow.report.page import signed_points

Verdict = Literal["PROMOTE", "HOLD", "REJECT"]
Outcome = Literal["yes", "no", "cannot tell"]

KIND = "verdict"
VERDICT = "verdict.json"

OPPONENTS = {
    CHAMPION: "the champion",
    "baseline_tfidf": "matching label texts by words",
    "baseline_untrained": "the untrained encoder",
}


@dataclass(frozen=True)
class Check:
    """One question that the gate asks, and its answer.

    Attributes:
        question: What is asked: ``rises``, ``does not fall``, ``can be measured``,
            ``enough documents``, ``is new`` or ``may be promoted``.
        outcome: The answer.
        words: The answer as a sentence.
        metric: The metric asked about, empty where there is none.
        against: The opponent, empty where there is none.
        threshold: What the difference's bound is held against.
        difference: The difference to the opponent.
    """

    question: str
    outcome: Outcome
    words: str
    metric: str = ""
    against: str = ""
    threshold: float = 0.0
    difference: Difference | None = None


@dataclass(frozen=True)
class Judgement:
    """What the gate says of a candidate.

    Attributes:
        verdict: PROMOTE, HOLD or REJECT.
        reasons: Why, in words: the answers that decided.
        checks: All questions and answers.
        candidate: Digest of the candidate's bundle.
        champion: Digest of the champion's bundle it was compared with, empty where there is none.
        evaluation: Digest of the evaluation.
        test_split: Identity of the test split.
        documents: Number of test documents.
        thresholds: The thresholds in force.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    candidate: str
    champion: str
    evaluation: str
    test_split: str
    documents: int
    thresholds: GateConfig

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json`` once parsed."""
        values = dict(tree)
        values["reasons"] = tuple(values["reasons"])
        values["checks"] = tuple(_check_from_dict(check) for check in values["checks"])
        thresholds = dict(values["thresholds"])
        thresholds["secondary"] = tuple(thresholds["secondary"])
        values["thresholds"] = GateConfig(**thresholds)
        return cls(**values)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what the step ``gate_model`` wrote.

        Raises:
            ArtifactError: The folder holds none.
        """
        read_manifest(folder, KIND)
        path = Path(folder) / VERDICT
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path}: cannot be read: {error}") from error


def _check_from_dict(tree: Mapping[str, Any]) -> Check:
    difference = tree["difference"] and Difference(**tree["difference"])
    return Check(**{**tree, "difference": difference})


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
    champion = evaluation.metrics["champion"]
    return Judgement(
        verdict=verdict,
        reasons=tuple(_reasons(verdict, checks, gate)),
        checks=checks,
        candidate=evaluation.metrics["candidate"]["bundle"],
        champion=champion["bundle"] if champion else "",
        evaluation=evaluation.digest,
        test_split=evaluation.metrics["test_split"],
        documents=evaluation.documents,
        thresholds=gate,
    )


def _reasons(verdict: Verdict, checks: tuple[Check, ...], gate: GateConfig) -> Iterator[str]:
    """The answers that decided; where all are yes, those about secondary metrics in one line."""
    if verdict != "PROMOTE":
        deciding = "no" if verdict == "REJECT" else "cannot tell"
        yield from (check.words for check in checks if check.outcome == deciding)
        return
    yield from (check.words for check in checks if check.question == "rises")
    if gate.secondary:
        margin = f"{100.0 * gate.margin:g} points"
        yield f"Against none of them a fall beyond {margin}: {', '.join(gate.secondary)}."


def _checks(evaluation: Evaluation, gate: GateConfig) -> Iterator[Check]:
    champion = evaluation.metrics["champion"]
    if champion and champion["bundle"] == evaluation.metrics["candidate"]["bundle"]:
        yield Check("is new", "cannot tell", "The candidate is the champion already.")
        return
    if not gate.promote:
        words = "It was trained for an experiment: gate.promote is off."
        yield Check("may be promoted", "cannot tell", words)
    if evaluation.documents < gate.minimum_documents:
        words = (
            f"There are {evaluation.documents:,} test documents; with fewer than "
            f"{gate.minimum_documents:,} no difference can be told."
        )
        yield Check("enough documents", "cannot tell", words)
    for opponent in (*([CHAMPION] if champion else []), *BASELINES):
        yield from _checks_against(evaluation, opponent, gate)


def _checks_against(evaluation: Evaluation, opponent: str, gate: GateConfig) -> Iterator[Check]:
    metrics = list(dict.fromkeys((gate.primary, *gate.secondary)))
    found = compare(
        evaluation,
        evaluation,
        a=CANDIDATE,
        b=opponent,
        metrics=metrics,
        resamples=gate.resamples,
        alpha=gate.alpha,
    ).differences
    for metric in metrics:
        difference = found[metric]
        if math.isnan(difference.difference):
            words = f"{metric} has nothing to measure: no test document has a label of this slice."
            yield Check("can be measured", "cannot tell", words, metric, opponent)
        elif metric == gate.primary:
            yield _rises(metric, difference, opponent, gate)
        else:
            yield _does_not_fall(metric, difference, opponent, gate)


def _rises(metric: str, difference: Difference, opponent: str, gate: GateConfig) -> Check:
    if opponent == CHAMPION:
        # Equal models must not replace one another; a rise that is only too small is no harm.
        lift = gate.lift
        outcome = _answer(difference.low > lift, difference.high < 0.0)
    else:
        # Where every model is right there is no room above a baseline.
        lift = gate.floor_lift
        outcome = _answer(difference.low >= lift, difference.high < lift)
    enough = f"more than {100.0 * lift:.1f}" if lift else "enough"
    words = {
        "yes": "a significant rise" if difference.low > 0 else "no fall",
        "no": "a significant fall" if difference.high < 0 else f"significantly not {enough}",
        "cannot tell": "too close to call" if not lift else f"not certainly {enough}",
    }[outcome]
    sentence = _sentence(metric, difference, opponent, words, gate)
    return Check("rises", outcome, sentence, metric, opponent, lift, difference)


def _does_not_fall(metric: str, difference: Difference, opponent: str, gate: GateConfig) -> Check:
    outcome = _answer(difference.low >= -gate.margin, difference.high < -gate.margin)
    margin = f"the margin of {100.0 * gate.margin:.1f}"
    words = {
        "yes": "no fall" if difference.difference >= 0 else f"within {margin}",
        "no": f"a fall beyond {margin}",
        "cannot tell": f"perhaps a fall beyond {margin}",
    }[outcome]
    sentence = _sentence(metric, difference, opponent, words, gate)
    return Check("does not fall", outcome, sentence, metric, opponent, -gate.margin, difference)


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
