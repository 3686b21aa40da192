"""Recording a step in MLflow from a process of its own.

Importing mlflow and opening its store take seconds, a server may hang, and a training step may be
killed for its memory. A second process does the recording meanwhile: it costs the step nothing,
cannot fail it, and sees its end in any case, since the pipe between them closes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xcflow.errors import XcflowError
from xcflow.progress import log
from xcflow.registry.names import FAILED, FINISHED, KILLED, RUN_KEY_VARIABLE

# How long a finished step waits for its record to be written.
PATIENCE_S = 60.0


@contextmanager
def recorded(step: str, params: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Record the block as a child of the pipeline's run, where there is one.

    Args:
        step: Name of the step.
        params: The configuration that it reads, nested.
        folder: The folder that it writes; its curves, figures and reports are recorded at the end.
    """
    if not (os.environ.get(RUN_KEY_VARIABLE) or os.environ.get("MLFLOW_RUN_ID")):
        yield
        return
    recorder = subprocess.Popen(
        [sys.executable, "-m", "xcflow.registry.recorder"], stdin=subprocess.PIPE, text=True
    )
    _send(recorder, {"step": step, "params": params})
    ending: dict[str, str] = {"status": KILLED}
    try:
        yield
        ending = {"status": FINISHED, "folder": str(folder)}
    except Exception as error:
        ending = {"status": FAILED, "error": f"{error}" or type(error).__name__}
        raise
    finally:
        _send(recorder, ending)
        _await(recorder)


def _send(recorder: subprocess.Popen[str], message: Mapping[str, Any]) -> None:
    assert recorder.stdin is not None
    with suppress(OSError):  # it has already said why it ended
        recorder.stdin.write(json.dumps(message) + "\n")
        recorder.stdin.flush()


def _await(recorder: subprocess.Popen[str]) -> None:
    try:
        recorder.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        recorder.kill()
        log(f"tracking: no answer within {PATIENCE_S:.0f} s, the step goes unrecorded")


def main() -> int:
    """Record one step; its beginning and its end come as lines of JSON on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the step's end is recorded after Ctrl-C too
    from xcflow.registry.tracking import Tracker

    begin = json.loads(sys.stdin.readline() or "{}")
    if not begin:
        return 1
    try:
        tracker = Tracker.from_environment()
        run = tracker.start_step(tracker.pipeline_run(), begin["step"], begin["params"])
        line = sys.stdin.readline()
        end = json.loads(line) if line else {"status": KILLED, "error": "the process was killed"}
        if "folder" in end:
            tracker.log_step(run, Path(end["folder"]))
        tracker.end(run, end["status"], end.get("error", ""))
    except XcflowError as error:
        log(f"tracking: {error}; the step goes unrecorded")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
