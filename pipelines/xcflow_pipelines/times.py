"""Where the time of a run went, as a table by step and phase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from xcflow.phases import OTHER, StepTimes
from xcflow_pipelines.watcher import CACHED, DONE

# Phases with a smaller share of the run's time are not shown one by one.
SHOWN_SHARE = 0.01
PROCESS = "process and record"


def times_table(tasks: Sequence[Mapping[str, Any]], seconds: float) -> Table:
    """The tasks of a run in their order, each with its phases, longest first.

    Args:
        tasks: As in ``RunRecord.tasks``.
        seconds: Wall time of the run.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("where the time went")
    for column in ("seconds", "share", "peak MB"):
        table.add_column(column, justify="right")
    for task in tasks:
        times = StepTimes.from_dict(task["times"]) if task["times"] else None
        memory = f"{times.peak_memory_mb:,.0f}" if times else ""
        if task["state"] == CACHED:
            before = f", {times.seconds:,.1f} s when it ran" if times else ""
            table.add_row(f"{task['name']} (from cache{before})", "", "", "", style="dim")
        elif task["state"] == DONE:
            table.add_row(task["name"], *_cells(task["seconds"], seconds), memory, style="bold")
            for name, share in _phases(task["seconds"], times, SHOWN_SHARE * seconds):
                table.add_row(f"  {name}", *_cells(share, seconds), "")
    between = seconds - sum(task["seconds"] for task in tasks)
    table.add_row("between the tasks", *_cells(between, seconds), "")
    table.add_row("in all", *_cells(seconds, seconds), "", style="bold")
    return table


def _phases(seconds: float, times: StepTimes | None, least: float) -> Iterator[tuple[str, float]]:
    """The phases of a task that took at least so long, longest first, then what remains."""
    if times is None:
        return
    phases = {PROCESS: seconds - times.seconds, **times.phases}
    shown = {name: s for name, s in phases.items() if s >= least and name != OTHER}
    yield from sorted(shown.items(), key=lambda row: -row[1])
    rest = seconds - sum(shown.values())
    if shown and rest >= least:
        yield OTHER, rest


def _cells(seconds: float, of: float) -> tuple[str, str]:
    return f"{seconds:,.1f}", f"{seconds / max(of, 1e-9):.0%}"
