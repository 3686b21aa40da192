"""What Kubeflow's local runner says, as states of tasks.

The runner logs to the root logger and prints what its tasks write. Both are caught here: each
task's output goes to a log file of its own, and the lines that matter become events.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from xcflow.disk import refusal
from xcflow.interruption import Interruption
from xcflow.steps.task import ERROR_MARK

STARTED, DONE, CACHED, FAILED, SKIPPED = "started", "done", "from cache", "failed", "skipped"
INTERRUPTED = "interrupted"


@dataclass
class TaskState:
    """What is known of a task.

    Attributes:
        name: The step or task.
        state: One of the states above.
        seconds: Wall time, 0 where it did not run.
        error: One line, where it failed.
        log: The file with everything that it printed.
    """

    name: str
    state: str = STARTED
    seconds: float = 0.0
    error: str = ""
    log: str = ""


@dataclass
class LocalRun:
    """A finished run.

    Attributes:
        name: Its name, here and in MLflow.
        folder: Where the outputs of its tasks stand.
        seconds: Wall time.
        tasks: The tasks in the order in which they ran.
        summary: What ``record_run`` wrote; empty where the run did not get so far.
    """

    name: str
    folder: Path
    seconds: float = 0.0
    tasks: list[TaskState] = field(default_factory=list)
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> TaskState | None:
        """The task that failed first."""
        return next((task for task in self.tasks if task.state == FAILED), None)


Listener = Callable[[TaskState, str], None]


class Watcher(logging.Filter):
    """Turns what the local runner logs and prints into task states and log files.

    Args:
        run: Gets the states.
        listener: Is told of each change.

    Attributes:
        interruption: What has been told to end the run; raised when no task is running any more.
    """

    interruption: Interruption | None = None

    def __init__(self, run: LocalRun, listener: Listener) -> None:
        super().__init__()
        self._run = run
        self._listener = listener
        self._task: TaskState | None = None
        self._begin = 0.0
        self._log: TextIO | None = None
        self._lines: list[str] = []
        self._in_executor_input = False

    def filter(self, record: logging.LogRecord) -> bool:
        """See a record of the root logger; nothing of it is printed."""
        message = re.sub(r"\x1b\[\d+m", "", record.getMessage())
        if found := re.match(r"Executing task '(.+)'", message):
            self._start(found[1])
        elif found := re.match(r"Task '(.+)' finished with status (\w+)", message):
            self._finish(found[2] == "SUCCESS")
        elif found := re.match(r"Task (\S+) cache hit", message):
            self._add(TaskState(_step_name(found[1]), CACHED))
        elif found := re.match(r"Skipping task (\S+):", message):
            self._add(TaskState(_step_name(found[1]), SKIPPED))
        return False

    def see(self, line: str) -> None:
        """Take a line that the runner printed."""
        if self._task is None or not line.startswith("    "):
            return
        line = line[4:].rstrip()
        self._keep(line)
        if self._is_the_steps_own(line):
            self._lines = [*self._lines[-20:], line]
            if not line.startswith(ERROR_MARK):
                self._listener(self._task, line)

    def close(self) -> None:
        """Close a log that is still open."""
        if self._log:
            self._log.close()
            self._log = None

    def _keep(self, line: str) -> None:
        """Write a line to the task's log; that it cannot be written costs no more than the log."""
        if self._log is None or self._task is None:
            return
        try:
            self._log.write(line + "\n")
            self._log.flush()
        except OSError as error:
            self._lose_log(self._task, error)

    def _lose_log(self, task: TaskState, error: OSError) -> None:
        with contextlib.suppress(OSError):  # it still holds the line
            self.close()
        self._log = None
        self._listener(task, f"warning: {task.log}: {refusal(error) or error.strerror}")

    def _is_the_steps_own(self, line: str) -> bool:
        """Whether a line is not of Kubeflow's executor, which also prints its whole input."""
        if self._in_executor_input:
            self._in_executor_input = line != "}"
            return False
        if line.startswith("[KFP Executor"):
            self._in_executor_input = line.endswith("Got executor_input:")
            return False
        return bool(line.strip())

    def _start(self, task: str) -> None:
        if self.interruption:  # the task before came to its end all the same, and into the cache
            raise self.interruption
        self._begin, self._lines = time.monotonic(), []
        name = _step_name(task)
        path = self._run.folder / "logs" / f"{name}.log"
        self._task = TaskState(name, log=str(path))
        self._add(self._task)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._log = path.open("w", encoding="utf-8")
        except OSError as error:
            self._lose_log(self._task, error)

    def _finish(self, success: bool) -> None:
        if self._task is None:
            return
        self.close()
        self._task.seconds = time.monotonic() - self._begin
        self._task.state = DONE if success else INTERRUPTED if self.interruption else FAILED
        if not success:
            self._task.error = self._reason(self._task)
        self._listener(self._task, "")
        self._task = None
        if self.interruption and not success:
            raise self.interruption

    def _reason(self, task: TaskState) -> str:
        for line in reversed(self._lines):
            if line.startswith(ERROR_MARK):
                return line.removeprefix(ERROR_MARK)
        last = self._lines[-1].strip() if self._lines else "it ended without a word, was it killed?"
        return f"{refusal(last) or f'unexpected: {last}'} (everything it said: {task.log})"

    def _add(self, task: TaskState) -> None:
        self._run.tasks.append(task)
        self._listener(task, "")


class Lines(io.TextIOBase):
    """A standard output that hands on whole lines."""

    def __init__(self, see: Callable[[str], None]) -> None:
        self._see = see
        self._rest = ""

    def write(self, text: str) -> int:
        """Take text, which may hold several lines or a part of one."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._see(line)
        return len(text)


def _step_name(task: str) -> str:
    return task.replace("-", "_")
