"""The commands `xcflow run` and `xcflow refresh`: a pipeline run here, and what came of it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from xcflow.config import Config
from xcflow.errors import XcflowError
from xcflow.home import Home
from xcflow.interruption import Interruption
from xcflow.library import library_digest
from xcflow.progress import INTERVAL_VARIABLE, log
from xcflow.registry.names import PROMOTE, REFRESH
from xcflow.registry.outbox import Outbox
from xcflow_pipelines.local import new_run_name, refresh_label, run_label, run_locally
from xcflow_pipelines.measure import catalogue_folder
from xcflow_pipelines.records import RunRecord, remember_tracking, run_identity
from xcflow_pipelines.shell import NOT_PROMOTED, OK, command_name
from xcflow_pipelines.watcher import LocalRun

PROMOTION = "promotion.json"
# Name of a page beside a run's record -> the step that wrote it.
REPORTS = {"data": "check_drift", "evaluation": "evaluate_model", "verdict": "gate_model"}


def retrain(config: Config, profile: str, data: str, home: Home, fresh: bool, as_json: bool) -> int:
    """Run the pipeline and tell what came of it; returns the exit code.

    Args:
        config: The configuration.
        profile: Where it came from; names the run.
        data: The catalogue's folder or URI; empty for the bundled one.
        home: Gets everything that is written.
        fresh: Whether to take nothing from the cache.
        as_json: Whether to answer with JSON on standard output.
    """
    return _told(*run_pipeline(config, Path(profile).stem, data, home, fresh=fresh), as_json)


def refresh(config: Config, data: str, home: Home, fresh: bool, as_json: bool) -> int:
    """Let the champion take in a catalogue and tell what came of it; returns the exit code.

    Args:
        config: The configuration; how the champion was trained, the champion knows itself.
        data: The catalogue's folder or URI; empty for the bundled one.
        home: Gets everything that is written.
        fresh: Whether to take nothing from the cache.
        as_json: Whether to answer with JSON on standard output.
    """
    return _told(*run_pipeline(config, "", data, home, fresh=fresh, refresh=True), as_json)


def _told(run: LocalRun, record: RunRecord, as_json: bool) -> int:
    outcome = _outcome(run, record)
    if as_json:
        typer.echo(json.dumps(outcome, indent=2, ensure_ascii=False))
    else:
        _tell(run, outcome)
    promoted = outcome["verdict"] == PROMOTE and "refused" not in outcome["promotion"]
    return OK if promoted else NOT_PROMOTED


def run_pipeline(
    config: Config,
    label: str,
    data: str,
    home: Home,
    *,
    fresh: bool = False,
    refresh: bool = False,
) -> tuple[LocalRun, RunRecord]:
    """Run a pipeline to its end, show how it goes on, and keep its record.

    Args:
        config: The configuration.
        label: The profile, for the name of a training run.
        data: The catalogue's folder or URI; empty for the bundled one.
        home: Gets everything that is written.
        fresh: Whether to take nothing from the cache.
        refresh: Whether the champion is refreshed instead of a model trained.

    Raises:
        Interruption: The user stopped it.
        XcflowError: A step failed.
    """
    from xcflow.catalogue.readers import catalogue_digest
    from xcflow_pipelines.teller import Teller

    catalogue = catalogue_folder(data, home)
    digests = catalogue_digest(catalogue, config.data.format), library_digest()
    named = refresh_label(catalogue.name) if refresh else run_label(catalogue.name, label, config)
    name = new_run_name(home, named)
    key = f"{name}-{secrets.token_hex(4)}"
    teller = Teller()
    if teller.is_live:
        os.environ[INTERVAL_VARIABLE] = "1"
    try:
        run = run_locally(
            config,
            name=name,
            key=key,
            catalogue=catalogue,
            catalogue_digest=digests[0],
            library_digest=digests[1],
            home=home,
            fresh=fresh,
            refresh=refresh,
            listener=teller,
        )
    except Interruption as interruption:
        raise Interruption(interruption.number, f"run {name} was interrupted") from None
    finally:
        teller.stop()
        if waiting := len(Outbox(home).waiting()):
            log(f"{waiting} records wait for the tracking store: xcflow sync")
    if failed := run.failed:
        raise XcflowError(f"step {failed.name} failed: {failed.error}")
    identity = run_identity(config, *digests)
    # What comes of a refresh hangs on the champion too: no run is found again by this identity.
    record = RunRecord.of(run, config, f"{REFRESH} {name}" if refresh else identity)
    record.write(home)
    remember_tracking(home, config.tracking)
    return run, record


def _outcome(run: LocalRun, record: RunRecord) -> dict[str, Any]:
    from xcflow.evaluation.result import Evaluation
    from xcflow.evaluation.verdict import Judgement

    judgement = Judgement.open(record.folder("gate_model"))
    evaluation = Evaluation.open(record.folder("evaluate_model"))
    return {
        "run": record.name,
        "mlflow_run": record.mlflow_run,
        "verdict": judgement.verdict,
        "reasons": list(judgement.reasons),
        "promotion": _promotion(run),
        "models": evaluation.metrics["models"],
        "reports": {name: str(page) for name, page in _pages(run, record).items()},
        "bundle": str(record.bundle()),
        "seconds": record.seconds,
        "tasks": list(record.tasks),
    }


def _pages(run: LocalRun, record: RunRecord) -> dict[str, Path]:
    """The run's pages, by short paths beside its record."""
    pages = {}
    for name, step in REPORTS.items():
        pages[name] = page = run.folder / f"{name}.html"
        page.symlink_to(record.folder(step) / "report.html")
    return pages


