"""A step on several machines: the TrainJob that a task starts, and what its pods do.

The API server is a stand-in; the S3 server, the pods' processes and their ranks are real.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked_ranks import free_port
from kubernetes_stub import NAMESPACE, Job, condition

from xcflow.artifact import read_manifest, writing
from xcflow.config import Config
from xcflow.errors import ConfigError, DataError, DistributedError
from xcflow.interruption import Interruption, interruptible
from xcflow.steps import STEPS, run_step
from xcflow.steps.node import Work
from xcflow.storage import publish, publish_file
from xcflow_components.cluster import train_job as module
from xcflow_components.cluster.train_job import TrainJobRunner, run_shared_task, train_job

pytestmark = pytest.mark.usefixtures("credentials", "kubernetes")

NODES = {"distributed": {"nodes": 2}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.02)


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> TrainJobRunner:
    place = f"s3://bucket/{request.node.name}"
    return TrainJobRunner({"dataset": f"{place}/dataset"}, f"{place}/encoder")


@pytest.fixture
def run(runner: TrainJobRunner, tmp_path: Path) -> Callable[..., None]:
    def run(**settings: Any) -> None:
        config = Config.from_dict({"distributed": {"nodes": 2, **settings}})
        runner("train_encoder", config, {}, tmp_path / "output")

    return run


def completes(runner: TrainJobRunner, tmp_path: Path) -> Callable[[Job], None]:
    """A controller whose TrainJobs publish something at once."""

    def complete(job: Job) -> None:
        with writing(tmp_path / "made", "encoder") as folder:
            (folder / "weights").write_text("w")
        publish(tmp_path / "made", runner.output)
        condition(job, "Complete")

    return complete


def work_of(job: Job) -> Work:
    return Work.from_json(job["spec"]["trainer"]["args"][0])


def test_the_output_comes_here_and_the_train_job_goes(kubernetes, runner, run, tmp_path):
    kubernetes.controller = completes(runner, tmp_path)
    run()
    assert (tmp_path / "output" / "weights").read_text() == "w"
    assert read_manifest(tmp_path / "output", "encoder", verify=True)
    assert kubernetes.jobs == {}
    methods = [line.partition(" ")[0] for line in kubernetes.asked]
    assert methods == ["POST", "GET", "DELETE"]


def test_what_a_train_job_says(kubernetes, runner, run, tmp_path, monkeypatch):
    monkeypatch.setenv("XCFLOW_RUN_KEY", "run 7")
    monkeypatch.setenv("KFP_POD_NAME", "pod")
    monkeypatch.setenv("KFP_POD_UID", "1-2-3")
    made: list[Job] = []
    complete = completes(runner, tmp_path)
    kubernetes.controller = lambda job: (made.append(job), complete(job))
    run(processes=3, deadline_seconds=99, runtime="ours")
    (job,) = made
    assert job["metadata"]["namespace"] == NAMESPACE
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "pod", "uid": "1-2-3"}
    ]
    spec = job["spec"]
    assert spec["activeDeadlineSeconds"] == 99
    assert spec["runtimeRef"]["name"] == "ours"
    assert (spec["trainer"]["numNodes"], spec["trainer"]["numProcPerNode"]) == (2, 3)
    assert work_of(job).inputs == runner.inputs
    # The name follows from the run and the step alone.
    other = TrainJobRunner(runner.inputs, "s3://bucket/elsewhere")
    name = job["metadata"]["name"]
    assert other._work("train_encoder", Config()).name == name
    assert other._work("train_classifier", Config()).name != name
    monkeypatch.setenv("XCFLOW_RUN_KEY", "run 8")
    assert other._work("train_encoder", Config()).name != name
    assert len(other._work("export_embeddings", Config()).name) <= 40  # pods' names are longer


def test_a_train_job_is_valid(runner, tmp_path):
    resources = pytest.importorskip("custom_resources", reason="the schemas are not here yet")
    config = Config.from_dict(NODES)
    job = train_job(runner._work("train_encoder", config), config, NAMESPACE)
    assert resources.problems(job) == []


def test_a_task_that_is_tried_again_takes_up_the_train_job(kubernetes, runner, run, tmp_path):
    config = Config.from_dict(NODES)
    job = train_job(runner._work("train_encoder", config), config, NAMESPACE)
    kubernetes.jobs[job["metadata"]["name"]] = job
    completes(runner, tmp_path)(job)
    kubernetes.controller = lambda job: pytest.fail("another one was started")
    run()
    assert (tmp_path / "output" / "weights").exists()


@pytest.mark.parametrize("other", ["failed", "of other work", "going"])
def test_a_train_job_that_is_of_no_use_gives_way(kubernetes, runner, run, tmp_path, other):
    config = Config.from_dict(NODES)
    job = train_job(runner._work("train_encoder", config), config, NAMESPACE)
    kubernetes.jobs[job["metadata"]["name"]] = job
    kubernetes.lingering = 3
    if other == "failed":
        condition(job, "Failed")
    elif other == "of other work":
        job["metadata"]["annotations"] = {}
    else:
        job["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    kubernetes.controller = completes(runner, tmp_path)
    run()
    assert [line.partition(" ")[0] for line in kubernetes.asked].count("POST") == 2
    assert (tmp_path / "output" / "weights").exists()


def test_the_line_of_the_node_that_failed_comes_here(kubernetes, runner, run, tmp_path):
    def fail(job: Job) -> None:
        note = tmp_path / "error.json"
        note.write_text(json.dumps({"kind": "DataError", "line": "row 7: no text: add one"}))
        publish_file(note, f"{work_of(job).notes}/error.json")
        condition(job, "Failed", "a pod failed")

    kubernetes.controller = fail
    with pytest.raises(DataError, match=r"^row 7: no text: add one$"):
        run()
    assert kubernetes.jobs == {}
    # A later attempt that fails in silence is not taken for this one.
    kubernetes.controller = lambda job: condition(job, "Failed", "a pod was evicted")
    with pytest.raises(DistributedError, match="failed: Test a pod was evicted"):
        run()
    assert not (tmp_path / "output").exists()


def test_a_deadline(kubernetes, run, monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 0.2)
    with pytest.raises(DistributedError, match="not done after 1 s"):
        run(deadline_seconds=1)
    assert kubernetes.jobs == {}


def test_an_interrupted_task_deletes_its_train_job(kubernetes, run):
    kubernetes.controller = lambda job: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interruption), interruptible():
        run()
    assert kubernetes.jobs == {}


def test_an_api_server_that_stumbles_is_asked_again(kubernetes, runner, run, tmp_path):
    complete = completes(runner, tmp_path)

    def stumble(job: Job) -> None:
        kubernetes.troubles += [500, 503, 429]
        complete(job)

    kubernetes.controller = stumble
    run()
    assert (tmp_path / "output" / "weights").exists()


def test_a_cluster_that_refuses_is_told_in_one_line(kubernetes, run):
    kubernetes.troubles.append(403)
    with pytest.raises(DistributedError, match=r"refuses it \(403\): the stub's trouble"):
        run()


def test_a_train_job_that_somebody_deletes(kubernetes, run):
    kubernetes.controller = lambda job: kubernetes.jobs.clear()
    with pytest.raises(DistributedError, match="somebody deleted it"):
        run()


def test_folders_that_other_machines_cannot_reach_are_refused(tmp_path):
    runner = TrainJobRunner({"dataset": str(tmp_path)}, "s3://bucket/x")
    with pytest.raises(ConfigError, match="the pipeline root must be under s3://"):
        runner("train_encoder", Config.from_dict(NODES), {}, tmp_path / "output")


class Pods:
    """A controller that runs what a TrainJob's pods would, as processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.codes: list[int] = []

    def __call__(self, job: Job) -> None:
        threading.Thread(target=self._run, args=(job,), daemon=True).start()

    def _run(self, job: Job) -> None:
        trainer = job["spec"]["trainer"]
        place = {
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(free_port()),
            "PET_NNODES": str(trainer["numNodes"]),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, *trainer["command"][1:], *trainer["args"]]
        pods = []
        for rank in range(trainer["numNodes"]):
            home = {"XCFLOW_HOME": str(self._folder / f"home {rank}"), "PET_NODE_RANK": str(rank)}
            with (self._folder / f"pod-{rank}.log").open("wb") as log:
                environment = os.environ | place | home
                pods.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        self.codes = [pod.wait() for pod in pods]
        condition(job, "Failed" if any(self.codes) else "Complete", "by the pods")


