"""The command `xcflow pipeline trigger`: once, or again and again."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

import typer

from xcflow.catalogue.outline import Outline
from xcflow.config import Config
from xcflow.errors import XcflowError
from xcflow.home import Home
from xcflow.registry.tracking import Tracker
from xcflow_pipelines import retraining
from xcflow_pipelines.cluster.cancelling import cancel
from xcflow_pipelines.cluster.compiling import compile_package, require_known
from xcflow_pipelines.cluster.endpoint import Endpoint, RefusedError
from xcflow_pipelines.cluster.status import ENDED
from xcflow_pipelines.cluster.submitting import require_reachable, submit
from xcflow_pipelines.cluster.trigger_telling import as_tree, in_words
from xcflow_pipelines.cluster.triggering import Outcome, Run, Trigger
from xcflow_pipelines.cluster.uploading import upload
from xcflow_pipelines.shell import OK, BadUsageError, complain

# What a run is called here that was removed from Kubeflow since.
_REMOVED = "REMOVED"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        catalogue: The URI of the catalogue.
        profile: Where the configuration came from.
        pipeline: Name of the pipeline; empty for the retraining one.
        again: Whether another run is wanted where one is over.
        dry_run: Whether to submit nothing.
    """

    catalogue: str
    profile: str
    pipeline: str = ""
    again: bool = False
    dry_run: bool = False


class Kubeflow:
    """The cluster of a configuration, as triggers see it.

    Args:
        config: The configuration of the runs.
        profile: Where it came from.
        home: Where a tracking store is looked for.
        pipeline: Name of the pipeline; empty for the retraining one.
    """

    def __init__(self, config: Config, profile: str, home: Home, pipeline: str = "") -> None:
        self._config = config
        self._profile = profile
        self._home = home
        self._pipeline = pipeline
        self._endpoint = Endpoint.of(config.cluster)

    def prepare(self, outline: Outline) -> None:
        """See ``triggering.Cluster``."""
        require_reachable(outline.uri)
        self._endpoint.require_answer()
        upload(self._endpoint, compile_package(self._config, self._pipeline))

    def submit(self, key: str, outline: Outline) -> Run:
        """See ``triggering.Cluster``."""
        run = submit(
            self._config,
            self._profile,
            outline.uri,
            outline.content,
            key=key,
            pipeline=self._pipeline,
        )
        return Run(run.run_id, run.name)

    def state(self, run: str) -> str:
        """See ``triggering.Cluster``."""
        service = self._endpoint.runs
        try:
            return str(self._endpoint.ask(service.run_service_get_run, run).state)
        except RefusedError as error:
            if error.status != 404:
                raise
            return _REMOVED

    def is_over(self, state: str) -> bool:
        """See ``triggering.Cluster``."""
        return state in (*ENDED, _REMOVED)

    def cancel(self, run: str) -> None:
        """See ``triggering.Cluster``."""
        cancel(self._config, run, self._home)


def trigger_run(
    config: Config, request: Request, home: Home, *, watch_s: float, as_json: bool
) -> int:
    """Submit a run where one is due, and say what came of it; returns the exit code.

    Args:
        config: The configuration of the runs.
        request: What is asked for.
        home: Keeps bundles.
        watch_s: Seconds between two looks; 0 for a single one.
        as_json: Whether to answer in JSON.

    Raises:
        BadUsageError: What is asked for cannot be together.
        XcflowError: The catalogue, the tracking store or the cluster cannot be asked, or refuses.
    """
    if not request.catalogue:
        raise BadUsageError("--catalogue is empty: name the folder, as s3://bucket/prefix")
    if request.again and watch_s:
        raise BadUsageError("--again with --watch would submit runs without end: give one of them")
    require_known(request.pipeline)
    # By one name, or its runs would be claimed twice.
    pipeline = "" if request.pipeline == retraining.NAME else request.pipeline
    cluster = Kubeflow(config, request.profile, home, pipeline)
    tracker = Tracker.at(config.tracking, home)
    trigger = Trigger(config, tracker, home, cluster, pipeline=pipeline)
    if watch_s:
        _watch(trigger, request, watch_s, as_json)
    _tell(_pull(trigger, request), as_json, indent=2)
    return OK


def _watch(trigger: Trigger, request: Request, watch_s: float, as_json: bool) -> NoReturn:
    """Look again and again; what is as it was is told once."""
    told: object = None
    while True:
        try:
            outcome = _pull(trigger, request)
        except XcflowError as error:
            if str(error) != told:
                complain(error)
            told = str(error)
        else:
            run = outcome.submission.run if outcome.submission else ""
            news = (outcome.state, outcome.outline.digest, run, outcome.run_state)
            if news != told:
                _tell(outcome, as_json)
            told = news
        sys.stdout.flush()
        time.sleep(watch_s)


def _pull(trigger: Trigger, request: Request) -> Outcome:
    return trigger.pull(request.catalogue, again=request.again, dry_run=request.dry_run)


def _tell(outcome: Outcome, as_json: bool, indent: int | None = None) -> None:
    if as_json:
        typer.echo(json.dumps(as_tree(outcome), indent=indent, ensure_ascii=False))
        return
    for line in in_words(outcome):
        typer.echo(line)
