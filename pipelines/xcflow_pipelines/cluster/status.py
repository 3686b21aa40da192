"""How a run on a cluster goes, and how it ended."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from xcflow.config import Config
from xcflow.errors import ClusterError, TrackingError
from xcflow.home import Home
from xcflow.progress import log
from xcflow.registry import names
from xcflow.registry.store import URI_VARIABLE
from xcflow_pipelines.cluster.endpoint import Endpoint, EndpointAwayError, RefusedError, equals
from xcflow_pipelines.cluster.experiments import required_experiment
from xcflow_pipelines.shell import FAILED, NOT_PROMOTED, OK

if TYPE_CHECKING:
    from xcflow.registry.tracking import Tracker

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
# The task that makes a model the champion; it is only there after a good verdict.
PROMOTION = "promote-model"
# How often a run is looked at, and how long the endpoint may be away meanwhile.
POLL_S = 10.0
PATIENCE_S = 900.0
_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# What the endpoint lists among the tasks and is none: drivers, pods, and groups of tasks.
_NO_TASK = r"root|executor|.*-driver|(exit-handler|condition|condition-branches|for-loop)-.*"


@dataclass(frozen=True)
class TaskState:
    """A task of a run.

    Attributes:
        name: The task.
        state: As Kubeflow calls it.
        seconds: How long it took or has been going on; None before its start.
        error: Why it failed, empty where it did not.
    """

    name: str
    state: str
    seconds: float | None
    error: str


@dataclass(frozen=True)
class RunState:
    """A run.

    Attributes:
        run_id: Its id.
        name: Its name.
        state: As Kubeflow calls it.
        seconds: How long it took or has been going on.
        error: Why it failed, or was refused to promote its model; empty where it was not.
        promoted: Whether its model became champion.
        tasks: Its tasks, in the order in which they began.
        page: Where a person sees it.
    """

    run_id: str
    name: str
    state: str
    seconds: float | None
    error: str
    promoted: bool
    tasks: tuple[TaskState, ...]
    page: str

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED

    @property
    def exit_code(self) -> int:
        """As of ``xcflow run``: promoted, failed, or the champion stays; 0 while it goes on."""
        if not self.ended:
            return OK
        if self.state != "SUCCEEDED":
            return FAILED
        return OK if self.promoted else NOT_PROMOTED


def run_state(config: Config, run: str) -> RunState:
    """How a run goes.

    Args:
        config: The configuration; says where the run is.
        run: Its id, or its name.

    Raises:
        ClusterError: There is no such run; or the endpoint does not answer, or refuses.
    """
    endpoint = Endpoint.of(config.cluster)
    endpoint.require_answer()
    return _with_refusal(config, state_of(endpoint, find_run(endpoint, config, run)))


def watch(config: Config, run: str) -> Iterator[RunState]:
    """How a run goes, again whenever anything has changed, until it is over.

    Raises:
        ClusterError: There is no such run; or the endpoint is away for too long, or refuses.
    """
    endpoint = Endpoint.of(config.cluster)
    endpoint.require_answer()
    run_id = find_run(endpoint, config, run).run_id
    shown, answered = None, time.monotonic()
    while True:
        try:
            state = state_of(endpoint, endpoint.ask(endpoint.runs.run_service_get_run, run_id))
        except EndpointAwayError as error:
            if time.monotonic() - answered > PATIENCE_S:
                raise
            log(f"{error}; the run goes on without being watched")
        else:
            answered = time.monotonic()
            states = (state.state, [(task.name, task.state) for task in state.tasks])
            if states != shown:
                shown = states
                state = _with_refusal(config, state)
                yield state
            if state.ended:
                return
        time.sleep(POLL_S)


def named_tracker(config: Config, home: Home) -> Tracker | None:
    """The tracking store of a run, None where neither configuration nor environment names one."""
    if not (config.tracking.uri or os.environ.get(URI_VARIABLE)):
        return None
    from xcflow.registry.tracking import Tracker

    return Tracker.at(config.tracking, home)


def _with_refusal(config: Config, state: RunState) -> RunState:
    """A state with what only the tracking store knows: a promotion that is refused ends well."""
    if not state.promoted:
        return state
    try:
        tracker = named_tracker(config, Home.at())
        if tracker is None:
            return state
        tags = tracker.tags(tracker.find_run(state.run_id))
    except TrackingError as error:
        log(f"{error}; whether the promotion was refused is not known")
        return state
    refused = tags.get(names.NOT_PROMOTED, "")
    return replace(state, promoted=not refused, error=refused or state.error)


def find_run(endpoint: Endpoint, config: Config, run: str) -> Any:
    """A run by its id or its name, the latest of that name.

    Raises:
        ClusterError: There is none; or the endpoint does not answer, or refuses.
    """
    if re.fullmatch(_ID, run):
        try:
            return endpoint.ask(endpoint.runs.run_service_get_run, run)
        except RefusedError as error:
            if error.status != 404:
                raise
        raise ClusterError(f"{endpoint.host}: no run with the id {run}")
    experiment = required_experiment(endpoint, config.tracking.experiment)
    found = endpoint.listed(
        endpoint.runs.run_service_list_runs,
        "runs",
        experiment_id=experiment,
        filter=equals("display_name", run),
    )
    latest = max(found, key=lambda row: (row.created_at, row.run_id), default=None)
    if latest is None:
        where = f"experiment {config.tracking.experiment!r}"
        raise ClusterError(f"{endpoint.host}: no run {run!r} in {where}: give its name or its id")
    # A listing need not hold the tasks.
    return endpoint.ask(endpoint.runs.run_service_get_run, latest.run_id)


def state_of(endpoint: Endpoint, run: Any) -> RunState:
    """The state of a run as the endpoint describes it."""
    listed = (run.run_details.task_details if run.run_details else None) or ()
    tasks = [task for task in listed if not re.fullmatch(_NO_TASK, task.display_name or "root")]
    tasks.sort(key=lambda task: task.start_time or datetime.max.replace(tzinfo=UTC))
    states = tuple(_task(task) for task in tasks)
    return RunState(
        run_id=run.run_id,
        name=run.display_name,
        state=run.state or "PENDING",
        seconds=_seconds(run.created_at, run.finished_at if run.state in ENDED else None),
        error=_error(run, states),
        promoted=any(task.name == PROMOTION and task.state == "SUCCEEDED" for task in states),
        tasks=states,
        page=endpoint.run_page(run.run_id),
    )


def _task(task: Any) -> TaskState:
    return TaskState(
        name=task.display_name,
        state=task.state or "PENDING",
        seconds=_seconds(task.start_time, task.end_time),
        error=_message(task),
    )


def _error(run: Any, tasks: tuple[TaskState, ...]) -> str:
    if run.state != "FAILED":
        return ""
    failed = [f"{t.name}: {t.error or 'failed'}" for t in tasks if t.state == "FAILED"]
    return "; ".join(failed) or _message(run) or "failed"


def _message(thing: Any) -> str:
    return " ".join((thing.error.message or "").split()) if thing.error else ""


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    """From start to end, or to now. The endpoint states the beginning of time for what is unset."""
    if start is None or start.year < 2000:
        return None
    ended = end is not None and end.year >= 2000
    last = end if end is not None and ended else datetime.now(UTC)
    return round(max((last - start).total_seconds(), 0.0), 1)
