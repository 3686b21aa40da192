"""What came of a trigger: in words, and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from xcflow.registry.claims import Submission
from xcflow_pipelines.cluster.triggering import Outcome


def as_tree(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON; what does not apply is null or empty."""
    outline, difference, run = outcome.outline, outcome.difference, outcome.submission
    return {
        "state": outcome.state,
        "catalogue": outline.uri,
        "digest": outline.digest,
        "basis": outline.basis,
        "accepted": outcome.accepted,
        "changes": list(difference.sentences) if difference else [],
        "labels": asdict(difference.labels) if difference and difference.labels else None,
        "documents": asdict(difference.documents) if difference and difference.documents else None,
        "run": run.run if run else "",
        "name": run.name if run else "",
        "who": run.who if run else "",
        "time": run.time if run else "",
        "run_state": outcome.run_state,
    }


def in_words(outcome: Outcome) -> Iterator[str]:
    """An outcome as lines for people."""
    outline = outcome.outline
    yield f"catalogue {outline.digest[:12]} (by its {outline.basis}): {outline.uri}"
    for sentence in outcome.difference.sentences if outcome.difference else ():
        yield f"  {sentence}"
    if not outcome.accepted:
        yield "  no model is champion yet, so there is nothing to compare it with"
    if outcome.state == "accepted":
        yield "nothing to do: the champion knows this catalogue"
    elif outcome.state == "due":
        yield "a run would be submitted"
    elif outcome.submission:
        yield _of_run(outcome, outcome.submission)


def _of_run(outcome: Outcome, run: Submission) -> str:
    if outcome.state == "submitted":
        return f"submitted: {run.name} ({run.run})"
    stands = f", {outcome.run_state}" if outcome.run_state else ""
    return (
        f"nothing to do: {run.name} ({run.run}{stands}) was submitted for it by {run.who}, "
        f"{run.time}; once it is over, --again submits another"
    )
