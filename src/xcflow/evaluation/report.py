"""The evaluation and the gate's verdict as pages for people: one file each, readable offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xcflow.evaluation.comparison import compare
from xcflow.evaluation.difference_lines import Line, frequency_lines, lines_of
from xcflow.evaluation.evaluation_charts import (
    Histories,
    depth_chart,
    gain_charts,
    reliability_charts,
    slice_charts,
    training_charts,
)
from xcflow.evaluation.examples import Answers, Flips, side_by_side
from xcflow.evaluation.frequency import frequency_differences, kept_depth
from xcflow.evaluation.gate import OPPONENTS
from xcflow.evaluation.model_names import in_order, reader_name, style_of
from xcflow.evaluation.ratios import MetricName
from xcflow.evaluation.refreshed import TAKES_IN
from xcflow.evaluation.result import (
    BASELINES,
    CANDIDATE,
    CHAMPION,
    ENCODER,
    WITHOUT_AUXILIARY,
    Evaluation,
)
from xcflow.evaluation.verdict import Judgement
from xcflow.report.charts import interval
from xcflow.report.page import render

CHARTS = {
    "P": "Precision: share of the first k that is right",
    "PSP": "Propensity-scored precision: rare labels weigh more",
    "R": "Recall: share of the true labels among the first k",
    "nDCG": "nDCG: right labels early in the list",
}
EXAMPLE_DEPTH = 5
EXAMPLES = 20  # on which the model is better, and as many on which it is worse
MOST_CHANGED = 5


@dataclass(frozen=True)
class Row:
    """A model in the table of figures.

    Attributes:
        model: Its name in the evaluation.
        name: What a reader calls it.
        style: Its style on the page.
        values: Its figures.
        best: Which of them are the best of their column.
    """

    model: str
    name: str
    style: str
    values: Sequence[float]
    best: Sequence[bool]


def evaluation_page(
    evaluation: Evaluation, histories: Histories | None = None, judgement: Judgement | None = None
) -> str:
    """The evaluation as a page.

    Args:
        evaluation: What to show.
        histories: Curves of the training stages, where they are at hand.
        judgement: The gate's verdict, where it is known.
    """
    models = in_order(evaluation.models)
    main, everything = main_metrics(evaluation.ks), evaluation.metric_names()
    opponents = opponents_of(evaluation)
    auxiliary = WITHOUT_AUXILIARY in evaluation.models
    return render(
        "xcflow.evaluation",
        "evaluation.html.j2",
        metrics=evaluation.metrics,
        timings=evaluation.timings,
        judgement=judgement,
        cards=_cards(evaluation),
        columns=main,
        rows=_rows(evaluation, models, main),
        all_columns=everything,
        all_rows=_rows(evaluation, models, everything),
        opponents=opponents,
        against=[_against(evaluation, CANDIDATE, name, main) for name in opponents[:1]],
        shared=evaluation.metrics["shared"],
        shared_lines=_on_shared_labels(evaluation, main),
        charts=[(CHARTS[kind], depth_chart(evaluation, models, kind)) for kind in CHARTS],
        slice_charts=slice_charts(evaluation, models),
        gains=_gains(evaluation, CANDIDATE, opponents),
        auxiliary=_against(evaluation, ENCODER, WITHOUT_AUXILIARY, main) if auxiliary else [],
        auxiliary_gains=_gains(evaluation, ENCODER, [WITHOUT_AUXILIARY] if auxiliary else []),
        legend=[(reader_name(model), style_of(model)) for model in models],
        names={model: reader_name(model) for model in models},
        curves=training_charts(histories or {}),
        reliability=reliability_charts(evaluation),
        disagreements=[_disagreements(evaluation, name) for name in opponents[:1]],
    )


def gate_page(judgement: Judgement) -> str:
    """The gate's verdict as a page."""
    groups = []
    for opponent in (*OPPONENTS, ""):
        checks = [check for check in judgement.checks if check.against == opponent]
        bounds = [x for c in checks if (d := c.difference) for x in (d.low, d.high, c.threshold)]
        span = 1.1 * max(map(abs, bounds), default=0.0) or 1.0
        plots = [
            interval(d.low, d.difference, d.high, check.threshold, span)
            if (d := check.difference)
            else ""
            for check in checks
        ]
        title = f"Against {OPPONENTS[opponent]}" if opponent else "Budgets, data and conditions"
        groups.append((title, list(zip(checks, plots, strict=True))))
    return render(
        "xcflow.evaluation",
        "gate.html.j2",
        judgement=judgement,
        refresh=any(check.question == TAKES_IN for check in judgement.checks),
        groups=[(title, rows) for title, rows in groups if rows],
    )