def artifact(path: Path, uri: str) -> Any:
    return SimpleNamespace(path=str(path), uri=uri, metadata={})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_machines_train_and_a_wrong_input_is_told(
    kubernetes, catalogue, configure, tmp_path, monkeypatch
):
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    config = configure(distributed={"nodes": 2}, clustering={"clusters": 4})
    folders = {"catalogue": catalogue}
    for step in ("validate_data", "cluster_labels"):
        output = tmp_path / STEPS[step].produces
        run_step(step, config, {name: folders[name] for name in STEPS[step].inputs}, output)
        folders[STEPS[step].produces] = output
    stored = {}
    for name in ("dataset", "clusters"):
        publish(folders[name], f"s3://bucket/machines/{name}")
        stored[name] = artifact(folders[name], f"s3://bucket/machines/{name}")
    pods = kubernetes.controller = Pods(tmp_path)
    output = artifact(tmp_path / "encoder", "s3://bucket/machines/encoder")
    text = config.to_json(STEPS["train_encoder"].sections)
    run_shared_task("train_encoder", text, stored, output)
    logs = [(tmp_path / f"pod-{rank}.log").read_text() for rank in (0, 1)]
    assert pods.codes == [0, 0], logs
    assert read_manifest(tmp_path / "encoder", "encoder", verify=True)
    assert sum("validation" in log for log in logs) == 1  # the first rank speaks
    stored["clusters"] = stored["dataset"]
    with pytest.raises(SystemExit):
        run_shared_task("train_encoder", text, stored, artifact(tmp_path / "no", output.uri))
    assert kubernetes.jobs == {}
