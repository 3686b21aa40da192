"""Charts as inline SVG whose colours follow the page, light or dark.

Every mark carries its exact value as a tooltip. Series are styled by the classes of
``base.html.j2``; nothing here knows a colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 420.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 12.0, 10.0, 26.0
MAX_POINTS = 400
MAX_GROUP_LABELS = 7


@dataclass(frozen=True)
class Series:
    """A named sequence of values.

    Attributes:
        name: What a reader calls it.
        style: Its class on the page.
        xs: Horizontal positions.
        ys: Values.
        errors: How far each value may be off on either side; empty where that is not drawn.
    """

    name: str
    style: str
    xs: Sequence[float]
    ys: Sequence[float]
    errors: Sequence[float] = ()


@dataclass(frozen=True)
class Axis:
    """Maps values to positions.

    Attributes:
        low: Value at ``start``.
        high: Value at ``stop``.
        start: Position of ``low``.
        stop: Position of ``high``.
    """

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The position of a value, to a tenth."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.stop - self.start), 1)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most ``most`` round numbers that enclose ``low`` to ``high``."""
    span = (high - low) or abs(high) or 1.0
    for exponent in range(math.floor(math.log10(span / most)), 400):
        for factor in (1, 2, 5):
            step = factor * 10.0**exponent
            first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            if last - first < most:
                return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
    raise ValueError(f"no ticks from {low} to {high}")


def line_chart(
    series: Sequence[Series],
    *,
    x_ticks: Sequence[tuple[float, str]],
    from_zero: bool = False,
    breaks: Sequence[float] = (),
) -> Markup:
    """Lines over a common horizontal axis.

    Args:
        series: The lines; points that are not finite are left out.
        x_ticks: Positions to mark below, with their labels.
        from_zero: Whether the vertical axis starts at 0.
        breaks: Positions at which the horizontal axis is broken.
    """
    values = [y for s in series for y in (*s.ys, *_bounds(s)) if math.isfinite(y)] or [0.0]
    ticks = nice_ticks(0.0 if from_zero else min(values), max(values))
    y_axis = Axis(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    xs = [x for s in series for x in s.xs] + [x for x, _ in x_ticks]
    x_axis = Axis(min(xs), max(xs), LEFT + 8, WIDTH - RIGHT - 8)
    body = [_grid(ticks, y_axis)]
    body += [
        Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            x_axis(x), HEIGHT - 8, label
        )
        for x, label in x_ticks
    ]
    body += [
        Markup('<line class="break" x1="{x}" y1="{}" x2="{x}" y2="{}"/>').format(
            TOP, HEIGHT - BOTTOM, x=x_axis(x)
        )
        for x in breaks
    ]
    body += [_error_bars(s, x_axis, y_axis) for s in series]
    body += [_line(s, x_axis, y_axis) for s in series]
    return _svg(body)


def _bounds(series: Series) -> list[float]:
    """The ends of the error bars."""
    pairs = list(zip(series.ys, series.errors, strict=bool(series.errors)))
    return [y - e for y, e in pairs] + [y + e for y, e in pairs]


def _error_bars(series: Series, x_axis: Axis, y_axis: Axis) -> Markup:
    bar = '<line class="error {}" x1="{x}" y1="{}" x2="{x}" y2="{}"/>'
    points = zip(series.xs, series.ys, series.errors, strict=bool(series.errors))
    return Markup("").join(
        Markup(bar).format(series.style, y_axis(y - e), y_axis(y + e), x=x_axis(x))
        for x, y, e in points
        if math.isfinite(y) and e > 0
    )


def _line(series: Series, x_axis: Axis, y_axis: Axis) -> Markup:
    points = [(x, y) for x, y in zip(series.xs, series.ys, strict=True) if math.isfinite(y)]
    points = points[:: -(-len(points) // MAX_POINTS) or 1]
    path = " ".join(f"{x_axis(x)},{y_axis(y)}" for x, y in points)
    line = Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>').format(
        series.style, path, series.name
    )
    dots = [
        Markup(
            '<circle class="dot {}" cx="{}" cy="{}" r="3"><title>{}: {}</title></circle>'
        ).format(series.style, x_axis(x), y_axis(y), series.name, figure(y))
        for x, y in (points if len(points) <= 12 else [])
    ]
    return Markup("").join([line, *dots])


def bar_chart(groups: Sequence[str], series: Sequence[Series]) -> Markup:
    """Bars side by side in groups; ``xs`` of a series are indices into ``groups``."""
    values = [y for s in series for y in s.ys if math.isfinite(y)] or [0.0]
    ticks = nice_ticks(0.0, max(values))
    y_axis = Axis(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    room = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    width = 0.8 * room / max(len(series), 1)
    body = [_grid(ticks, y_axis)]
    every = -(-len(groups) // MAX_GROUP_LABELS) or 1
    for i, group in list(enumerate(groups))[::every]:
        body.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                round(LEFT + (i + 0.5) * room, 1), HEIGHT - 8, group
            )
        )
    for j, s in enumerate(series):
        for place, y in zip(s.xs, s.ys, strict=True):
            x = LEFT + place * room + 0.1 * room + j * width
            mark = (
                '<rect class="bar {}" x="{}" y="{}" width="{}" height="{}">'
                "<title>{}, {}: {}</title></rect>"
            )
            height = max(y_axis(0.0) - y_axis(y), 0.0) if math.isfinite(y) else 0.0
            body.append(
                Markup(mark).format(
                    s.style,
                    round(x, 1),
                    round(y_axis(0.0) - height, 1),
                    round(max(width - 1.5, 1.0), 1),
                    round(height, 1),
                    s.name,
                    groups[int(place)],
                    figure(y),
                )
            )
    return _svg(body)


def interval(low: float, value: float, high: float, threshold: float | None, span: float) -> Markup:
    """A difference with its bounds beside zero and any threshold, on an axis of ``+-span``."""
    axis = Axis(-span, span, 4.0, 176.0)
    line = '<line class="threshold" x1="{t}" y1="3" x2="{t}" y2="17"/>'
    marks = (
        '<svg class="interval" viewBox="0 0 180 20" role="img" aria-label="{} to {}">'
        '<line class="zero" x1="{z}" y1="1" x2="{z}" y2="19"/>'
        f"{line if threshold is not None else ''}"
        '<line class="range" x1="{l}" y1="10" x2="{h}" y2="10"/>'
        '<circle class="value" cx="{v}" cy="10" r="4"/></svg>'
    )
    places = {"z": 0.0, "t": threshold or 0.0, "l": low, "h": high, "v": value}
    clipped = {key: axis(min(max(x, -span), span)) for key, x in places.items()}
    return Markup(marks).format(figure(100 * low), figure(100 * high), **clipped)


def figure(value: float) -> str:
    """A number with four significant digits and no exponent where that is readable."""
    if not math.isfinite(value):
        return "none"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:.3g}"


def _grid(ticks: Sequence[float], y_axis: Axis) -> Markup:
    line = (
        '<line class="grid" x1="{}" y1="{y}" x2="{}" y2="{y}"/>'
        '<text x="{}" y="{}" text-anchor="end">{}</text>'
    )
    return Markup("").join(
        Markup(line).format(
            LEFT, WIDTH - RIGHT, LEFT - 6, y_axis(tick) + 4, figure(tick), y=y_axis(tick)
        )
        for tick in ticks
    )


def _svg(body: Sequence[Markup]) -> Markup:
    start = Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img">').format(WIDTH, HEIGHT)
    return start + Markup("").join(body) + Markup("</svg>")
