"""A finished sweep as a page for people: figures against a swept key, readable offline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from xcflow.registry.summary import MAIN_METRICS, MAIN_MODEL
from xcflow.report.charts import Series, figure, line_chart
from xcflow.report.page import render
from xcflow_pipelines.sweep_plan import SweepPlan, described
from xcflow_pipelines.sweeping import PLOTTED, Group, Swept, spread_text
from xcflow_pipelines.toml_text import toml_value

STYLES = 7
VOICES = {MAIN_MODEL: "fused", "encoder": "encoder alone"}
_WIDE = 4.0  # values that differ by more of a factor stand by their logarithms
_GAP = 0.25  # from 0 to the other values, as a share of their span


@dataclass(frozen=True)
class Voice:
    """A line of the charts: the groups that differ in the drawn key alone, by one voice.

    Attributes:
        name: What a reader calls it.
        style: Its style on the page.
        model: The voice.
        groups: The groups by rising value.
    """

    name: str
    style: str
    model: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Scale:
    """Where the values of a key stand on the horizontal axis.

    Attributes:
        places: Value -> place.
        apart: Whether 0 stands apart, as it has no logarithm.
    """

    places: dict[float, float]
    apart: bool

    @classmethod
    def of(cls, values: Iterable[float]) -> Scale:
        """By their logarithms where they differ by a large factor, else as they are."""
        known = sorted(set(values))
        positive = [value for value in known if value > 0]
        if known[0] < 0 or not positive or positive[-1] < _WIDE * positive[0]:
            return cls({value: float(value) for value in known}, apart=False)
        places = {value: math.log2(value) for value in positive}
        apart = known[0] == 0
        if apart:
            low, high = places[positive[0]], places[positive[-1]]
            places[0] = low - _GAP * (high - low)
        return cls(places, apart)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and values."""
        return [(place, figure(value)) for value, place in self.places.items()]

    @property
    def breaks(self) -> list[float]:
        """Where the axis is broken: between 0 and the rest."""
        first, second = sorted(self.places.values())[:2] if self.apart else (0.0, 0.0)
        return [(first + second) / 2] if self.apart else []


def sweep_page(plan: SweepPlan, swept: Swept) -> str:
    """The sweep as a page.

    Args:
        plan: What was run.
        swept: What came of it.
    """
    figures = [group.figures[MAIN_MODEL] for group in swept.groups]
    shown = [name for name in MAIN_METRICS if any(name in known for known in figures)]
    key = plan.numeric_key
    lines = _lines(plan, swept.groups, key) if key else []
    return render(
        "xcflow_pipelines",
        "sweep.html.j2",
        plan=plan,
        key=key,
        charts=[(name, _chart(name, key, lines)) for name in PLOTTED if key and name in shown],
        scale=_scale(key, lines) if key else None,
        legend=[(line.name, line.style) for line in lines],
        columns=shown,
        rows=[
            (
                [toml_value(value) for value in group.values.values()],
                [spread_text(known[n]) if n in known else "" for n in shown],
                group.runs,
            )
            for group, known in zip(swept.groups, figures, strict=True)
        ],
        from_cache=swept.from_cache,
    )


def _lines(plan: SweepPlan, groups: Sequence[Group], key: str) -> list[Voice]:
    """For each choice of the other keys a line of each voice; those of a choice share a colour."""
    others: dict[str, list[Group]] = {}
    for group in groups:
        rest = {name: value for name, value in group.values.items() if name != key}
        others.setdefault(described(rest), []).append(group)
    lines = []
    for i, (rest_text, members) in enumerate(others.items()):
        members.sort(key=lambda group: float(group.values[key]))
        for model, name in VOICES.items():
            if all(model in group.figures for group in members):
                title = f"{rest_text}, {name}" if rest_text else name
                style = f"s{i % STYLES + 1}" + (" dashed" if model != MAIN_MODEL else "")
                lines.append(Voice(title, style, model, tuple(members)))
    return lines


def _scale(key: str, lines: Sequence[Voice]) -> Scale:
    return Scale.of(float(group.values[key]) for line in lines for group in line.groups)


def _chart(metric: str, key: str, lines: Sequence[Voice]) -> Markup:
    """A metric against the swept key; nothing connects 0 with the rest where it stands apart."""
    scale = _scale(key, lines)
    series = []
    for line in lines:
        known = [group for group in line.groups if metric in group.figures[line.model]]
        zero = [group for group in known if scale.apart and group.values[key] == 0]
        for members in (zero, [group for group in known if group not in zero]):
            spreads = [group.figures[line.model][metric] for group in members]
            series.append(
                Series(
                    line.name,
                    line.style,
                    [scale.places[group.values[key]] for group in members],
                    [100.0 * spread.mean for spread in spreads],
                    [100.0 * (spread.deviation or 0.0) for spread in spreads],
                )
            )
    drawn = [s for s in series if s.xs]
    return line_chart(drawn, x_ticks=scale.ticks, breaks=scale.breaks)
