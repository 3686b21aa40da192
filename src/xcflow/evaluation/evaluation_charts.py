"""The charts of an evaluation's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from xcflow.evaluation.frequency import FrequencyDifference
from xcflow.evaluation.model_names import reader_name, style_of
from xcflow.evaluation.result import CANDIDATE, Evaluation
from xcflow.report.charts import Series, bar_chart, line_chart

# Name of a trained module -> name of a curve -> points (step, value).
Histories = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
TRAINED = {"encoder": "Module I, encoder", "classifier": "Module II, classifiers"}


def depth_chart(evaluation: Evaluation, models: Sequence[str], kind: str) -> Markup:
    """One kind of metric at all depths, a line for each model."""
    places = range(len(evaluation.ks))
    figures = evaluation.metrics["models"]
    series = [
        Series(
            reader_name(model),
            style_of(model),
            list(places),
            [100.0 * figures[model][f"{kind}@{k}"] for k in evaluation.ks],
        )
        for model in reversed(models)  # the candidate is drawn last, on top
    ]
    ticks = [(float(i), f"k = {k}" if i == 0 else str(k)) for i, k in enumerate(evaluation.ks)]
    return line_chart(series, x_ticks=ticks, from_zero=True)


def slice_charts(evaluation: Evaluation, models: Sequence[str]) -> list[tuple[str, Markup]]:
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
                reader_name(model),
                style_of(model),
                list(range(len(parts))),
                [100.0 * slices[model][part][metric] for part in parts],
            )
            for model in models
        ]
        charts.append((title, bar_chart(parts, series)))
    return charts


def gain_charts(
    gains: Mapping[str, Sequence[FrequencyDifference]], model: str, depth: int
) -> list[tuple[str, Markup]]:
    """Recall of each group of labels, and by how much a model is above its opponents.

    Args:
        gains: Opponent -> differences ``model - opponent``; at least one opponent.
        model: The model.
        depth: Of the recall.
    """
    groups = [f.group.name for f in next(iter(gains.values()))]
    places = list(range(len(groups)))
    own = [100.0 * f.recall.a for f in next(iter(gains.values()))]
    recalls = [Series(reader_name(model), style_of(model), places, own)]
    lines = [Series("no difference", "s7", [0, max(len(groups) - 1, 1)], [0.0, 0.0])]
    for opponent, found in gains.items():
        name, style = reader_name(opponent), style_of(opponent)
        recalls.append(Series(name, style, places, [100.0 * f.recall.b for f in found]))
        gained = [100.0 * f.recall.difference for f in found]
        around = [50.0 * (f.recall.high - f.recall.low) for f in found]
        lines.append(Series(f"over: {name}", style, places, gained, around))
    every = -(-len(groups) // 5) or 1
    ticks = [(float(place), groups[place]) for place in places[::every]]
    return [
        (f"R@{depth} by training documents of the label", bar_chart(groups, recalls)),
        ("Gain in points, with 95% intervals", line_chart(lines, x_ticks=ticks)),
    ]


def reliability_charts(evaluation: Evaluation) -> list[tuple[str, Markup]]:
    """Of each calibrated model, the share of right labels by said probability."""
    ticks = [(float(x), f"{x} %") for x in (0, 25, 50, 75, 100)]
    charts = []
    for model, facts in evaluation.metrics["calibration"].items():
        series = [Series("said = right", "s7", [0.0, 100.0], [0.0, 100.0])]
        for when, style in (("before", "s6"), ("after", "s1")):
            bins = facts["bins"][when]
            said = [100.0 * b["probability"] for b in bins]
            right = [100.0 * b["right"] for b in bins]
            series.append(Series(f"{when} calibration", style, said, right))
        charts.append((reader_name(model), line_chart(series, x_ticks=ticks, from_zero=True)))
    return charts


def training_charts(histories: Histories) -> list[tuple[str, Markup, list[tuple[str, str]]]]:
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
