"""Ending a run on a cluster before its time."""

from __future__ import annotations

from dataclasses import dataclass

from xcflow.config import Config
from xcflow.errors import TrackingError
from xcflow.home import Home
from xcflow.progress import log
from xcflow_pipelines.cluster.endpoint import Endpoint, RefusedError
from xcflow_pipelines.cluster.status import RunState, find_run, named_tracker, state_of


@dataclass(frozen=True)
class Cancelled:
    """What became of the wish.

    Attributes:
        run: The run as it is now.
        was_over: Whether it had ended before.
    """

    run: RunState
    was_over: bool


def cancel(config: Config, run: str, home: Home) -> Cancelled:
    """End a run, unless it is over; what it has finished stays in the cache.

    Args:
        config: The configuration; says where the run is.
        run: Its id, or its name.
        home: Where a tracking store is looked for.

    Raises:
        ClusterError: There is no such run; or the endpoint does not answer, or refuses.
    """
    endpoint = Endpoint.of(config.cluster)
    endpoint.require_answer()
    before = state_of(endpoint, find_run(endpoint, config, run))
    if before.ended:
        return Cancelled(before, was_over=True)
    try:
        endpoint.ask(endpoint.runs.run_service_terminate_run, before.run_id)
    except RefusedError:
        now = state_of(endpoint, find_run(endpoint, config, before.run_id))
        if not now.ended:  # it did not end of itself meanwhile
            raise
        return Cancelled(now, was_over=True)
    _record(config, home, before.run_id)
    return Cancelled(state_of(endpoint, find_run(endpoint, config, before.run_id)), was_over=False)


def _record(config: Config, home: Home, run_id: str) -> None:
    """Close the run in MLflow: its last task, which does so otherwise, may not come to it."""
    from xcflow.registry import operations

    try:
        if tracker := named_tracker(config, home):
            operations.interrupt_run(tracker, run_id, "cancelled")
    except TrackingError as error:
        log(f"{error}; a run that is open there stays so")
