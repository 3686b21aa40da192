"""Runs in MLflow: one for each run of the pipeline, a child for each of its steps.

The tracking store is given by the environment (MLflow's own variables), so that it is no argument
of a task and no part of a cache key.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import xcflow
from xcflow.artifact import read_manifest
from xcflow.config import TrackingConfig
from xcflow.disk import claimed, replace_folder
from xcflow.errors import TrackingError, XcflowError
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.credentials import Credentials
from xcflow.registry.pyfunc import save_pyfunc
from xcflow.registry.store import (
    URI_VARIABLE,
    connect,
    patient,
    public_uri,
)
from xcflow.registry.summary import curves, flat, metric_name, run_curves, sampled, step_figures
from xcflow.registry.trouble import trouble_with
from xcflow.registry.view import VIEW_TAGS, view_path

if TYPE_CHECKING:
    from mlflow.entities import Dataset, Run

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
RUN_ID_VARIABLE = "MLFLOW_RUN_ID"

# Bounds of MLflow's batches and of what its pages draw quickly.
BATCH_METRICS = 1000
BATCH_PARAMS = 100
CURVE_POINTS = 500
DIGEST_CHARS = 12
METRIC_DIGITS = 5
# Which of its two sets of pages MLflow shows.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development", **VIEW_TAGS}
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
# By this tag a logged model's page links to the registered versions that are made of it.
MODEL_VERSIONS = "mlflow.modelVersions"


def tracking_uri(config: TrackingConfig, home: Home) -> str:
    """The tracking store: the configured one, else MLflow's variable, else sqlite in the home."""
    return config.uri or os.environ.get(URI_VARIABLE) or f"sqlite:///{home.database}"


def tracking_environment(config: TrackingConfig) -> dict[str, str]:
    """What of a configuration must stand in the environment of a task; empty by default."""
    default = TrackingConfig()
    values = {URI_VARIABLE: (config.uri, default.uri)}
    values[EXPERIMENT_VARIABLE] = (config.experiment, default.experiment)
    return {name: value for name, (value, usual) in values.items() if value != usual}


