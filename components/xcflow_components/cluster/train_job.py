"""A step on several machines: a TrainJob of Kubeflow Trainer, started and ended by a task.

The TrainJob's name follows from the run and the step, so a task that is tried again takes up the
one that its forerunner left. It has a deadline, belongs to the task's pod where the pod knows its
own identity, and is deleted however the task ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from xcflow import errors
from xcflow.config import Config
from xcflow.disk import claimed, replace_folder, writable
from xcflow.distributed.notes import ERROR, LOST
from xcflow.errors import ConfigError, DistributedError, StorageError, XcflowError
from xcflow.library import library_digest
from xcflow.progress import log
from xcflow.registry.names import RUN_KEY_VARIABLE
from xcflow.steps.node import Work
from xcflow.steps.task import Artifact, run_task
from xcflow.storage import fetch, fetch_file, is_remote, publish_file

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
# By this annotation a task knows whether a TrainJob does what it would have it do.
WORK_DIGEST = "xcflow.work"
POLL_S = 5.0
# Beyond its deadline, a TrainJob has so long to be ended by its controller.
GRACE_S = 300.0
_NAME = "xcflow-{step}-{digest}"
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class StoredArtifact(Artifact, Protocol):
    """An artifact of Kubeflow, with the place where others find it."""

    uri: str


def run_shared_task(
    name: str,
    config: str,
    inputs: Mapping[str, StoredArtifact],
    output: StoredArtifact,
    metrics: Artifact | None = None,
) -> None:
    """``run_task`` here, or on as many machines as the configuration says.

    Args:
        name: The step.
        config: Its sections of the configuration as JSON.
        inputs: Name of an input -> its folder.
        output: Where the step's folder is to stand.
        metrics: Gets the step's main figures.
    """
    here = {key: artifact.path for key, artifact in inputs.items()}
    if Config.from_json(config).distributed.nodes == 1:
        run_task(name, config, here, output, metrics=metrics)
        return
    uris = {key: artifact.uri for key, artifact in inputs.items()}
    runner = TrainJobRunner(uris, output.uri)
    run_task(name, config, here, output, metrics=metrics, run=runner)


@dataclass(frozen=True)
class TrainJobRunner:
    """Runs a step by a TrainJob; called as ``run_step`` is.

    Attributes:
        inputs: Name of an input -> URI under which all machines find it.
        output: URI of the output, from which it is copied here.
    """

    inputs: Mapping[str, str]
    output: str

    def __call__(self, name: str, config: Config, inputs: Mapping[str, Path], output: Path) -> None:
        """Start the TrainJob, wait for it, and copy the output to this machine.

        Raises:
            XcflowError: What the step raised.
            DistributedError: The TrainJob failed or took too long.
        """
        for uri in (*self.inputs.values(), self.output):
            if not is_remote(uri):
                raise ConfigError(
                    f"{uri}: other machines cannot reach it: with distributed.nodes above 1 the "
                    "pipeline root must be under s3://"
                )
        work = self._work(name, config)
        with _deleted_in_the_end(TrainJobs.of_environment(), work.name) as jobs:
            _clear_notes(work)
            jobs.start(train_job(work, config, jobs.namespace))
            _wait(jobs, work, config.distributed.deadline_seconds)
        with claimed(output), TemporaryDirectory() as scratch, writable(output):
            partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
            shutil.copytree(fetch(self.output, Path(scratch)), partial)
            replace_folder(partial, output)

    def _work(self, name: str, config: Config) -> Work:
        key = os.environ.get(RUN_KEY_VARIABLE) or self.output
        digest = hashlib.sha256(f"{key}/{name}".encode()).hexdigest()[:10]
        job = _NAME.format(step=name.replace("_", "-"), digest=digest)
        return Work(
            name=job,
            step=name,
            config=config.to_json(),
            inputs=dict(self.inputs),
            output=self.output,
            notes=f"{self.output}.notes",
            library=library_digest(),
        )


def train_job(work: Work, config: Config, namespace: str) -> dict[str, Any]:
    """The TrainJob that does some work, as Kubernetes takes it."""
    settings = config.distributed
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": work.name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "xcflow"},
            "annotations": {WORK_DIGEST: _digest(work)},
            **_owner(),
        },
        "spec": {
            "activeDeadlineSeconds": settings.deadline_seconds,
            "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": settings.runtime},
            "trainer": {
                "numNodes": settings.nodes,
                "numProcPerNode": settings.processes,
                "command": ["python", "-m", "xcflow.steps.node"],
                "args": [work.to_json()],
            },
        },
    }


def _digest(work: Work) -> str:
    return hashlib.sha256(work.to_json().encode()).hexdigest()[:32]


def _owner() -> dict[str, Any]:
    """The pod of the task, with which the TrainJob goes even if nobody lives to delete it."""
    name, uid = (os.environ.get(f"KFP_POD_{key}") for key in ("NAME", "UID"))
    if not (name and uid):
        return {}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    return {"ownerReferences": [owner]}


class TrainJobs:
    """The TrainJobs of a namespace.

    Args:
        api: Kubernetes' API of custom objects.
        namespace: The namespace.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    @classmethod
    def of_environment(cls) -> TrainJobs:
        """As the pod's service account, or the kubeconfig of a person, says.

        Raises:
            ConfigError: There is neither.
        """
        from kubernetes import client, config

        try:
            if _NAMESPACE.is_file():
                config.load_incluster_config()
                namespace = _NAMESPACE.read_text(encoding="utf-8").strip()
            else:
                config.load_kube_config()
                context = config.list_kube_config_contexts()[1]["context"]
                namespace = context.get("namespace", "default")
        except config.ConfigException as error:
            raise ConfigError(
                f"no Kubernetes cluster is known here ({error}): set distributed.nodes to 1"
            ) from error
        return cls(client.CustomObjectsApi(), namespace)

    def start(self, job: Mapping[str, Any]) -> None:
        """Create a TrainJob, or take up the one of its name that does the same work.

        Raises:
            DistributedError: The cluster refuses it.
        """
        name = job["metadata"]["name"]
        if self._create(job):
            log(f"TrainJob {name}: started")
            return
        there = self.get(name)
        if there and _annotation(there) == _annotation(job) and not _is_over(there):
            log(f"TrainJob {name}: going on with the one that is there")
            return
        self.delete(name)
        self._wait_until_gone(name)
        if not self._create(job):
            raise DistributedError(f"TrainJob {name}: another task starts it at the same time")

    def _create(self, job: Mapping[str, Any]) -> bool:
        """Whether there was none of its name."""
        from kubernetes.client import ApiException

        try:
            self._api.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, dict(job)
            )
        except ApiException as error:
            if error.status == 409:
                return False
            raise _refused(job["metadata"]["name"], error) from error
        return True

    def get(self, name: str) -> dict[str, Any] | None:
        """A TrainJob, None where there is none.

        Raises:
            DistributedError: The cluster refuses to tell.
            OSError: It cannot be reached now.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            found: dict[str, Any] = self._api.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name
            )
        except ApiException as error:
            if error.status == 404:
                return None
            if error.status == 429 or error.status >= 500:
                raise ConnectionError(f"{error.status} {error.reason}") from error
            raise _refused(name, error) from error
        except HTTPError as error:
            raise ConnectionError(str(error)) from error
        return found

    def delete(self, name: str) -> None:
        """Delete a TrainJob with its pods; none of that name is fine too."""
        from kubernetes.client import ApiException

        try:
            self._api.delete_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name, propagation_policy="Foreground"
            )
        except ApiException as error:
            if error.status != 404:
                raise _refused(name, error) from error

    def _wait_until_gone(self, name: str) -> None:
        end = time.monotonic() + GRACE_S
        while self.get(name) is not None:
            if time.monotonic() > end:
                raise DistributedError(
                    f"TrainJob {name}: an old one does not go away: delete it "
                    f"(kubectl delete trainjob {name} -n {self.namespace})"
                )
            time.sleep(POLL_S)


def _is_over(job: Mapping[str, Any]) -> bool:
    """Whether a TrainJob failed or is about to go."""
    return "deletionTimestamp" in job["metadata"] or "Failed" in _conditions(job)


def _conditions(job: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What is true of a TrainJob: Complete, Failed, Suspended."""
    conditions = job.get("status", {}).get("conditions", [])
    return {each["type"]: each for each in conditions if each["status"] == "True"}


