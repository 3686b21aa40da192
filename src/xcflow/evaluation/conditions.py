"""What the gate asks besides accuracy: budgets, and whether the figures can be trusted at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from xcflow.catalogue.findings import Status
from xcflow.config import GateConfig
from xcflow.evaluation.result import CANDIDATE, CHAMPION, Evaluation
from xcflow.evaluation.verdict import Check

MEGABYTE = 2**20
_GRAVITY: tuple[Status, ...] = get_args(Status)


def trust_checks(evaluation: Evaluation, gate: GateConfig) -> Iterator[Check]:
    """Reasons for which no figure can promote a candidate; nothing where there is none."""
    if not gate.promote:
        words = "It was trained for an experiment: gate.promote is off."
        yield Check("may be promoted", "cannot tell", words)
    documents = evaluation.shared().documents
    if documents < gate.minimum_documents:
        words = (
            f"There are {documents:,} test documents; with fewer than "
            f"{gate.minimum_documents:,} no difference can be told."
        )
        yield Check("enough documents", "cannot tell", words)
    grave = data_findings(evaluation, worse_than=gate.max_data_status)
    if grave:
        words = f"The data report has to be looked at first: {'; '.join(grave)}."
        yield Check("data can be trusted", "cannot tell", words)


def data_findings(evaluation: Evaluation, *, worse_than: Status) -> list[str]:
    """The findings of the data report that are graver than a status, in words."""
    allowed = _GRAVITY.index(worse_than)
    findings = evaluation.metrics["data_report"]["findings"]
    return [f["sentence"] for f in findings if _GRAVITY.index(f["status"]) > allowed]


def budget_checks(evaluation: Evaluation, gate: GateConfig) -> Iterator[Check]:
    """Whether the candidate keeps within each budget that is set."""
    if gate.max_latency_ms or gate.max_latency_ratio:
        yield from _latency_checks(evaluation, gate)
    facts, timings = evaluation.metrics["candidate"], evaluation.timings
    sizes = (
        ("bundle is small enough", "The bundle has", facts["bytes"] / MEGABYTE, gate.max_bundle_mb),
        ("memory suffices", "The evaluation took", timings["peak_memory_mb"], gate.max_memory_mb),
    )
    for question, what, size, budget in sizes:
        if budget:
            words = f"{what} {size:,.0f} MB, {_within(size <= budget, f'{budget:,.0f} MB')}."
            yield Check(question, "yes" if size <= budget else "no", words)
    for name, recall in facts["index_recall"].items():
        if gate.min_index_recall:
            good = recall >= gate.min_index_recall
            words = (
                f"The index of {name} finds {recall:.1%} of what an exact search finds, "
                f"{'at least' if good else 'less than'} {gate.min_index_recall:.0%}."
            )
            yield Check("index finds enough", "yes" if good else "no", words)


def _latency_checks(evaluation: Evaluation, gate: GateConfig) -> Iterator[Check]:
    latency = evaluation.timings["latency_ms"]
    if CANDIDATE not in latency:
        words = "How fast it answers was not measured: evaluation.latency_texts is 0."
        yield Check("answers in time", "cannot tell", words)
        return
    slow, limit = latency[CANDIDATE]["p99"], gate.max_latency_ms
    if limit:
        words = (
            f"99 of 100 single texts are answered within {slow:,.1f} ms, "
            f"{_within(slow <= limit, f'{limit:,g} ms')}."
        )
        yield Check("answers in time", "yes" if slow <= limit else "no", words)
    if gate.max_latency_ratio and CHAMPION in latency:
        ratio = latency[CANDIDATE]["p50"] / latency[CHAMPION]["p50"]
        good = ratio <= gate.max_latency_ratio
        words = (
            f"A single text takes {ratio:.2f} times as long as with the champion (medians of the "
            f"same texts), {_within(good, f'{gate.max_latency_ratio:g} times')}."
        )
        yield Check("keeps the champion's pace", "yes" if good else "no", words)


def _within(good: bool, budget: str) -> str:
    return f"{'within' if good else 'beyond'} the budget of {budget}"
