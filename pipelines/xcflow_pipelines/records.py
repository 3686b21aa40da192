"""What a home folder knows of its runs and models."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from xcflow.artifact import MANIFEST, json_digest, read_manifest
from xcflow.config import Config, TrackingConfig
from xcflow.disk import write_text
from xcflow.errors import AccessError, ArtifactError, StoreAwayError, TrackingError
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.summary import flat, model_step
from xcflow.steps.flow import recorded_config
from xcflow.storage import fetch, is_remote
from xcflow_pipelines.shell import BadUsageError
from xcflow_pipelines.watcher import LocalRun

RECORD = "run.json"
TRACKING = "tracking.json"


@dataclass(frozen=True)
class RunRecord:
    """A finished local run.

    Attributes:
        name: Its name, here and in MLflow.
        mlflow_run: Its id in MLflow, empty where it was not recorded.
        folders: Name of a step -> its folder.
        tasks: ``name``, ``state`` and ``seconds`` (wall time) of each task, and ``times``: where
            the time of its step went when that ran, None where that is not known.
        seconds: Wall time.
        config: The sections of the configuration that say what the run is.
        identity: What was run, see ``run_identity``.
    """

    name: str
    mlflow_run: str
    folders: Mapping[str, str]
    tasks: tuple[Mapping[str, Any], ...]
    seconds: float
    config: Mapping[str, Any]
    identity: str

    @classmethod
    def of(cls, run: LocalRun, config: Config, identity: str) -> Self:
        """The record of a run that came to its end, with the configuration that it had."""
        summary = run.summary
        tasks = tuple(
            {
                "name": task.name,
                "state": task.state,
                "seconds": round(task.seconds, 2),
                "times": summary["times"].get(task.name) or None,
            }
            for task in run.tasks
        )
        return cls(
            run.name,
            summary["mlflow_run"],
            summary["folders"],
            tasks,
            round(run.seconds, 2),
            recorded_config(config),
            identity,
        )

    def bundle(self) -> Path:
        """The folder of its model, which must still be there.

        Raises:
            ArtifactError: It is gone.
        """
        return self.folder(model_step(self.folders))

    def write(self, home: Home) -> None:
        """Keep the record in the run's folder."""
        write_text(home.runs / self.name / RECORD, json.dumps(asdict(self), indent=2) + "\n")

    def folder(self, step: str) -> Path:
        """The folder of a step, which must still be there.

        Raises:
            ArtifactError: It is gone.
        """
        path = Path(self.folders[step])
        if not (path / MANIFEST).is_file():
            raise ArtifactError(f"run {self.name}: {path} is gone: run the pipeline again")
        return path


def remember_tracking(home: Home, tracking: TrackingConfig) -> None:
    """Keep where this home records to, for the commands that take no configuration."""
    write_text(home.root / TRACKING, json.dumps(asdict(tracking), indent=2) + "\n")


def tracking_of(home: Home) -> TrackingConfig:
    """Where the latest run of a home recorded to."""
    try:
        tree = json.loads((home.root / TRACKING).read_text(encoding="utf-8"))
        return TrackingConfig(**tree)
    except FileNotFoundError:
        return TrackingConfig()
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{home.root / TRACKING}: cannot be read: {error}") from error


def run_identity(config: Config, catalogue_digest: str, library_digest: str) -> str:
    """What a run's model and figures follow from: configuration, catalogue and code."""
    return json_digest([recorded_config(config), catalogue_digest, library_digest])


def find_identical(home: Home, identity: str) -> RunRecord | None:
    """A finished run of the same configuration, catalogue and code whose evaluation is there."""
    for record in _records(home):
        if record.identity == identity:
            with contextlib.suppress(ArtifactError):
                record.folder("evaluate_model")
                return record
    return None


def find_run(home: Home, name: str) -> RunRecord:
    """A local run by its name, a part of it, or the beginning of its id in MLflow.

    Raises:
        BadUsageError: There is no such run, or several.
    """
    found, known = [], _records(home)
    for record in known:
        if name in (record.name, record.mlflow_run):
            return record
        if name in record.name or record.mlflow_run.startswith(name):
            found.append(record)
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(record.name for record in found[:5])
        raise BadUsageError(f"{name} could be any of the runs {several}: give more of the name")
    latest = ", ".join(record.name for record in known[-5:])
    hint = f"known are {latest}" if known else "there is none yet"
    raise BadUsageError(f"no finished run {name} in {home.root}: {hint}")