def _annotation(job: Mapping[str, Any]) -> str:
    return str(job["metadata"].get("annotations", {}).get(WORK_DIGEST, ""))


def _refused(name: str, error: Any) -> DistributedError:
    try:
        reason = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        reason = error.reason
    return DistributedError(f"TrainJob {name}: the cluster refuses it ({error.status}): {reason}")


@contextmanager
def _deleted_in_the_end(jobs: TrainJobs, name: str) -> Iterator[TrainJobs]:
    """Delete a TrainJob when the block ends, however it ends."""
    try:
        yield jobs
    finally:
        try:
            jobs.delete(name)
        except Exception as error:  # noqa: BLE001  # how the block ended matters more
            log(f"warning: TrainJob {name} could not be deleted: {error}")


def _wait(jobs: TrainJobs, work: Work, deadline: float) -> None:
    """Return when the TrainJob is complete; tell what becomes of it meanwhile."""
    end, told = time.monotonic() + deadline + GRACE_S, ""
    while time.monotonic() < end:
        try:
            job = jobs.get(work.name)
        except ConnectionError as error:
            state = f"the cluster does not answer ({error}); asking again"
        else:
            if job is None:
                raise DistributedError(f"TrainJob {work.name}: somebody deleted it: start again")
            conditions = _conditions(job)
            if "Complete" in conditions:
                return
            if "Failed" in conditions:
                raise _failure(work, conditions["Failed"])
            state = _progress(job)
        if state != told:
            log(f"TrainJob {work.name}: {state}")
        told = state
        time.sleep(POLL_S)
    raise DistributedError(f"TrainJob {work.name}: not done after {deadline:,.0f} s")


def _progress(job: Mapping[str, Any]) -> str:
    parts = job.get("status", {}).get("jobsStatus", [])
    counts = {key: sum(int(part.get(key, 0)) for part in parts) for key in ("active", "ready")}
    return f"{counts['active']} jobs active, {counts['ready']} ready" if parts else "waiting"


def _clear_notes(work: Work) -> None:
    """Let no note of an earlier attempt be taken for one of this."""
    with TemporaryDirectory() as scratch:
        blank = Path(scratch) / "blank.json"
        blank.write_text("{}\n", encoding="utf-8")
        for name in (ERROR, LOST):
            publish_file(blank, f"{work.notes}/{name}")


def _failure(work: Work, condition: Mapping[str, Any]) -> XcflowError:
    """The line of the node that failed, if it could write one, else what the cluster says."""
    with TemporaryDirectory() as scratch:
        note = Path(scratch) / "note.json"
        for name in (ERROR, LOST):  # what one node lost, others lose with it
            with suppress(StorageError):
                fetch_file(f"{work.notes}/{name}", note)
                if error := json.loads(note.read_text(encoding="utf-8")):
                    raised: XcflowError = getattr(errors, error["kind"], XcflowError)(error["line"])
                    return raised
    reason = " ".join(str(condition.get(key, "")) for key in ("reason", "message")).strip()
    return DistributedError(f"TrainJob {work.name} failed: {reason or 'for no known reason'}")
