"""How a run goes is told as it goes, and its end by the exit code; ending one twice is no error."""

import itertools

import pytest
from kfp_stub import Fault

from xcflow.errors import ClusterError
from xcflow.home import Home
from xcflow.registry import names, operations
from xcflow.registry.tracking import Tracker
from xcflow_pipelines.cluster import status
from xcflow_pipelines.cluster.cancelling import cancel
from xcflow_pipelines.cluster.status import run_state, watch
from xcflow_pipelines.cluster.submitting import submit

TRAINED = [("configure", "SUCCEEDED", 5, ""), ("train-encoder", "SUCCEEDED", 90, "")]
# What the endpoint lists beside the tasks.
PODS = [(name, "SUCCEEDED", 1, "") for name in ("root", "root-driver", "configure-driver")]
PODS += [(name, "SUCCEEDED", 1, "") for name in ("executor", "exit-handler-1", "condition-2")]
NOBODY = "00000000-0000-4000-8000-00000000dead"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(status, "POLL_S", 0.01)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def run(kubeflow, config):
    return submit(config, "quick", "s3://catalogues/debian")


def test_a_run_is_found_by_name_and_id(config, run):
    by_name, by_id = run_state(config, run.name), run_state(config, run.run_id)
    assert (by_name.run_id, by_name.name) == (by_id.run_id, by_id.name) == (run.run_id, run.name)
    assert by_name.state == "PENDING"
    assert by_name.page == run.page
    assert by_name.exit_code == 0


def test_of_several_of_a_name_it_is_the_latest(kubeflow, config, run):
    later = {**kubeflow.runs[run.run_id], "run_id": "later", "created_at": "2100-01-01T00:00:00Z"}
    kubeflow.runs["later"] = later
    assert run_state(config, run.name).run_id == "later"


def test_tasks_have_states_times_and_errors(kubeflow, config, run):
    failed = ("train-encoder", "FAILED", 7, "out of\n memory")
    kubeflow.go_on(run.run_id, "FAILED", [*PODS, *TRAINED[:1], failed], error="child failed")
    state = run_state(config, run.name)
    assert [(t.name, t.state, t.seconds, t.error) for t in state.tasks] == [
        ("configure", "SUCCEEDED", 5.0, ""),
        ("train-encoder", "FAILED", 7.0, "out of memory"),
    ]
    assert state.error == "train-encoder: out of memory"
    assert state.seconds is not None


def test_where_no_task_says_why_the_run_does(kubeflow, config, run):
    kubeflow.go_on(run.run_id, "FAILED", [], error="image cannot be pulled")
    assert run_state(config, run.name).error == "image cannot be pulled"


@pytest.mark.parametrize(
    ("state", "tasks", "code"),
    [
        ("RUNNING", TRAINED, 0),
        ("SUCCEEDED", [*TRAINED, ("promote-model", "SUCCEEDED", 1, "")], 0),
        ("SUCCEEDED", TRAINED, 3),
        ("SUCCEEDED", [*TRAINED, ("promote-model", "SKIPPED", 0, "")], 3),
        ("FAILED", TRAINED, 1),
        ("FAILED", [*TRAINED, ("promote-model", "SUCCEEDED", 1, "")], 1),
        ("CANCELED", TRAINED, 1),
    ],
)
def test_the_exit_code_is_that_of_a_local_run(kubeflow, config, run, state, tasks, code):
    kubeflow.go_on(run.run_id, state, tasks)
    assert run_state(config, run.name).exit_code == code


def test_a_promotion_that_was_refused_ends_well_and_leaves_the_champion(
    kubeflow, config, run, tmp_path, monkeypatch
):
    kubeflow.go_on(run.run_id, "SUCCEEDED", [*TRAINED, ("promote-model", "SUCCEEDED", 1, "")])
    home = Home.at(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home.database}")
    tracker = Tracker.at(config.tracking, home)
    tracked = tracker.open_run(run.name, run.run_id, {}, {})
    assert run_state(config, run.name).exit_code == 0
    tracker.tag(tracked, {names.NOT_PROMOTED: "tom may not promote"})
    for state in (run_state(config, run.name), *watch(config, run.name)):
        assert (state.promoted, state.exit_code, state.error) == (False, 3, "tom may not promote")


