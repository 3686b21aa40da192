"""One run of a pipeline on a cluster: started once for each key, however often it is asked for."""

from __future__ import annotations

import hashlib
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xcflow.config import Config
from xcflow.errors import ClusterError
from xcflow.library import library_digest
from xcflow.storage import is_remote
from xcflow.storage.places import RemoteFolder
from xcflow_pipelines import refreshing
from xcflow_pipelines.cluster.compiling import compile_package
from xcflow_pipelines.cluster.endpoint import Endpoint, RefusedError, contains
from xcflow_pipelines.cluster.experiments import made_experiment
from xcflow_pipelines.cluster.uploading import Version, upload
from xcflow_pipelines.local import refresh_label, run_label

KEY_CHARS = 12
# The endpoint keeps times of creation in whole seconds. After a longer pause whoever started a run
# at the same time is seen, and all agree on which one was first.
SETTLE_S = 1.5


@dataclass(frozen=True)
class Submitted:
    """A run on a cluster.

    Attributes:
        run_id: Its id there, which is also its key in MLflow.
        name: Its name there and in MLflow.
        version: Name of the pipeline's version that was asked for.
        created: Whether it was started by this very request.
        page: Where a person sees it.
    """

    run_id: str
    name: str
    version: str
    created: bool
    page: str


def submit(
    config: Config,
    profile: str,
    catalogue_uri: str,
    catalogue_digest: str = "",
    *,
    key: str = "",
    pipeline: str = "",
) -> Submitted:
    """Start a run, unless the key has one already.

    Args:
        config: The configuration.
        profile: Where it came from; names the run.
        catalogue_uri: Where the catalogue stands, as ``s3://bucket/prefix``.
        catalogue_digest: Identity of its content; the run refuses another one. Empty: the run
            takes what stands there when it starts.
        key: Identity of the wish; the same key never starts a second run, also after a crash
            between the request and its answer, and from several places at once. Empty: a new one.
        pipeline: Name of the pipeline; empty for the retraining one.

    Raises:
        ClusterError: The endpoint does not answer or refuses, or the catalogue is out of its reach.
        ConfigError: The configuration is wrong.
    """
    require_reachable(catalogue_uri)
    endpoint = Endpoint.of(config.cluster)
    endpoint.require_answer()
    package = compile_package(config, pipeline)
    experiment = made_experiment(endpoint, config.tracking.experiment)
    mark = hashlib.sha256((key or secrets.token_hex(16)).encode()).hexdigest()[:KEY_CHARS]

    if present := _runs_of(endpoint, experiment, mark):
        return _submitted(endpoint, present[0], package.version, created=False)
    version = upload(endpoint, package)
    name = f"{cluster_run_label(package.pipeline, config, profile, catalogue_uri)}-{mark}"
    arguments = run_arguments(config, name, catalogue_uri, catalogue_digest)
    mine, asked = endpoint.settle(
        lambda: next(iter(_runs_of(endpoint, experiment, mark)), None),
        lambda: _create(endpoint, config, experiment, version, name, arguments),
    )
    # Nobody else starts a run with a key that was made up just now.
    first = _only(endpoint, experiment, mark) if asked and key else mine
    return _submitted(
        endpoint, first, package.version, created=asked and first.run_id == mine.run_id
    )


def run_arguments(
    config: Config, run_name: str, catalogue_uri: str, catalogue_digest: str
) -> dict[str, str]:
    """The parameters of a pipeline's run."""
    return {
        "run_name": run_name,
        "catalogue_uri": catalogue_uri,
        "catalogue_digest": catalogue_digest,
        "library_digest": library_digest(),
        "config": config.to_json(),
    }


def cluster_run_label(pipeline: str, config: Config, profile: str, catalogue_uri: str) -> str:
    """How the names of a pipeline's runs begin: as those of local runs."""
    catalogue = catalogue_uri.rstrip("/").rpartition("/")[2]
    if pipeline == refreshing.NAME:
        return refresh_label(catalogue)
    return run_label(catalogue, Path(profile).stem, config)


def require_reachable(catalogue_uri: str) -> None:
    """Refuse a catalogue that only this machine can read.

    Raises:
        ClusterError: See above.
        StorageError: No catalogue is named.
    """
    if not is_remote(catalogue_uri):
        raise ClusterError(
            f"--catalogue {catalogue_uri!r}: the cluster's tasks cannot read it: copy it to a "
            "bucket and name it as s3://bucket/prefix"
        )
    RemoteFolder.of(catalogue_uri)


def runnable(config: Config, version: Version, arguments: dict[str, str]) -> dict[str, Any]:
    """What a run and a recurring run have in common: the pipeline and what it is given."""
    import kfp_server_api as kfp

    return {
        "pipeline_version_reference": kfp.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
        ),
        "runtime_config": kfp.V2beta1RuntimeConfig(
            parameters=arguments, pipeline_root=config.cluster.pipeline_root or None
        ),
        "service_account": config.cluster.service_account or None,
    }


def _create(
    endpoint: Endpoint,
    config: Config,
    experiment: str,
    version: Version,
    name: str,
    arguments: dict[str, str],
) -> Any:
    import kfp_server_api as kfp

    wanted = kfp.V2beta1Run(
        display_name=name, experiment_id=experiment, **runnable(config, version, arguments)
    )
    return endpoint.ask_once(endpoint.runs.run_service_create_run, wanted)


def _runs_of(endpoint: Endpoint, experiment: str, mark: str) -> list[Any]:
    """The runs of a key, the first one first; more than one only while several start it."""
    found = endpoint.listed(
        endpoint.runs.run_service_list_runs,
        "runs",
        experiment_id=experiment,
        filter=contains("display_name", mark),
    )
    return sorted(
        (run for run in found if run.display_name.endswith(f"-{mark}")),
        key=lambda run: (run.created_at, run.run_id),
    )


def _only(endpoint: Endpoint, experiment: str, mark: str) -> Any:
    """The first run of a key, when those that were started at the same time are ended."""
    time.sleep(SETTLE_S)
    first, *others = _runs_of(endpoint, experiment, mark)
    for run in others:
        with suppress(RefusedError):  # it has ended by now
            endpoint.ask(endpoint.runs.run_service_terminate_run, run.run_id)
    return first


def _submitted(endpoint: Endpoint, run: Any, version: str, *, created: bool) -> Submitted:
    return Submitted(run.run_id, run.display_name, version, created, endpoint.run_page(run.run_id))
