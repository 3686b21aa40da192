"""Schedules: each is one enabled recurring run, whose name carries a digest of what it does.

The endpoint cannot change a recurring run. So a changed schedule is a new one beside the old, and
only when the new one is in force is the old one switched off: killed at any moment, the same
command goes on from there, and no night is left out. What was switched off is kept: deleting it
would take the runs that it has started with it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from xcflow.artifact import json_digest
from xcflow.config import Config
from xcflow.errors import ClusterError
from xcflow.steps.flow import START_TIME
from xcflow_pipelines.cluster.compiling import DIGEST_CHARS, compile_package
from xcflow_pipelines.cluster.cron import checked_cron
from xcflow_pipelines.cluster.endpoint import Endpoint
from xcflow_pipelines.cluster.experiments import find_experiment, made_experiment
from xcflow_pipelines.cluster.submitting import (
    cluster_run_label,
    require_reachable,
    run_arguments,
    runnable,
)
from xcflow_pipelines.cluster.uploading import Version, upload
from xcflow_pipelines.shell import BadUsageError

DEFAULT_NAME = "retraining"
# How long a new recurring run may take until it is in force.
PATIENCE_S = 60.0
POLL_S = 1.0
_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


@dataclass(frozen=True)
class Schedule:
    """A recurring run on the endpoint.

    Attributes:
        name: Name of the schedule.
        recurring_run: Its name there, with the digest of what it does.
        recurring_run_id: Its id there.
        cron: When it starts a run, in UTC.
        catalogue: The catalogue that its runs read, as it stands there then.
        enabled: Whether it is in force.
    """

    name: str
    recurring_run: str
    recurring_run_id: str
    cron: str
    catalogue: str
    enabled: bool


@dataclass(frozen=True)
class Scheduled:
    """What a command has made of a schedule.

    Attributes:
        schedule: The schedule as it is now.
        changed: Whether anything had to be done.
        replaced: Names of the recurring runs that were switched off.
    """

    schedule: Schedule
    changed: bool
    replaced: tuple[str, ...]


def schedule(
    config: Config,
    profile: str,
    catalogue_uri: str,
    cron: str,
    *,
    name: str = DEFAULT_NAME,
    pipeline: str = "",
) -> Scheduled:
    """Have runs started at certain times, one at a time, without making up for missed times.

    Args:
        config: The configuration.
        profile: Where it came from; names the runs.
        catalogue_uri: Where the catalogue stands, as ``s3://bucket/prefix``.
        cron: When; see ``checked_cron``.
        name: Name of the schedule; a schedule of this name is replaced.
        pipeline: Name of the pipeline; empty for the retraining one.

    Raises:
        BadUsageError: The times or the name are wrong.
        ClusterError: The endpoint does not answer or refuses. The same command goes on from there.
    """
    times = checked_cron(cron)
    _require_name(name)
    require_reachable(catalogue_uri)
    endpoint = Endpoint.of(config.cluster)
    endpoint.require_answer()
    package = compile_package(config, pipeline)
    version = upload(endpoint, package)
    experiment = made_experiment(endpoint, config.tracking.experiment)
    label = cluster_run_label(package.pipeline, config, profile, catalogue_uri)
    # The digest of the catalogue is left to each run to look up.
    arguments = run_arguments(config, f"{label}-{START_TIME}", catalogue_uri, "")
    wanted = runnable(config, version, arguments)
    title = f"{name}-{_digest(config, version, arguments, times)}"

    def find() -> Any:
        rows = _rows(endpoint, experiment, name)
        return next((row for row in rows if row.display_name == title), None)

    def create() -> Any:
        return _create(endpoint, experiment, title, times, wanted)

    row, created = endpoint.settle(find, create)
    enabled = created or row.status == "ENABLED"
    if not enabled:
        service = endpoint.recurring_runs
        endpoint.ask(service.recurring_run_service_enable_recurring_run, row.recurring_run_id)
    _wait_until_enabled(endpoint, row.recurring_run_id, title)
    # Somebody else may have made the same one at the same time: the first one stays.
    kept = find()
    rows = _rows(endpoint, experiment, name)
    others = [r for r in rows if r.recurring_run_id != kept.recurring_run_id]
    replaced = _disable(endpoint, others)
    _require_alone(endpoint, experiment, name, title)
    return Scheduled(
        _schedule(kept, enabled=True), created or not enabled or bool(replaced), replaced
    )


def schedules(config: Config) -> list[Schedule]:
    """All schedules of the experiment, also those that are switched off, oldest first.

    Raises:
        ClusterError: The endpoint does not answer, or refuses.
    """
    endpoint = Endpoint.of(config.cluster)
    endpoint.require_answer()
    experiment = find_experiment(endpoint, config.tracking.experiment)
    rows = _rows(endpoint, experiment) if experiment else []
    return [_schedule(row, enabled=row.status == "ENABLED") for row in rows]


def unschedule(config: Config, name: str) -> tuple[str, ...]:
    """Switch a schedule off; runs that it has started go on.

    Returns:
        The names of the recurring runs that were switched off; none where it was off already.

    Raises:
        ClusterError: There is no such schedule; or the endpoint does not answer, or refuses.
    """
    endpoint = Endpoint.of(config.cluster)
    endpoint.require_answer()
    experiment = find_experiment(endpoint, config.tracking.experiment)
    rows = _rows(endpoint, experiment, name) if experiment else []
    if not rows:
        raise ClusterError(
            f"{endpoint.host}: no schedule {name!r} (all of them: xcflow pipeline schedule)"
        )
    return _disable(endpoint, rows)


def _require_name(name: str) -> None:
    if not re.fullmatch(_NAME, name):
        raise BadUsageError(
            f"--name {name!r}: must be lower-case letters, digits and dashes, at most 63"
        )


def _digest(config: Config, version: Version, arguments: dict[str, str], times: str) -> str:
    """The identity of what a schedule does."""
    cluster = config.cluster
    what = [version.name, arguments, times, cluster.service_account, cluster.pipeline_root]
    return json_digest(what)[:DIGEST_CHARS]


def _rows(endpoint: Endpoint, experiment: str, name: str = "") -> list[Any]:
    """The recurring runs of a schedule, or of all schedules, the first one first."""
    listing = endpoint.recurring_runs.recurring_run_service_list_recurring_runs
    rows = endpoint.listed(listing, "recurring_runs", experiment_id=experiment)
    of_ours = rf"{re.escape(name) if name else _NAME}-[0-9a-f]{{{DIGEST_CHARS}}}"
    return sorted(
        (row for row in rows if re.fullmatch(of_ours, row.display_name) and _cron(row)),
        key=lambda row: (row.created_at, row.recurring_run_id),
    )


def _cron(row: Any) -> str:
    """The times of a recurring run, empty where it has an interval instead."""
    times = row.trigger.cron_schedule if row.trigger else None
    return times.cron if times else ""


def _create(
    endpoint: Endpoint, experiment: str, title: str, times: str, wanted: dict[str, Any]
) -> Any:
    import kfp_server_api as kfp

    body = kfp.V2beta1RecurringRun(
        display_name=title,
        experiment_id=experiment,
        trigger=kfp.V2beta1Trigger(cron_schedule=kfp.V2beta1CronSchedule(cron=times)),
        mode=kfp.RecurringRunMode.ENABLE,
        max_concurrency="1",
        no_catchup=True,
        **wanted,
        **endpoint.in_namespace,
    )
    service = endpoint.recurring_runs
    return endpoint.ask_once(service.recurring_run_service_create_recurring_run, body)


def _wait_until_enabled(endpoint: Endpoint, row_id: str, title: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        service = endpoint.recurring_runs
        row = endpoint.ask(service.recurring_run_service_get_recurring_run, row_id)
        if row.status == "ENABLED":
            return
        if time.monotonic() > end:
            raise ClusterError(
                f"{endpoint.host}: recurring run {title} is not in force after {PATIENCE_S:.0f} s "
                f"({row.status}): what was scheduled before stays so; the same command goes on"
            )
        time.sleep(POLL_S)


def _disable(endpoint: Endpoint, rows: list[Any]) -> tuple[str, ...]:
    enabled = [row for row in rows if row.status != "DISABLED"]
    for row in enabled:
        service = endpoint.recurring_runs
        endpoint.ask(service.recurring_run_service_disable_recurring_run, row.recurring_run_id)
    return tuple(row.display_name for row in enabled)


def _require_alone(endpoint: Endpoint, experiment: str, name: str, title: str) -> None:
    enabled = [r.display_name for r in _rows(endpoint, experiment, name) if r.status == "ENABLED"]
    if enabled != [title]:
        raise ClusterError(
            f"{endpoint.host}: schedule {name} was changed by somebody else at the same time (in "
            f"force: {', '.join(enabled) or 'none'}): give the command again"
        )


def _schedule(row: Any, *, enabled: bool) -> Schedule:
    parameters = (row.runtime_config.parameters if row.runtime_config else None) or {}
    return Schedule(
        name=row.display_name[: -DIGEST_CHARS - 1],
        recurring_run=row.display_name,
        recurring_run_id=row.recurring_run_id,
        cron=_cron(row),
        catalogue=str(parameters.get("catalogue_uri", "")),
        enabled=enabled,
    )