def _records(home: Home) -> list[RunRecord]:
    """All finished runs by name.

    Raises:
        ArtifactError: A record is damaged, or of another version.
    """
    records = []
    for path in sorted(home.runs.glob(f"*/{RECORD}")):
        try:
            records.append(RunRecord(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            reason = f"{path}: cannot be read ({error}): remove the folder and run again"
            raise ArtifactError(reason) from error
    return records


@dataclass(frozen=True)
class MeasuredRun:
    """A run whose evaluation is at hand.

    Attributes:
        name: Its name; what the user called it where only its folder is known.
        folder: The folder of its evaluation.
        settings: Its configuration as ``section.key`` -> text; empty where none is recorded.
    """

    name: str
    folder: Path
    settings: Mapping[str, str]


def find_measured(home: Home, tracking: TrackingConfig, name: str) -> MeasuredRun:
    """A measured run.

    Args:
        home: The home folder.
        tracking: Where runs of other machines are recorded.
        name: The folder of an evaluation, here or under ``s3://``, or a run as ``find_run`` takes
            it, or the id of a run in the tracking store.

    Raises:
        BadUsageError: There is no such run.
        ArtifactError: Its evaluation is gone.
    """
    if folder := _folder_of(home, name):
        return MeasuredRun(name, folder, {})
    try:
        record = find_run(home, name)
    except BadUsageError as unknown:
        fetched = _fetch_evaluation(home, tracking, name)
        if fetched is None:
            raise unknown
        return MeasuredRun(*_tracked(home, tracking, name, fetched))
    return MeasuredRun(record.name, record.folder("evaluate_model"), flat(record.config))


@dataclass(frozen=True)
class JudgedRun:
    """A run that the gate has judged, with all that a promotion needs.

    Attributes:
        mlflow_run: Its id in MLflow, empty where it was not recorded.
        bundle: The folder of its model.
        evaluation: The folder of its evaluation.
        verdict: The folder of its verdict.
    """

    mlflow_run: str
    bundle: Path
    evaluation: Path
    verdict: Path


def find_judged(home: Home, tracking: TrackingConfig, name: str) -> JudgedRun:
    """A judged run, of this home or of another machine.

    Args:
        home: The home folder.
        tracking: Where runs of other machines are recorded.
        name: A run as ``find_run`` takes it, or the id of a run in the tracking store.

    Raises:
        BadUsageError: There is no such run.
        TrackingError: It cannot be fetched now.
        ArtifactError: A part of it is gone, or was altered.
    """
    try:
        record = find_run(home, name)
    except BadUsageError as unknown:
        fetched = _fetch_judged(home, tracking, name)
        if fetched is None:
            raise unknown
        return fetched
    judged = (record.folder(step) for step in ("evaluate_model", "gate_model"))
    return JudgedRun(record.mlflow_run, record.bundle(), *judged)


def find_catalogue(home: Home, tracking: TrackingConfig, name: str) -> Path:
    """The folder that knows of a catalogue: a data set, or a model as ``find_bundle`` takes it.

    Raises:
        BadUsageError: There is no such run.
        TrackingError: There is no such registered model.
    """
    return _folder_of(home, name) or find_bundle(home, tracking, name)


def find_bundle(home: Home, tracking: TrackingConfig, name: str) -> Path:
    """The folder of a model.

    Args:
        home: The home folder.
        tracking: Where models are registered.
        name: A folder, here or under ``s3://``, ``champion``, ``previous``, a version's number, or
            a run's name.

    Raises:
        BadUsageError: There is no such run.
        TrackingError: There is no such registered model.
    """
    if folder := _folder_of(home, name):
        read_manifest(folder, "bundle")
        return folder
    if name == names.CHAMPION or name == names.PREVIOUS or name.isdigit():
        return _registered_bundle(home, tracking, name)
    return find_run(home, name).bundle()


def _folder_of(home: Home, name: str) -> Path | None:
    """The folder that a name names by itself, here or under ``s3://``; None for other names."""
    if is_remote(name):
        return fetch(name, home.downloads, complete=True)
    return Path(name) if (Path(name) / MANIFEST).is_file() else None


def _registered_bundle(home: Home, tracking: TrackingConfig, name: str) -> Path:
    from xcflow.registry.bundles import fetch_bundle, quick_version

    known = quick_version(home, tracking, name)
    if known and (place := home.models / known[1] / MANIFEST).is_file():
        return place.parent
    from xcflow.registry.promotion import Registry
    from xcflow.registry.tracking import Tracker

    tracker = Tracker.at(tracking, home)
    registry = Registry(tracker, tracking.model_name, home)
    version = registry.version(name) if name.isdigit() else registry.aliased(name)
    if version is None:
        raise TrackingError(f"no {name} in {home.root} yet: run the pipeline first (xcflow run)")
    return fetch_bundle(tracker, home, version.digest)


def _fetch_evaluation(home: Home, tracking: TrackingConfig, run: str) -> Path | None:
    from xcflow.registry.tracking import Tracker

    try:
        tracker = Tracker.at(tracking, home)
        return tracker.fetch_folder(run, names.EVALUATION_PLACE, home.evaluations / run)
    except AccessError:
        raise
    except TrackingError:
        return None


def _fetch_judged(home: Home, tracking: TrackingConfig, run: str) -> JudgedRun | None:
    from xcflow.evaluation.verdict import Judgement
    from xcflow.registry.bundles import fetch_bundle
    from xcflow.registry.tracking import Tracker

    tracker = Tracker.at(tracking, home)
    try:
        verdict = tracker.fetch_folder(run, names.VERDICT_PLACE, home.verdicts / run)
        evaluation = tracker.fetch_folder(run, names.EVALUATION_PLACE, home.evaluations / run)
    except (AccessError, StoreAwayError):
        raise
    except TrackingError:
        return None
    bundle = fetch_bundle(tracker, home, Judgement.open(verdict).candidate)
    return JudgedRun(run, bundle, evaluation, verdict)


def _tracked(
    home: Home, tracking: TrackingConfig, run: str, folder: Path
) -> tuple[str, Path, dict[str, str]]:
    """Name, evaluation and configuration of a run in the tracking store."""
    from xcflow.registry.tracking import Tracker

    try:
        name, params = Tracker.at(tracking, home).description(run)
    except TrackingError:
        return run, folder, {}
    sections = {section.name for section in fields(Config)}
    return name, folder, {k: v for k, v in params.items() if k.partition(".")[0] in sections}
