"""`xcflow pipeline ...` as it is typed: what it says, in words and in JSON, and its exit codes."""

import json

import pytest
import yaml

from xcflow_pipelines.cli import app
from xcflow_pipelines.cluster import scheduling, status
from xcflow_pipelines.shell import guarded

URI = "s3://catalogues/debian"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch, tmp_path):
    monkeypatch.setattr(scheduling, "POLL_S", 0.01)
    monkeypatch.setattr(status, "POLL_S", 0.01)
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def xcflow(capsys):
    def call(*arguments, code=0):
        got = guarded(lambda: app(["pipeline", *arguments], standalone_mode=False))
        said = capsys.readouterr()
        assert got == code, said.err
        return said.err if code in (1, 2) and not said.out else said.out

    return call


def test_compile_writes_the_same_bytes_each_time(xcflow, tmp_path):
    first, second = tmp_path / "a" / "first.yaml", tmp_path / "second.yaml"
    answer = json.loads(xcflow("compile", "--output", str(first), "--json"))
    assert answer["version"] in xcflow("compile", "--output", str(second))
    assert first.read_bytes() == second.read_bytes()
    assert len(list(yaml.load_all(first.read_text(), yaml.CSafeLoader))) == 2


def test_compile_for_production_writes_nothing_that_is_not_fit(xcflow, tmp_path):
    path = tmp_path / "pipeline.yaml"
    said = xcflow("compile", "--output", str(path), "--production", code=1)
    assert "not fit for production: image xcflow-train:" in said
    assert not path.exists()
    said = xcflow("compile", "--output", str(path), "--production", "--set", "cluster.image=x:1",
                  code=2)  # fmt: skip
    assert "cluster.image must be named by its digest" in said


def test_a_pipeline_that_there_is_not(xcflow, tmp_path):
    said = xcflow("compile", "--output", str(tmp_path / "x"), "--pipeline", "nope", code=1)
    assert "no pipeline 'nope': known are xcflow-retraining, xcflow-catalogue-refresh" in said


def test_from_submit_to_status_to_cancel(xcflow, kubeflow):
    run = json.loads(xcflow("submit", "--catalogue", URI, "--key", "k", "--json"))
    assert run["created"]
    assert "was started before" in xcflow("submit", "--catalogue", URI, "--key", "k")
    assert "PENDING" in xcflow("status", run["name"])
    task = [("train-encoder", "RUNNING", 3, "")]
    kubeflow.go_on(run["run_id"], "RUNNING", task)
    assert json.loads(xcflow("status", run["run_id"], "--json"))["tasks"][0]["state"] == "RUNNING"
    assert "is being ended" in xcflow("cancel", run["name"])
    kubeflow.go_on(run["run_id"], "CANCELED", [])
    assert "is over already: CANCELED" in xcflow("cancel", run["name"])
    assert json.loads(xcflow("cancel", run["name"], "--json"))["was_over"]
    assert "CANCELED" in xcflow("status", run["name"], code=1)


def test_a_refresh_is_submitted_and_scheduled_under_names_of_its_own(xcflow, kubeflow):
    refresh = ("--pipeline", "xcflow-catalogue-refresh", "--catalogue", URI, "--json")
    run = json.loads(xcflow("submit", *refresh))
    assert run["version"].startswith("xcflow-catalogue-refresh-")
    assert run["name"].startswith("debian-refresh-")
    xcflow("schedule", "--cron", "0 0 3 * * *", "--catalogue", URI)
    xcflow("schedule", "--cron", "0 0 4 * * *", "--name", "refresh", *refresh)
    assert len(kubeflow.enabled()) == 2
    rows = kubeflow.recurring_runs.values()
    names = [row["runtime_config"]["parameters"]["run_name"] for row in rows]
    assert [name.split("-")[1] for name in names] == ["quick", "refresh"]


def test_status_says_whose_model_is_champion(xcflow, kubeflow):
    run = json.loads(xcflow("submit", "--catalogue", URI, "--json"))
    kubeflow.go_on(run["run_id"], "SUCCEEDED", [("gate-model", "SUCCEEDED", 3, "")])
    assert "SUCCEEDED: the champion stays" in xcflow("status", run["name"], code=3)
    kubeflow.go_on(run["run_id"], "SUCCEEDED", [("promote-model", "SUCCEEDED", 3, "")])
    assert "SUCCEEDED: its model is the champion" in xcflow("status", run["name"], "--watch")
    kubeflow.go_on(run["run_id"], "FAILED", [("validate-data", "FAILED", 3, "bad rows")])
    said = xcflow("status", run["name"], "--watch", code=1)
    assert "FAILED     validate-data             3 s  bad rows" in said
    assert "FAILED: validate-data: bad rows" in said
    lines = xcflow("status", run["name"], "--watch", "--json", code=1).splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["FAILED"]


def test_a_schedule_is_made_listed_changed_and_removed(xcflow, kubeflow):
    assert xcflow("schedule") == ""
    made = xcflow("schedule", "--cron", "0 0 3 * * *", "--catalogue", URI, "--name", "nightly")
    assert "in force, at 0 0 3 * * * (UTC)" in made
    again = xcflow("schedule", "--cron", "0 0 3 * * *", "--catalogue", URI, "--name", "nightly")
    assert "in force already" in again
    changed = xcflow("schedule", "--cron", "0 0 4 * * *", "--catalogue", URI, "--name", "nightly")
    assert "switched off" in changed
    rows = json.loads(xcflow("schedule", "--json"))
    assert [(row["cron"], row["enabled"]) for row in rows] == [
        ("0 0 3 * * *", False),
        ("0 0 4 * * *", True),
    ]
    assert f"in force  0 0 4 * * * (UTC)  {URI}" in xcflow("schedule")
    assert "switched off" in xcflow("schedule", "--remove", "--name", "nightly")
    assert "was off" in xcflow("schedule", "--remove", "--name", "nightly")
    assert kubeflow.enabled() == []


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["schedule", "--cron", "0 3 * * *", "--catalogue", URI], 2, "has 5 fields"),
        (["schedule", "--cron", "0 0 3 * * *"], 2, "--cron and --catalogue belong together"),
        (["schedule", "--remove", "--name", "none"], 1, "no schedule 'none'"),
        (["submit", "--catalogue", "/here"], 1, "the cluster's tasks cannot read it"),
        (["trigger", "--catalogue", ""], 2, "--catalogue is empty: name the folder"),
        (["submit", "--catalogue", "s3://"], 1, "s3://: expected s3://bucket/prefix"),
        (["status", "nothing"], 1, "no experiment 'xcflow'"),
        (["submit"], 2, "Missing option '--catalogue'"),
    ],
)
def test_what_is_wrong_is_one_line(xcflow, kubeflow, arguments, code, line):
    said = xcflow(*arguments, code=code)
    assert line in said
    assert said.count("\n") == 1
