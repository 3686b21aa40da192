"""Run a step on as many machines as its configuration asks for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xcflow.config import Config, DistributedConfig
from xcflow.errors import ClusterError, DistributedError
from xcflow.interruption import held_back
from xcflow.phases import phase
from xcflow.progress import log
from xcflow.registry.names import RUN_KEY_VARIABLE
from xcflow.steps import require_inputs, run_step
from xcflow.steps.remote_job import RemoteJob
from xcflow_components.nodes.kubernetes_api import RefusedError, TrainJobs
from xcflow_components.nodes.train_job import train_job

# Environment of a task that may start a TrainJob: what ``trainer_of`` gave, and its namespace.
TRAINER_VARIABLE = "XCFLOW_TRAINER"
NAMESPACE_VARIABLE = "XCFLOW_NAMESPACE"
POLL_S = 10.0


def run_on_nodes(name: str, config: Config, inputs: Mapping[str, Path], output: Path) -> None:
    """Run one step on folders: here, or on several nodes of the cluster that this task is of.

    A TrainJob that an earlier attempt of the task left is waited for, and an output that it left
    is taken. Whatever happens, the TrainJob does not outlive the task's attempt.

    Args:
        name: One of ``STEPS``.
        config: The configuration; ``distributed.nodes`` decides.
        inputs: Name of an input -> folder.
        output: The folder to write; it appears only when whole.

    Raises:
        ClusterError: The cluster cannot be reached, or refuses the job.
        DistributedError: The job failed, took too long, or was deleted.
        XcflowError: What the step raised in one of the ranks.
    """
    if config.distributed.nodes == 1 or TRAINER_VARIABLE not in os.environ:
        run_step(name, config, inputs, output)
        return
    require_inputs(name, inputs)
    job = RemoteJob.of(os.environ.get(RUN_KEY_VARIABLE, ""), name, config, inputs)
    with phase("nodes"):
        if not job.done:
            namespace = os.environ[NAMESPACE_VARIABLE]
            trainer = json.loads(os.environ[TRAINER_VARIABLE])
            document = train_job(job, name, config.distributed, trainer, namespace)
            jobs, end = TrainJobs(namespace), time.monotonic() + config.distributed.deadline_seconds
            there = _adoptable(jobs, document, end)
            if not there:
                with phase("send inputs"):
                    job.hand_in(name, config, inputs)
            with _deleted_at_end(jobs, job.name), phase("wait"):
                if not there:
                    jobs.create(document)
                _have_done(jobs, job, document, config.distributed, end)
        job.take(output)


@contextmanager
def _deleted_at_end(jobs: TrainJobs, name: str) -> Iterator[None]:
    """Delete the job after the block, also where a signal or an error ends it."""
    refused = False
    try:
        yield
    except RefusedError:
        refused = True  # perhaps the creation: then whatever comes of deleting needs no line
        raise
    finally:
        with held_back():
            try:
                jobs.delete(name)
            except ClusterError as error:
                if not refused:
                    log(f"{error}: kubectl delete trainjob {name}")


def _adoptable(jobs: TrainJobs, document: dict[str, Any], end: float) -> bool:
    """Whether an earlier attempt left the job in a state that is worth waiting for.

    One that failed is deleted first, for this is the next attempt.
    """
    name = document["metadata"]["name"]
    while found := jobs.get(name):
        labels = found["metadata"].get("labels") or {}
        if not document["metadata"]["labels"].items() <= labels.items():
            raise ClusterError(
                f"TrainJob {name} is there already and is none of xcflow's: rename or delete it"
            )
        leaving = "deletionTimestamp" in found["metadata"]
        if not leaving and "Failed" not in _conditions(found):
            log(f"TrainJob {name}: an earlier attempt started it")
            return True
        if not leaving:
            jobs.delete(name)
        if time.monotonic() > end:
            raise ClusterError(f"TrainJob {name} is being deleted and does not go: see its events")
        time.sleep(POLL_S)
    return False


def _have_done(
    jobs: TrainJobs,
    job: RemoteJob,
    document: dict[str, Any],
    settings: DistributedConfig,
    end: float,
) -> None:
    """Wait for the job's good end; one that lost a rank or a node is made again."""
    left = settings.max_restarts
    while reason := _failure(jobs, job, end, settings.deadline_seconds):
        if not left or job.error:
            raise job.failure(reason)
        left -= 1
        log(f"TrainJob {job.name} failed: {reason}: starting it again from the last checkpoint")
        jobs.delete(job.name)
        if not _adoptable(jobs, document, end):
            jobs.create(document)


def _failure(jobs: TrainJobs, job: RemoteJob, end: float, deadline_s: int) -> str:
    """Wait for the job's end, tell each change of its state, and give why it failed, if it did."""
    late = (
        f"TrainJob {job.name} took longer than distributed.deadline_seconds = {deadline_s}, "
        "waiting for room on the cluster included: raise it, and start the step again to go on "
        "from the last checkpoint"
    )
    told = ""
    while True:
        found = jobs.get(job.name)
        if found is None:
            raise DistributedError(
                f"TrainJob {job.name} was deleted by somebody else: start the step again to go on "
                "from the last checkpoint"
            )
        conditions, state = _conditions(found), _state(found)
        if state != told:
            log(f"TrainJob {job.name}: {state}")
            told = state
        if failed := conditions.get("Failed"):
            if failed.get("reason") == "DeadlineExceeded":
                raise DistributedError(late)
            return failed.get("message") or failed.get("reason") or "no reason given"
        if "Complete" in conditions:
            return ""
        if time.monotonic() > end:  # also of a job that waits in a queue, whose own clock stands
            raise DistributedError(late)
        time.sleep(POLL_S)


def _conditions(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The conditions that hold, by type."""
    conditions = found.get("status", {}).get("conditions") or []
    return {each["type"]: each for each in conditions if each.get("status") == "True"}


def _state(found: dict[str, Any]) -> str:
    """What a job does, in a word or two."""
    conditions = _conditions(found)
    for kind, words in (("Complete", "complete"), ("Failed", "failed"), ("Suspended", "queued")):
        if kind in conditions:
            return words
    jobs = found.get("status", {}).get("jobsStatus") or []
    if any(each.get("ready") for each in jobs):
        return "running"
    return "starting" if any(each.get("active") for each in jobs) else "created"
