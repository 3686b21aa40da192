"""The evaluation and the gate's verdict as pages for people: one file each, readable offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from markupsafe import Markup

from xcflow.evaluation.examples import Answers, side_by_side
from xcflow.evaluation.gate import OPPONENTS
from xcflow.evaluation.ratios import MetricName
from xcflow.evaluation.result import BASELINES, CANDIDATE, CHAMPION, Evaluation
from xcflow.evaluation.verdict import Judgement
from xcflow.report.charts import Series, bar_chart, interval, line_chart
from xcflow.report.page import render

# Name of a model -> what a reader calls it, and its style on the page.
MODELS = {
    CANDIDATE: ("This model, fused", "s1"),
    CHAMPION: ("Champion", "s2"),
    "encoder": ("Encoder alone", "s3"),
    "classifier": ("Classifiers alone", "s4"),
    "neighbours": ("Neighbours alone", "s5"),
    "baseline_tfidf": ("Label text by words (TF-IDF)", "s6"),
    "baseline_untrained": ("Untrained encoder", "s7"),
}
CHARTS = {
    "P": "Precision: share of the first k that is right",
    "PSP": "Propensity-scored precision: rare labels weigh more",
    "R": "Recall: share of the true labels among the first k",
    "nDCG": "nDCG: right labels early in the list",
}
EXAMPLES = (("better", 6), ("worse", 6), ("as good", 3))
EXAMPLE_DEPTH = 5

# Name of a trained module -> name of a curve -> points (step, value).
Histories = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
TRAINED = {"encoder": "Module I, encoder", "classifier": "Module II, classifiers"}


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
    models = [name for name in MODELS if name in evaluation.models]
    models += [name for name in evaluation.models if name not in MODELS]
    main, everything = main_metrics(evaluation.ks), evaluation.metric_names()
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
        charts=[(CHARTS[kind], _depth_chart(evaluation, models, kind)) for kind in CHARTS],
        slice_charts=_slice_charts(evaluation, models),
        legend=[(_name(model), _style(model)) for model in models],
        names={model: _name(model) for model in models},
        curves=_curves(histories or {}),
        calibration=evaluation.metrics["calibration"],
        reliability=_reliability_chart(evaluation),
        examples=_examples(evaluation),
        opponent=_name(_opponent(evaluation)),
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
        groups=[(title, rows) for title, rows in groups if rows],
    )


def _name(model: str) -> str:
    return MODELS.get(model, (model, ""))[0]


def _style(model: str) -> str:
    return MODELS.get(model, ("", "s7"))[1]


def _opponent(evaluation: Evaluation) -> str:
    """What examples and cards set the candidate against."""
    known = [name for name in (CHAMPION, *BASELINES) if name in evaluation.models]
    return known[0] if known else CANDIDATE


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
        Row(model, _name(model), _style(model), table[i].tolist(), best[i].tolist())
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


def _depth_chart(evaluation: Evaluation, models: Sequence[str], kind: str) -> Markup:
    places = range(len(evaluation.ks))
    figures = evaluation.metrics["models"]
    series = [
        Series(
            _name(model),
            _style(model),
            list(places),
            [100.0 * figures[model][f"{kind}@{k}"] for k in evaluation.ks],
        )
        for model in reversed(models)  # the candidate is drawn last, on top
    ]
    ticks = [(float(i), f"k = {k}" if i == 0 else str(k)) for i, k in enumerate(evaluation.ks)]
    return line_chart(series, x_ticks=ticks, from_zero=True)


def _slice_charts(evaluation: Evaluation, models: Sequence[str]) -> list[tuple[str, Markup]]:
    """Recall and share of the precision in each slice that the test split has."""
    slices = evaluation.metrics["slices"]
    parts = list(slices[CANDIDATE])
    k = max((k for k in evaluation.ks if k <= 10), default=evaluation.ks[0])
    first = evaluation.ks[0]
    titles = {
        f"R@{k}": f"R@{k} of the labels of a slice",
        f"P@{first}": f"What a slice adds to P@{first}",
    }
    charts = []
    for metric, title in titles.items():
        series = [
            Series(
                _name(model),
                _style(model),
                list(range(len(parts))),
                [100.0 * slices[model][part][metric] for part in parts],
            )
            for model in models
        ]
        charts.append((title, bar_chart(parts, series)))
    return charts


def _reliability_chart(evaluation: Evaluation) -> Markup:
    """Share of right labels by said probability; on the diagonal both agree."""
    series = [Series("said = right", "s7", [0.0, 100.0], [0.0, 100.0])]
    for model, facts in evaluation.metrics["calibration"].items():
        bins = facts["bins"]
        said = [100.0 * b["probability"] for b in bins]
        series.append(Series(_name(model), _style(model), said, [100.0 * b["right"] for b in bins]))
    ticks = [(float(x), f"{x} %") for x in (0, 50, 100)]
    return line_chart(series, x_ticks=ticks, from_zero=True)


def _curves(histories: Histories) -> list[tuple[str, Markup, list[tuple[str, str]]]]:
    """Title, chart and legend: the loss by steps, and all validation metrics by epochs."""
    charts = []
    for module in TRAINED:
        curves = histories.get(module, {})
        drawn = {name: points for name, points in curves.items() if len(points) > 1}
        metrics = {
            name.removeprefix("validation/"): points
            for name, points in drawn.items()
            if name.startswith("validation/")
        }
        losses = {name: points for name, points in drawn.items() if name.startswith("train/")}
        for lines, title, factor in (
            (losses, "loss by steps", 1.0),
            (metrics, "validation by epochs, in points", 100.0),
        ):
            if not lines:
                continue
            series = [
                Series(name, f"s{i}", [p[0] for p in points], [factor * p[1] for p in points])
                for i, (name, points) in enumerate(lines.items(), 1)
            ]
            xs = series[0].xs
            ticks = [(x, f"{x:,g}") for x in (xs[0], xs[-1])]
            legend = [(s.name, s.style) for s in series] if len(series) > 1 else []
            chart = line_chart(series, x_ticks=ticks, from_zero=lines is metrics)
            charts.append((f"{TRAINED[module]}: {title}", chart, legend))
    return charts


def _examples(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Documents on which candidate and opponent differ, and some on which they do not."""
    opponent = _opponent(evaluation)
    depth = max((k for k in evaluation.ks if k <= EXAMPLE_DEPTH), default=evaluation.ks[0])
    metric = str(MetricName("R", depth))
    gain = (
        evaluation.ratio(CANDIDATE, metric).numerator - evaluation.ratio(opponent, metric).numerator
    )
    groups = {"better": gain > 0, "worse": gain < 0, "as good": gain == 0}
    random = np.random.default_rng(0)
    answers = [Answers(evaluation, model, EXAMPLE_DEPTH) for model in (CANDIDATE, opponent)]
    examples = []
    for name, count in EXAMPLES:
        rows = np.flatnonzero(groups[name])
        chosen = np.sort(random.choice(rows, min(count, len(rows)), replace=False))
        examples += [
            {"group": name, "document": found, "pairs": list(zip_longest(found.a, found.b))}
            for found in side_by_side(answers[0], answers[1], chosen.tolist())
        ]
    return examples