def opponents_of(evaluation: Evaluation) -> list[str]:
    """What the candidate is set against: the champion, then the better baseline, then the other.

    Where there is none of them, the encoder alone, as far as it was measured.
    """
    first = f"P@{evaluation.ks[0]}"
    figures = evaluation.metrics["models"]
    baselines = [name for name in BASELINES if name in figures]
    baselines.sort(key=lambda name: -figures[name][first])
    known = [*([CHAMPION] if CHAMPION in figures else []), *baselines]
    return known or [name for name in (ENCODER,) if name in figures]


def main_metrics(ks: Sequence[int]) -> list[str]:
    """The metrics that a reader looks at first, of those that some depths allow."""
    few = [k for k in ks if k <= 5]
    many = [k for k in ks if k > 5] or few[-1:]
    chosen = [("P", k) for k in few] + [("nDCG", k) for k in few[-1:]]
    chosen += [("PSP", k) for k in few] + [("R", k) for k in many]
    return [str(MetricName(kind, k)) for kind, k in chosen]


def _rows(evaluation: Evaluation, models: Sequence[str], columns: Sequence[str]) -> list[Row]:
    table = np.array([[evaluation.metrics["models"][m][c] for c in columns] for m in models])
    best = table == table.max(axis=0)
    return [
        Row(model, reader_name(model), style_of(model), table[i].tolist(), best[i].tolist())
        for i, model in enumerate(models)
    ]


def _cards(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The candidate's main figures, each beside the champion's and the better baseline's."""
    names = evaluation.metric_names()
    wanted = [name for name in ("P@1", "P@5", "PSP@5", "R@10", "R@100") if name in names]
    figures = evaluation.metrics["models"]
    cards = []
    for name in wanted or names[:4]:
        value = figures[CANDIDATE][name]
        others = []
        if CHAMPION in figures:
            others.append(("over the champion", value - figures[CHAMPION][name]))
        baselines = [figures[model][name] for model in BASELINES if model in figures]
        if baselines:
            others.append(("over the better baseline", value - max(baselines)))
        cards.append({"name": name, "value": value, "others": others})
    return cards


def _gains(evaluation: Evaluation, model: str, opponents: Sequence[str]) -> dict[str, Any]:
    """Recall by label frequency against some opponents, as charts and tables."""
    depth = kept_depth(evaluation)
    found = {
        name: frequency_differences(evaluation, evaluation, depth, a_model=model, b_model=name)
        for name in opponents
    }
    groups = any(found.values())
    return {
        "depth": depth,
        "charts": gain_charts(found, model, depth) if groups else [],
        "tables": {name: frequency_lines(lines) for name, lines in found.items()} if groups else {},
        "legend": [(reader_name(name), style_of(name)) for name in (model, *opponents)],
    }


def _against(
    evaluation: Evaluation, model: str, opponent: str, metrics: Sequence[str]
) -> list[Line]:
    found = compare(evaluation, evaluation, a=model, b=opponent, metrics=metrics)
    return lines_of(found.differences.items())


def _on_shared_labels(evaluation: Evaluation, metrics: Sequence[str]) -> list[Line]:
    """Candidate and champion on the labels that both know, where these are not all."""
    common = evaluation.shared()
    if common is evaluation or not common.documents:
        return []
    return _against(common, CANDIDATE, CHAMPION, metrics)


def _disagreements(evaluation: Evaluation, opponent: str) -> dict[str, Any]:
    """Documents of which candidate and opponent find more, or fewer, true labels."""
    depth = max((k for k in evaluation.ks if k <= EXAMPLE_DEPTH), default=evaluation.ks[0])
    old, new = (Answers(evaluation, model, depth) for model in (opponent, CANDIDATE))
    flips = Flips.between(old, new, depth)
    better, worse = (side_by_side(old, new, rows) for rows in flips.sample(EXAMPLES, MOST_CHANGED))
    return {
        "depth": depth,
        "counts": (len(flips.better), len(flips.worse), flips.same),
        "examples": [("better", e) for e in better] + [("worse", e) for e in worse],
    }