class Tracker:
    """One experiment of a tracking store. Any trouble with the store is a ``TrackingError``.

    Args:
        uri: The tracking store.
        experiment: Name of the experiment; made when it is first needed.
        artifacts: Where a new experiment keeps its files; by default the store decides.
    """

    def __init__(self, uri: str, experiment: str, artifacts: Path | None = None) -> None:
        self.uri = uri
        self.experiment = experiment
        self._artifacts = artifacts
        self._time_ms: int | None = None
        with self.trouble():
            self.client = connect(uri)

    @classmethod
    def at(cls, config: TrackingConfig, home: Home) -> Self:
        """The tracker of a configuration."""
        uri = tracking_uri(config, home)
        if uri == f"sqlite:///{home.database}":
            home.root.mkdir(parents=True, exist_ok=True)
        local = uri.startswith("sqlite:")
        return cls(uri, config.experiment, home.artifacts if local else None)

    @classmethod
    def from_environment(cls) -> Self:
        """The tracker of MLflow's own variables."""
        experiment = os.environ.get(EXPERIMENT_VARIABLE) or TrackingConfig().experiment
        return cls.at(TrackingConfig(experiment=experiment), Home.at())

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """Turn whatever the store's client raises into one line."""
        try:
            yield
        except XcflowError:
            raise
        except Exception as error:
            raise trouble_with(self.uri, error) from error

    @contextmanager
    def as_of(self, seconds: float) -> Iterator[None]:
        """Record the block as what happened at a time, in seconds since 1970."""
        self._time_ms = int(seconds * 1000)
        try:
            yield
        finally:
            self._time_ms = None

    def _now_ms(self) -> int:
        return int(time.time() * 1000) if self._time_ms is None else self._time_ms

    def open_run(
        self, name: str, key: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Make the run of a pipeline, or join the one that ``$MLFLOW_RUN_ID`` names.

        Args:
            name: What the run is called where it is made here.
            key: By what the pipeline's tasks will find it.
            params: The configuration, nested.
            tags: Further tags.

        Returns:
            The run's id.
        """
        joined = os.environ.get(RUN_ID_VARIABLE)
        with self.trouble():
            if joined:
                run = joined
            else:
                found = self._find(names.RUN_KEY, key)
                run = str(found.info.run_id) if found else self._create(name)
            joined_tag = {names.JOINED: "true"} if joined else {}
            self._log(run, params=flat(params), tags={names.RUN_KEY: key, **joined_tag, **tags})
        return run

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        """Add facts to search a run by."""
        with self.trouble():
            self._log(run, tags=tags)

    def find_run(self, key: str) -> str:
        """The id of a pipeline's run: the one that ``$MLFLOW_RUN_ID`` names, else that of ``key``.

        Raises:
            TrackingError: There is none.
        """
        if joined := os.environ.get(RUN_ID_VARIABLE):
            return joined
        with self.trouble():
            run = self._find(names.RUN_KEY, key)
        if run is None:
            raise TrackingError(f"no run with the key {key!r} in {public_uri(self.uri)}")
        return str(run.info.run_id)

    def start_step(
        self,
        parent: str,
        step: str,
        step_key: str,
        params: Mapping[str, Any],
        *,
        cached: bool = False,
    ) -> str:
        """Make the child run of a step where its key has none yet; returns its id."""
        tags = {names.STEP_KEY: step_key}
        with self.trouble():
            experiment = self.client.get_run(parent).info.experiment_id
            found = self._find(names.STEP_KEY, step_key, experiment)
            title = f"{step} (from cache)" if cached else step
            tags |= {names.STEP: step, names.CACHED: str(cached).lower(), PARENT: parent}
            run = found.info.run_id if found else self._create(title, tags, experiment)
            self._log(run, params=flat(params))
        return str(run)

    def find_step(self, parent: str, step_key: str) -> str:
        """The id of the child run of a step.

        Raises:
            TrackingError: There is none.
        """
        with self.trouble():
            experiment = self.client.get_run(parent).info.experiment_id
            run = self._find(names.STEP_KEY, step_key, experiment)
        if run is None:
            raise TrackingError(f"no step with the key {step_key!r} in {public_uri(self.uri)}")
        return str(run.info.run_id)

    def steps(self, parent: str) -> dict[str, Run]:
        """Name of a step -> its child run, the latest where there are several."""
        with self.trouble():
            where = f"tags.`{PARENT}` = '{parent}'"
            experiment = self.client.get_run(parent).info.experiment_id
            order = ["attributes.start_time ASC"]
            runs = self.client.search_runs([experiment], where, order_by=order)
        return {run.data.tags[names.STEP]: run for run in runs if names.STEP in run.data.tags}

    def log_step(self, run: str, folder: Path) -> None:
        """Record a step's folder: curves, main figures, reports, the digest."""
        manifest = read_manifest(folder)
        with self.trouble():
            for name, points in curves(folder).items():
                self._log_curve(run, metric_name(name), points)
            tags = {"digest": manifest.digest, "kind": manifest.kind}
            self._log(run, metrics=step_figures(folder), tags=tags)
            for report in sorted(folder.glob("*.html")):
                self.client.log_artifact(run, str(report))

    def log_curves(self, run: str, step: str, folder: Path) -> None:
        """Record the main curves of a training step in the pipeline's run, where runs compare."""
        with self.trouble():
            for name, points in run_curves(step, folder).items():
                self._log_curve(run, metric_name(name), points)

    def log_figures(self, run: str, metrics: Mapping[str, float]) -> None:
        """Record figures."""
        with self.trouble():
            self._log(run, metrics=metrics)

    def log_once(self, run: str, key: str, value: str) -> bool:
        """Log a parameter whose first value stays, also among processes that log it at once.

        Returns:
            Whether this value holds; False where another one was logged before.
        """
        from mlflow.exceptions import MlflowException

        with self.trouble():
            try:
                self.client.log_param(run, key, value)
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                if key not in self.client.get_run(run).data.params:  # such as of a deleted run
                    raise
                return False
        return True

    def log_results(
        self,
        run: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        model: str,
        test: str,
    ) -> None:
        """Record figures and tags, the figures as those of a logged model on a data set.

        Args:
            run: The run.
            metrics: Figures of the test split.
            tags: Further tags.
            model: Id of the logged model.
            test: Digest of the test split, which was recorded before.
        """
        with self.trouble():
            inputs = self.client.get_run(run).inputs
            found = [entry.dataset for entry in inputs.dataset_inputs] if inputs else []
            dataset = next((d for d in found if d.digest == test[:DIGEST_CHARS]), None)
            self._log(run, metrics=metrics, tags=tags, model=model, dataset=dataset)

    def describe(self, run: str, text: str) -> None:
        """Set what stands on top of a run's page (Markdown)."""
        with self.trouble():
            self.client.set_tag(run, NOTE, text)

    def describe_model(self, model: str, text: str) -> None:
        """Set what stands on a logged model's page (Markdown)."""
        with self.trouble():
            self.client.set_logged_model_tags(model, {NOTE: text})

    def model_note(self, model: str) -> str:
        """What stands on a logged model's page; empty where nothing does."""
        with self.trouble():
            return str(self.client.get_logged_model(model).tags.get(NOTE, ""))

    def link_version(self, model: str, name: str, version: str) -> None:
        """Name a registered version on the page of the logged model that it is made of."""
        with self.trouble():
            known = self.client.get_logged_model(model).tags.get(MODEL_VERSIONS, "[]")
            versions = [*json.loads(known), {"name": name, "version": version}]
            self.client.set_logged_model_tags(model, {MODEL_VERSIONS: json.dumps(versions)})

    def tags(self, run: str) -> dict[str, str]:
        """The tags of a run."""
        with self.trouble():
            return dict(self.client.get_run(run).data.tags)

    def contents_of_listing(self, listing: str) -> set[str]:
        """The contents of the catalogue that was listed as this, by the beginnings of digests."""
        where = f"tags.{names.CATALOGUE_LISTING} = '{listing}'"
        with self.trouble():
            experiment = self.client.get_experiment_by_name(self.experiment)
            known = [experiment.experiment_id] if experiment else []
            runs = self.client.search_runs(known, where) if known else []
        return {str(run.data.tags.get(names.CATALOGUE_DIGEST, "")) for run in runs} - {""}

    def run_page(self, run: str) -> str:
        """Where a server of the store shows a run, empty where the store is no server."""
        if not self.uri.startswith(("http://", "https://")):
            return ""
        with self.trouble():
            experiment = self.client.get_run(run).info.experiment_id
        return f"{public_uri(self.uri).rstrip('/')}/#/experiments/{experiment}/runs/{run}"

    def runs_page(self) -> str:
        """Where MLflow shows the runs side by side, from its address on."""
        with self.trouble():
            return view_path(self.experiment_id())

    def log_dataset(
        self,
        run: str,
        name: str,
        digest: str,
        source: str,
        context: str,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        """Record the identity of a data set, and its sizes where they are known by now."""
        with self.trouble():
            from mlflow.data.dataset_source_registry import resolve_dataset_source
            from mlflow.entities import Dataset, DatasetInput, InputTag

            with warnings.catch_warnings():  # that a folder could be read in two ways
                warnings.simplefilter("ignore")
                origin = resolve_dataset_source(source)
            kind = origin._get_source_type()
            profile = json.dumps(sizes) if sizes else None
            data = Dataset(name, digest[:DIGEST_CHARS], kind, origin.to_json(), profile=profile)
            tag = InputTag("mlflow.data.context", context)
            self.client.log_inputs(run, [DatasetInput(data, [tag])])

    def log_folder(self, run: str, folder: Path, place: str) -> None:
        """Keep a folder or a file among the run's artifacts."""
        with self.trouble(), patient():
            if folder.is_dir():
                self.client.log_artifacts(run, str(folder), place)
            else:
                self.client.log_artifact(run, str(folder), place)

    def log_text(self, run: str, text: str, file: str) -> None:
        """Keep a text among the run's artifacts."""
        with self.trouble():
            self.client.log_text(run, text, file)

    def description(self, run: str) -> tuple[str, dict[str, str]]:
        """The name of a run and its parameters."""
        with self.trouble():
            found = self.client.get_run(run)
        return str(found.info.run_name), dict(found.data.params)

    def fetch_folder(self, run: str, place: str, target: Path) -> Path:
        """Copy a folder of a run's artifacts to ``target``, where it is not there yet."""
        with claimed(target, wait=True):
            if not target.exists():
                partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
                partial.mkdir(parents=True, exist_ok=True)
                with self.trouble():
                    source = Path(self.client.download_artifacts(run, place, str(partial)))
                    replace_folder(source, target)
                shutil.rmtree(partial, ignore_errors=True)
        return target

    def log_model(self, run: str | None, name: str, bundle: Path, tags: Mapping[str, str]) -> str:
        """Keep a bundle as a models-from-code pyfunc; returns the id of the logged model."""
        with self.trouble(), TemporaryDirectory() as scratch:
            local = Path(scratch) / "model"
            save_pyfunc(bundle, local)
            origin = self.client.get_run(run) if run else None
            model = self.client.create_logged_model(
                origin.info.experiment_id if origin else self.experiment_id(),
                name=name,
                source_run_id=run,
                tags=dict(tags),
                params=origin.data.params if origin else None,
                model_type="pyfunc",
            )
            with patient():
                self.client.log_model_artifacts(model.model_id, str(local))
            self.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def link_model(self, run: str, model: str) -> None:
        """Name a logged model as the output of a run, be it made there or found in the cache."""
        with self.trouble():
            from mlflow.entities import LoggedModelOutput

            self.client.log_outputs(run, [LoggedModelOutput(model, step=0)])

    def find_model(self, digest: str) -> str | None:
        """The id of the logged model that holds a bundle, None where there is none."""
        with self.trouble():
            found = self.client.search_logged_models(
                [self.experiment_id()],
                filter_string=f"tags.{names.BUNDLE_DIGEST} = '{digest}'",
            )
        # One whose files did not arrive is not ready, and is made again.
        whole = [model for model in found if str(model.status) == "READY"]
        return str(whole[0].model_id) if whole else None

    def end(self, run: str, status: str, error: str = "") -> None:
        """Close a run; one that was joined is left to whoever made it."""
        with self.trouble():
            if error:
                self._log(run, tags={names.ERROR: error})
            if names.JOINED not in self.client.get_run(run).data.tags:
                self.client.set_terminated(run, status, self._now_ms())

    def artifact_location(self, experiment: str) -> str | None:
        """Where an experiment's files go; None where the store's server decides.

        Left to itself a local store would put them into the working folder.
        """
        return str(self._artifacts / experiment) if self._artifacts else None

    def experiment_id(self) -> str:
        """The id of the experiment, which is made where there is none."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            where = self.artifact_location(self.experiment)
            try:
                return str(self.client.create_experiment(self.experiment, where, EXPERIMENT_TAGS))
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _create(
        self, name: str, tags: Mapping[str, str] | None = None, experiment: str | None = None
    ) -> str:
        source = {
            "mlflow.user": user_name(self.uri),
            "mlflow.source.name": "xcflow",
            "mlflow.source.type": "JOB",
            "library_version": xcflow.__version__,
        }
        run = self.client.create_run(
            experiment or self.experiment_id(),
            start_time=self._now_ms(),
            run_name=name,
            tags={**source, **(tags or {})},
        )
        return str(run.info.run_id)

    def _find(self, tag: str, value: str, experiment: str | None = None) -> Run | None:
        where = f"tags.{tag} = '{value}'"
        place = [experiment or self.experiment_id()]
        runs = self.client.search_runs(place, where, max_results=1)
        return runs[0] if runs else None

    def _log_curve(self, run: str, name: str, points: list[list[float]]) -> None:
        from mlflow.entities import Metric

        now = self._now_ms()
        metrics = [
            Metric(name, round(value, METRIC_DIGITS), now, step)
            for step, value in sampled(points, CURVE_POINTS)
        ]
        self.client.log_batch(run, metrics=metrics)

    def _log(
        self,
        run: str,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        model: str | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now, about = self._now_ms(), {"model_id": model}
        if dataset:
            about |= {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
        values = [
            Metric(name, round(value, METRIC_DIGITS), now, 0, **about)
            for name, value in (metrics or {}).items()
        ]
        for batch in _batches(values, BATCH_METRICS):
            self.client.log_batch(run, metrics=batch)
        for batch in _batches([Param(k, v) for k, v in (params or {}).items()], BATCH_PARAMS):
            self.client.log_batch(run, params=batch)
        self.client.log_batch(run, tags=[RunTag(k, v) for k, v in (tags or {}).items()])


def user_name(uri: str = "") -> str:
    """The user as whom the store at ``uri`` is asked, else the user of this process.

    Containers often have a user without a name.
    """
    if known := Credentials.of_environment(uri).user:
        return known
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _batches(rows: list[Any], size: int) -> Iterable[list[Any]]:
    return (rows[i : i + size] for i in range(0, len(rows), size))
