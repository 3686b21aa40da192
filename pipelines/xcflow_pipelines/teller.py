"""A run told on the terminal: while it goes on, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from xcflow.registry.notes import MODELS
from xcflow.registry.summary import MAIN_METRICS, MAIN_MODEL
from xcflow_pipelines.watcher import CACHED, DONE, FAILED, INTERRUPTED, STARTED, TaskState

WIDTH = 100


class Teller:
    """Shows a run on standard error: a live line on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live: Progress | None = None
        self._task = TaskID(0)

    @property
    def is_live(self) -> bool:
        """Whether lines are shown one in the place of the other."""
        return self._console.is_terminal

    def __call__(self, task: TaskState, line: str) -> None:
        """See a change of a task's state, or a line that it printed."""
        if line:
            self._show_line(task, line.strip())
        elif task.state == STARTED:
            self._start(task)
        else:
            self.stop()
            self._show_end(task)

    def stop(self) -> None:
        """Remove the live line."""
        if self._live:
            self._live.stop()
            self._live = None

    def _start(self, task: TaskState) -> None:
        if self.is_live:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            remark = TextColumn("{task.fields[remark]}", markup=False)
            self._live = Progress(
                *columns,
                remark,
                console=self._console,
                transient=True,
                redirect_stdout=False,  # it is the runner's, and caught already
                redirect_stderr=False,
            )
            self._task = self._live.add_task(task.name, total=None, remark="")
            self._live.start()

    def _show_line(self, task: TaskState, line: str) -> None:
        if self._live:
            room = max(self._console.width - len(task.name) - 14, 10)
            self._live.update(self._task, remark=line[:room])
            if line.startswith("warning"):
                self._live.console.print(f"  {task.name}: {line}", markup=False)
        else:
            self._write(f"  {task.name}: {line}")

    def _show_end(self, task: TaskState) -> None:
        if task.state == DONE:
            self._write(f"{task.name:<18} {task.seconds:8,.1f} s")
        elif task.state == CACHED:
            self._write(f"{task.name:<18} {'from cache':>10}")
        elif task.state in (FAILED, INTERRUPTED):
            self._write(f"{task.name:<18} {task.state:>10}")

    def _write(self, line: str) -> None:
        # Not by print: Kubeflow's runner replaces it while a task runs.
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def console(width: int = WIDTH) -> Console:
    """Standard output; as wide as needed, so wide, where it is no terminal."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=width)


def metrics_table(models: Mapping[str, Mapping[str, float]]) -> Table:
    """All measured models beside each other, in percent."""
    columns = [c for c in MAIN_METRICS if any(c in values for values in models.values())]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("on the test split, in percent")
    for column in columns:
        table.add_column(column, justify="right")
    for model in [m for m in MODELS if m in models] + [m for m in models if m not in MODELS]:
        cells = [f"{100 * models[model][c]:.1f}" if c in models[model] else "-" for c in columns]
        style = "bold" if model == MAIN_MODEL else ""
        table.add_row(MODELS.get(model, model), *cells, style=style)
    return table


def paths_lines(paths: Mapping[str, Path | str]) -> list[str]:
    """Names and paths, aligned, one a line so that a terminal can open them."""
    width = max((len(name) for name in paths), default=0)
    return [f"{name:<{width}}  {_shortest(Path(path))}" for name, path in paths.items()]


def history_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Moves of the champion, newest first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("when (UTC)", "who", "what", "champion", "before", "verdict"):
        table.add_column(name, no_wrap=True)
    table.add_column("why")  # this one gives way where the line is too long
    for row in rows:
        when = str(row["time"]).replace("T", " ").removesuffix("+00:00")
        before = row["from_version"] or "none"
        texts = (when, row["who"], row["action"], row["version"], before, row["verdict"])
        table.add_row(*map(str, texts), Text(str(row["reason"]), no_wrap=True, overflow="ellipsis"))
    return table


def command_lines(commands: Sequence[tuple[str, str]]) -> list[str]:
    """Commands and what they are for, aligned."""
    width = max(len(command) for command, _ in commands)
    return [f"  {command:<{width}}  {why}" for command, why in commands]


def _shortest(path: Path) -> str:
    """The path from the working folder, where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