def test_watching_tells_each_change_once_and_ends_with_the_run(kubeflow, config, run):
    steps = iter(
        [
            ("RUNNING", [("configure", "RUNNING", 1, "")]),
            ("RUNNING", [("configure", "SUCCEEDED", 2, "")]),
            ("SUCCEEDED", [("configure", "SUCCEEDED", 2, "")]),
        ]
    )
    seen = []
    for state in watch(config, run.name):
        seen.append((state.state, [(t.name, t.state) for t in state.tasks]))
        if step := next(steps, None):
            kubeflow.go_on(run.run_id, *step)
    assert seen == [
        ("PENDING", []),
        ("RUNNING", [("configure", "RUNNING")]),
        ("RUNNING", [("configure", "SUCCEEDED")]),
        ("SUCCEEDED", [("configure", "SUCCEEDED")]),
    ]


def test_watching_outlasts_an_endpoint_that_is_away(kubeflow, config, run, capsys):
    states = watch(config, run.run_id)
    assert next(states).state == "PENDING"
    kubeflow.go_on(run.run_id, "SUCCEEDED")
    kubeflow.faults = [Fault("GET", "/runs/", status=503, times=9)]
    assert [state.state for state in states] == ["SUCCEEDED"]
    assert "without being watched" in capsys.readouterr().err


def test_watching_gives_up_in_the_end(kubeflow, config, run, monkeypatch):
    monkeypatch.setattr(status, "PATIENCE_S", 0.0)
    states = watch(config, run.run_id)
    next(states)
    kubeflow.faults = [Fault("GET", "/runs/", status=503, times=99)]
    with pytest.raises(ClusterError, match=r"fails \(503\)"):
        list(itertools.islice(states, 9))


@pytest.mark.parametrize("wanted", ["nothing-like-that", NOBODY])
def test_a_run_that_is_not_there_is_one_line(config, run, wanted):
    with pytest.raises(ClusterError, match="no run"):
        run_state(config, wanted)


def test_where_nothing_was_submitted_yet_it_says_so(kubeflow, config):
    with pytest.raises(ClusterError, match="no experiment 'xcflow': nothing was submitted there"):
        run_state(config, "some-run")


def test_a_run_is_ended_and_ended_again(kubeflow, config, run, tmp_path):
    outcome = cancel(config, run.name, Home.at(tmp_path))
    assert not outcome.was_over
    assert outcome.run.state == "CANCELING"
    kubeflow.go_on(run.run_id, "CANCELED")
    again = cancel(config, run.name, Home.at(tmp_path))
    assert again.was_over
    assert again.run.state == "CANCELED"


def test_a_run_that_ends_by_itself_meanwhile_is_over(kubeflow, config, run, tmp_path):
    kubeflow.faults = [Fault("POST", ":terminate$", status=400)]
    with pytest.raises(ClusterError, match=r"refused \(400\)"):
        cancel(config, run.name, Home.at(tmp_path))
    answer = kubeflow.terminate_run

    def ended(query, body, run_id):
        kubeflow.go_on(run_id, "SUCCEEDED")
        return answer(query, body, run_id)

    kubeflow.routes = [(p, ended if "terminate" in p else act) for p, act in kubeflow.routes]
    assert cancel(config, run.name, Home.at(tmp_path)).was_over


def test_the_tracked_run_of_a_cancelled_run_is_closed(kubeflow, run, tmp_path, monkeypatch, config):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    home = Home.at(tmp_path)
    tracker = Tracker.at(config.tracking, home)
    dataset = {"name": "x", "digest": "d", "source": "/x"}
    run_id = operations.open_run(tracker, run.name, run.run_id, {}, {}, dataset)
    cancel(config, run.name, home)
    tracked = tracker.client.get_run(run_id)
    assert tracked.info.status == names.KILLED
    assert tracked.data.tags[names.ERROR] == "cancelled"