def _promotion(run: LocalRun) -> dict[str, Any]:
    """What the promotion moved, or why it was ``refused``; empty where it moved nothing."""
    for path in run.folder.glob(f"*/promote-model/*/{PROMOTION}"):
        moved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return moved
    return {}


def _tell(run: LocalRun, outcome: Mapping[str, Any]) -> None:
    from xcflow_pipelines.teller import (
        command_lines,
        console,
        metrics_table,
        paths_lines,
    )
    from xcflow_pipelines.times import times_table

    output = console()
    say: Callable[[str], None] = typer.echo
    say("")
    output.print(metrics_table(outcome["models"]))
    say(f"\n{outcome['verdict']}  {_in_words(outcome)}")
    for reason in outcome["reasons"]:
        output.print(f"  - {reason}", markup=False)
    say("")
    for line in paths_lines(outcome["reports"]):
        say(line)
    say("")
    output.print(times_table(outcome["tasks"], outcome["seconds"]))
    say("\nnext:")
    for line in command_lines(_next_commands(outcome)):
        say(line)


def _in_words(outcome: Mapping[str, Any]) -> str:
    if refused := outcome["promotion"].get("refused"):
        return f"the champion stays: {refused}"
    if moved := outcome["promotion"]:
        before = f" (before: version {moved['from_version']})" if moved["from_version"] else ""
        return f"version {moved['version']} is the champion{before}"
    if outcome["verdict"] == PROMOTE:
        return "this model is the champion already"
    return "the champion stays"


def _next_commands(outcome: Mapping[str, Any]) -> list[tuple[str, str]]:
    run, xcflow, refused = outcome["run"], command_name(), "refused" in outcome["promotion"]
    promoted = outcome["verdict"] == PROMOTE and not refused
    model = "" if promoted else f" --model {run}"
    commands = [
        (f'{xcflow} predict "a text"{model}', "ask this model"),
        (f"{xcflow} serve{model}", "over HTTP, and on a page"),
    ]
    if refused:
        commands.append((f"{xcflow} promote {outcome['mlflow_run']}", "as a user who may"))
    elif not promoted:
        override = f'{xcflow} promote {run} --override --reason "..."'
        commands.append((override, "promote it all the same"))
    return [
        *commands,
        (f"{xcflow} mlflow", "see and compare all runs"),
        (f"{xcflow} history", "see who was champion"),
    ]
