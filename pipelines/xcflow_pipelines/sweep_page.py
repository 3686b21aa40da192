"""A finished sweep as a page for people: figures against a swept key, readable offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from xcflow.registry.summary import MAIN_METRICS
from xcflow.report.charts import Series, figure, line_chart
from xcflow.report.page import render
from xcflow_pipelines.sweep_plan import SweepPlan, described
from xcflow_pipelines.sweeping import PLOTTED, Group, spread_text
from xcflow_pipelines.toml_text import toml_value

STYLES = 7


def sweep_page(plan: SweepPlan, groups: Sequence[Group]) -> str:
    """The sweep as a page.

    Args:
        plan: What was run.
        groups: Its figures over the seeds.
    """
    shown = [name for name in MAIN_METRICS if any(name in group.figures for group in groups)]
    key = plan.numeric_key
    lines = _lines(plan, groups, key) if key else []
    return render(
        "xcflow_pipelines",
        "sweep.html.j2",
        plan=plan,
        key=key,
        charts=[(name, _chart(name, key, lines)) for name in PLOTTED if key and name in shown],
        legend=[(name, style) for name, style, _ in lines],
        columns=shown,
        rows=[
            (
                [toml_value(value) for value in group.values.values()],
                [spread_text(group.figures[n]) if n in group.figures else "" for n in shown],
                group.runs,
            )
            for group in groups
        ],
    )


def _lines(
    plan: SweepPlan, groups: Sequence[Group], key: str
) -> list[tuple[str, str, list[Group]]]:
    """Name, style and groups of each line: one for each choice of the other keys."""
    others: dict[str, list[Group]] = {}
    for group in groups:
        rest = {name: value for name, value in group.values.items() if name != key}
        others.setdefault(described(rest) or plan.name, []).append(group)
    return [
        (name, f"s{i % STYLES + 1}", sorted(members, key=lambda g: float(g.values[key])))
        for i, (name, members) in enumerate(others.items())
    ]


def _chart(metric: str, key: str, lines: Sequence[tuple[str, str, list[Group]]]) -> Markup:
    """A metric against the swept key, whose values stand at equal distances."""
    values: list[Any] = sorted({group.values[key] for _, _, members in lines for group in members})
    series = []
    for name, style, members in lines:
        known = [group for group in members if metric in group.figures]
        spreads = [group.figures[metric] for group in known]
        series.append(
            Series(
                name,
                style,
                [values.index(group.values[key]) for group in known],
                [100.0 * spread.mean for spread in spreads],
                [100.0 * (spread.deviation or 0.0) for spread in spreads],
            )
        )
    ticks = [(float(i), figure(value)) for i, value in enumerate(values)]
    return line_chart(series, x_ticks=ticks)
