"""What the gate asks of a refreshed champion: its new labels are found, and it has a purpose.

A refresh takes in other labels; it cannot make old ones better. So against the champion that it
came from nothing has to rise: no metric may fall, neither on the labels that both know nor among
all labels, where new ones push between the old. What speaks for it is that its new labels are
found: at least so often as a threshold says, and no less than by their texts alone, where test
documents have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xcflow.config import GateConfig
from xcflow.evaluation.bootstrap import paired_bootstrap
from xcflow.evaluation.frequency import kept_depth
from xcflow.evaluation.ratios import Ratio
from xcflow.evaluation.result import CANDIDATE, CHAMPION, ENCODER, WITHOUT_AUXILIARY, Evaluation
from xcflow.evaluation.shared import recall_alone
from xcflow.evaluation.verdict import Check, Outcome

# The questions that only a refresh is asked, whose answers a reader looks for first.
TAKES_IN = "takes in other labels"
FINDS = "finds new labels"


def refresh_of(evaluation: Evaluation) -> dict[str, Any] | None:
    """What the candidate says of its refresh, if it was made from the champion it stands beside.

    Beside another champion it is a candidate like any other.
    """
    facts: dict[str, Any] | None = evaluation.metrics["candidate"].get("refresh")
    champion = evaluation.metrics[CHAMPION]
    return facts if facts and champion and champion["bundle"] == facts["from"] else None


def refresh_checks(evaluation: Evaluation, gate: GateConfig) -> Iterator[Check]:
    """Whether a refresh has a purpose, and whether its new labels are found often enough."""
    facts = refresh_of(evaluation)
    if facts is None:
        return
    yield _takes_in(facts)
    if not facts["labels_added"]:
        return
    found = recall_alone(evaluation, CANDIDATE)
    documents = int(found.denominator.sum())
    if documents < gate.new_label_documents:
        words = (
            f"Of the {facts['labels_added']:,} new labels {documents:,} test documents have one; "
            f"with fewer than {gate.new_label_documents:,} it cannot be told how many are found."
        )
        yield Check(FINDS, "cannot tell", words)
    elif documents:
        yield _finds(evaluation, found, gate)


def plain_encoder(evaluation: Evaluation) -> str | None:
    """The voice that knows a new label by its text alone, as far as it was measured."""
    voices = (name for name in (WITHOUT_AUXILIARY, ENCODER) if name in evaluation.models)
    return next(voices, None)


def metric_alone(evaluation: Evaluation) -> str:
    """What the recall of labels that the candidate alone knows is called."""
    return f"R@{kept_depth(evaluation)} of new labels"


def _takes_in(facts: dict[str, Any]) -> Check:
    changes = [
        f"{facts[f'labels_{what}']:,} {words}"
        for what, words in (("added", "new"), ("removed", "gone"), ("renamed", "with another text"))
        if facts[f"labels_{what}"]
    ]
    if changes:
        return Check(TAKES_IN, "yes", f"Refreshed without training, labels: {', '.join(changes)}.")
    words = "The catalogue has the champion's labels with the same texts: nothing to take in."
    return Check(TAKES_IN, "cannot tell", words)


def _finds(evaluation: Evaluation, found: Ratio, gate: GateConfig) -> Check:
    nothing = found._replace(numerator=np.zeros_like(found.numerator))
    (bounds,) = paired_bootstrap(
        [found], [nothing], resamples=gate.resamples, alpha=gate.alpha, seed=0
    )
    outcome: Outcome = "cannot tell"
    if bounds.low >= gate.new_label_recall:
        outcome = "yes"
    elif bounds.high < gate.new_label_recall:
        outcome = "no"
    than = {"yes": "at least", "no": "less than", "cannot tell": "perhaps less than"}[outcome]
    words = (
        f"{metric_alone(evaluation)} is {100.0 * bounds.a:.1f}, {than} the threshold of "
        f"{100.0 * gate.new_label_recall:.1f} ({100.0 * (1.0 - gate.alpha):g}% bounds "
        f"{100.0 * bounds.low:.1f} and {100.0 * bounds.high:.1f}, in "
        f"{int(found.denominator.sum()):,} test documents)."
    )
    return Check(FINDS, outcome, words)
