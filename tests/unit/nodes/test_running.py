"""A step's TrainJob against a server that speaks Kubernetes' API: made, waited for, deleted."""

import os
import signal
from pathlib import Path

import pytest
from kubernetes_stub import NAMESPACE, end, kubeconfig

from xcflow.artifact import read_manifest, writing
from xcflow.config import Config
from xcflow.errors import ClusterError, ConfigError, DataError, DistributedError
from xcflow.interruption import Interruption, interruptible
from xcflow.steps import STEPS, run_step
from xcflow.steps.remote_job import RemoteJob
from xcflow_components.nodes import kubernetes_api, running
from xcflow_components.nodes.running import run_on_nodes
from xcflow_components.nodes.train_job import train_job

STEP = "train_encoder"


def config(share, **settings):
    return Config.from_dict({"distributed": {"nodes": 2, "share": str(share), **settings}})


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Two nodes; the environment of a task on a cluster."""
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XCFLOW_RUN_KEY", "run-1")
    monkeypatch.setenv(running.TRAINER_VARIABLE, '{"image": "an-image"}')
    monkeypatch.setenv(running.NAMESPACE_VARIABLE, NAMESPACE)
    monkeypatch.setattr(running, "POLL_S", 0.01)
    monkeypatch.setattr(kubernetes_api, "PAUSE_S", 0.01)
    monkeypatch.setattr(kubernetes_api, "PATIENCE_S", 0.0)
    return config(tmp_path / "share")


@pytest.fixture
def inputs(tmp_path):
    folders = {}
    for name in STEPS[STEP].inputs:
        with writing(tmp_path / name, name) as folder:
            (folder / "content").write_text(name)
        folders[name] = tmp_path / name
    return folders


@pytest.fixture
def job(settings, inputs):
    return RemoteJob.of("run-1", STEP, settings, inputs)


def write_output(document):
    """What the ranks do in the end."""
    with writing(Path(document["spec"]["trainer"]["command"][-1]) / "output", "encoder") as folder:
        (folder / "weights").write_text("trained")


def do(document):
    write_output(document)
    end(document, "Complete")


def test_the_output_arrives_and_nothing_is_left(kubernetes, settings, inputs, tmp_path):
    kubernetes.on_create = do
    run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    read_manifest(tmp_path / "output", "encoder", verify=True)
    assert (tmp_path / "output/weights").read_text() == "trained"
    assert kubernetes.jobs == {}
    assert kubernetes.verbs == ["get", "create", "get", "delete"]


def test_inputs_travel_and_states_are_kept_where_all_see_them(
    kubernetes,
    settings,
    inputs,
    job,
    tmp_path,
):
    kubernetes.on_create = do
    run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    sent = (tmp_path / "share" / "jobs" / job.name / "job.json").read_text()
    assert f'"uri": "{tmp_path}/share/checkpoints"' in sent
    for name, folder in inputs.items():
        digest = read_manifest(folder).digest
        assert f"{tmp_path}/share/inputs/{digest}" in sent
        assert (tmp_path / "share" / "inputs" / digest / "content").read_text() == name


def test_changes_of_state_are_told_once_each(kubernetes, settings, inputs, tmp_path, capsys):
    states = [
        {"conditions": [{"type": "Suspended", "status": "True"}]},
        {"jobsStatus": [{"name": "node", "active": 1, "ready": 0}]},
        {"jobsStatus": [{"name": "node", "active": 1, "ready": 1}]},
        {"jobsStatus": [{"name": "node", "active": 1, "ready": 1}]},
    ]

    def go_on(document):
        if states:
            document["status"] = states.pop(0)
        else:
            do(document)

    kubernetes.on_get = go_on
    run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    told = [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    assert told == ["queued", "starting", "running", "complete"]


def test_a_running_job_of_an_earlier_attempt_is_waited_for(
    kubernetes,
    settings,
    inputs,
    job,
    tmp_path,
):
    document = train_job(job, STEP, settings.distributed, {}, NAMESPACE)
    kubernetes.jobs[job.name] = document
    kubernetes.on_get = lambda found: do(found) if kubernetes.verbs.count("get") == 3 else None
    run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert kubernetes.verbs == ["get", "get", "get", "delete"]
    assert (tmp_path / "output/weights").exists()


def test_a_failed_job_of_an_earlier_attempt_is_made_anew(
    kubernetes,
    settings,
    inputs,
    job,
    tmp_path,
):
    document = train_job(job, STEP, settings.distributed, {}, NAMESPACE)
    end(document, "Failed", message="the node went away")
    kubernetes.jobs[job.name] = document
    kubernetes.on_create = do
    run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert kubernetes.verbs == ["get", "delete", "get", "create", "get", "delete"]


def test_the_output_of_an_earlier_attempt_is_taken(kubernetes, settings, inputs, job, tmp_path):
    write_output(train_job(job, STEP, settings.distributed, {}, NAMESPACE))
    run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert (tmp_path / "output/weights").exists()
    assert kubernetes.verbs == []


def test_a_job_of_somebody_else_is_left_alone(kubernetes, settings, inputs, job, tmp_path):
    kubernetes.jobs[job.name] = {"metadata": {"name": job.name}}
    with pytest.raises(ClusterError, match=f"{job.name} is there already and is none of xcflow's"):
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert job.name in kubernetes.jobs


def test_a_run_step_or_input_more_is_another_job(settings, inputs, job, tmp_path):
    with writing(tmp_path / "changed", "dataset") as folder:
        (folder / "content").write_text("another")
    others = [
        RemoteJob.of("run-2", STEP, settings, inputs),
        RemoteJob.of("run-1", "export_embeddings", settings, inputs),
        RemoteJob.of("run-1", STEP, settings, inputs | {"dataset": tmp_path / "changed"}),
    ]
    assert len({job.name, *(other.name for other in others)}) == 4
    more = config(tmp_path / "share", nodes=3)
    assert RemoteJob.of("run-1", STEP, more, inputs).name == job.name


def test_what_a_rank_raised_is_told(kubernetes, settings, inputs, job, tmp_path):
    def fail(document):
        job.note_error(DataError("is not what it was"))
        end(document, "Failed", message="jobset failed")

    kubernetes.on_create = fail
    with pytest.raises(DataError, match=r"^is not what it was$"):
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert kubernetes.verbs.count("create") == 1
    assert kubernetes.jobs == {}


def test_any_other_failure_is_told_in_one_line(kubernetes, settings, inputs, job, tmp_path):
    def fail(document):
        job.note_trace("Traceback\n  File\nMemoryError: too large\n")
        end(document, "Failed", message="jobset failed")

    kubernetes.on_create = fail
    with pytest.raises(DistributedError, match=r"failed: jobset failed; MemoryError: too large"):
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert not (tmp_path / "output").exists()
    assert kubernetes.jobs == {}


def test_a_job_that_lost_a_rank_is_made_again(kubernetes, settings, inputs, tmp_path, capsys):
    def fail_once(document):
        if kubernetes.verbs.count("create") == 1:
            end(document, "Failed", message="a node was lost")
        else:
            do(document)

    kubernetes.on_create = fail_once
    run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert (tmp_path / "output/weights").exists()
    assert "a node was lost: starting it again" in capsys.readouterr().err
    assert kubernetes.verbs == ["get", "create", "get", "delete", "get", "create", "get", "delete"]


def test_it_is_made_again_so_often_and_no_more(kubernetes, inputs, settings, tmp_path):
    kubernetes.on_create = lambda document: end(document, "Failed", message="a node was lost")
    once = config(tmp_path / "share", max_restarts=1)
    with pytest.raises(DistributedError, match="failed: a node was lost: start the step again"):
        run_on_nodes(STEP, once, inputs, tmp_path / "output")
    assert kubernetes.verbs.count("create") == 2


def test_the_clusters_deadline(kubernetes, settings, inputs, tmp_path):
    kubernetes.on_create = lambda document: end(document, "Failed", reason="DeadlineExceeded")
    with pytest.raises(DistributedError, match=r"longer than distributed.deadline_seconds = 86400"):
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert kubernetes.jobs == {}


def test_a_job_that_never_starts(kubernetes, inputs, settings, tmp_path):
    short = config(tmp_path / "share", deadline_seconds=1)
    with pytest.raises(DistributedError, match=r"longer than distributed.deadline_seconds = 1,"):
        run_on_nodes(STEP, short, inputs, tmp_path / "output")
    assert kubernetes.jobs == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_task_deletes_its_job(kubernetes, settings, inputs, tmp_path, number):
    kubernetes.on_get = lambda document: os.kill(os.getpid(), number)
    with pytest.raises(Interruption), interruptible():
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert kubernetes.jobs == {}


def test_a_job_that_somebody_deletes(kubernetes, settings, inputs, job, tmp_path):
    kubernetes.on_create = lambda document: kubernetes.jobs.clear()
    with pytest.raises(DistributedError, match=f"{job.name} was deleted by somebody else"):
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "User xcflow-pipeline cannot create resource trainjobs"),
        (403, "exceeded quota: requests.cpu"),
        (422, "specified trainingRuntime must be created before the TrainJob is created"),
    ],
)
def test_a_refusal_is_one_line(kubernetes, settings, inputs, tmp_path, capsys, status, message):
    kubernetes.refusals = {"create": (status, message), "delete": (403, "neither")}
    with pytest.raises(ClusterError) as error:
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    line = str(error.value)
    assert f"cannot be created: the cluster refuses it ({status}: {message})" in line
    assert capsys.readouterr().err == ""


def test_a_job_that_cannot_be_deleted_is_told(kubernetes, settings, inputs, job, tmp_path, capsys):
    kubernetes.refusals = {"delete": (403, "no such right")}
    kubernetes.on_create = do
    run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    line = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be deleted: the cluster refuses it (403: no such right)" in line
    assert line.endswith(f"kubectl delete trainjob {job.name}")
    assert (tmp_path / "output/weights").exists()


def test_without_kubeflow_trainer(kubernetes, settings, inputs, tmp_path):
    kubernetes.refusals = {"create": (404, "404 page not found")}
    with pytest.raises(ClusterError, match="is Kubeflow Trainer 2 installed"):
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")


def test_an_api_that_stays_away(kubernetes, settings, inputs, tmp_path):
    kubernetes.refusals = {"get": (503, "etcd has no leader")}
    with pytest.raises(ClusterError, match=r"is away \(503: etcd has no leader\)"):
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")


def test_nobody_answers(settings, inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9"))
    with pytest.raises(ClusterError, match=r"API at http://127.0.0.1:9 is away"):
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")


def test_an_api_that_comes_back(kubernetes, settings, inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kubernetes_api, "PATIENCE_S", 60.0)
    answers = kubernetes.answer

    def answer(method, path, body):
        if len(kubernetes.verbs) < 3:
            kubernetes.verbs.append("lost")
            return 503, "starting"
        return answers(method, path, body)

    kubernetes.answer = answer
    kubernetes.on_create = do
    run_on_nodes(STEP, settings, inputs, tmp_path / "output")
    assert capsys.readouterr().err.count("is away (503: starting): asking again") == 1


def test_a_pod_without_a_token(settings, inputs, tmp_path, monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="no access to Kubernetes"):
        run_on_nodes(STEP, settings, inputs, tmp_path / "output")


def test_several_nodes_without_a_cluster(settings, inputs, tmp_path, monkeypatch):
    monkeypatch.delenv(running.TRAINER_VARIABLE)
    for run in (run_on_nodes, run_step):
        with pytest.raises(ConfigError, match=r"distributed.nodes = 2 is for pipelines"):
            run(STEP, settings, inputs, tmp_path / "output")


def test_several_nodes_need_a_share():
    with pytest.raises(ConfigError, match=r"needs distributed.share"):
        config("")
