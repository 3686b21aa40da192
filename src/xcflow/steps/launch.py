"""Several processes on this machine for one step: started here, and waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from xcflow.config import Config
from xcflow.distributed.notes import ERROR, GRACE_S, JOB, LOST, TRACE, VARIABLE, noted
from xcflow.errors import DistributedError, XcflowError
from xcflow.phases import phase


def run_as_ranks(name: str, config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Run a step in ``config.distributed.processes`` ranks.

    Raises:
        XcflowError: What the step raised in one of them.
        DistributedError: A rank was lost, again and again.
    """
    job = {
        "step": name,
        "config": config.to_json(),
        "inputs": {key: str(Path(path).absolute()) for key, path in inputs.items()},
        "output": str(Path(output).absolute()),
    }
    settings = config.distributed
    with TemporaryDirectory(prefix="xcflow-ranks-") as folder:
        notes = Path(folder)
        (notes / JOB).write_text(json.dumps(job), encoding="utf-8")
        torchrun = {
            "min_nodes": 1,
            "max_nodes": 1,
            "nproc_per_node": settings.processes,
            "max_restarts": settings.max_restarts,
            "rdzv_backend": "c10d",
            "rdzv_endpoint": "localhost:0",
            "run_id": str(os.getpid()),
        }
        with phase("ranks"), _agent(notes, torchrun) as agent:
            code = agent.wait()
        if code != 0:
            raise _failure(notes, name)


@contextmanager
def _agent(notes: Path, settings: Mapping[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The process that looks after the ranks; it ends with the block, and lets them end first."""
    command = [sys.executable, "-m", "xcflow.distributed.agent", str(notes), "xcflow.steps.rank"]
    command.append(json.dumps(settings))
    environment = os.environ | {VARIABLE: str(notes), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    agent = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        start_new_session=True,  # what a terminal sends to all reaches the ranks once, from here
    )
    try:
        yield agent
    finally:
        if agent.poll() is None:
            agent.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                agent.wait(GRACE_S + 5)
            agent.kill()
        agent.communicate()


def _failure(notes: Path, name: str) -> XcflowError:
    """What to tell of ranks that did not come to an end."""
    if (notes / ERROR).is_file():
        return noted((notes / ERROR).read_text(encoding="utf-8"))
    again = "type the same command again to go on from the last checkpoint"
    try:
        lost = json.loads((notes / LOST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return DistributedError(f"{name}: the ranks could not be started: see the lines above")
    rank, code = lost["rank"], lost["exit_code"]
    if code < 0:
        sent = signal.Signals(-code).name
        memory = " (out of memory?)" if code == -signal.SIGKILL else ""
        return DistributedError(f"{name}: rank {rank} was ended by {sent}{memory}: {again}")
    with suppress(FileNotFoundError):
        trace = (notes / TRACE.format(rank)).read_text(encoding="utf-8")
        return DistributedError(f"{name}: rank {rank}: {trace.splitlines()[-1]}: {again}")
    return DistributedError(f"{name}: rank {rank} ended with code {code}: {again}")
