"""The recording process: it neither fails nor delays a step, and sees one that is killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from xcflow.artifact import read_manifest, writing
from xcflow.errors import DataError, GateError, StoreAwayError, TrackingError
from xcflow.evaluation.verdict import KIND, VERDICT
from xcflow.registry import names
from xcflow.registry.outbox import Outbox, Record
from xcflow.registry.service import Connection, connected, recorded, running

STEP = """
import sys, time
from pathlib import Path
from xcflow.registry.service import recorded
with recorded("train_encoder", {}, Path("nowhere")):
    print("working", flush=True)
    time.sleep(600)
"""
RUNNER = """
import subprocess, sys
from xcflow.registry.service import running
with running():
    step = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
    step.wait()
"""


@pytest.fixture
def in_a_run(home, monkeypatch):
    monkeypatch.setenv("XCFLOW_HOME", str(home.root))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    monkeypatch.setenv("XCFLOW_RUN_KEY", "key")


def test_steps_of_a_run_share_a_service(in_a_run, tracker, tmp_path, judged):
    run = tracker.open_run("a run", "key", {}, {})
    with running() as path:
        with running() as same:
            assert same == path
        folder = tmp_path / "data"
        folder = tmp_path / "data"
        with recorded("validate_data", {"data": {"rows": 3}}, folder), writing(folder, "dataset"):
            pass
        with pytest.raises(DataError), recorded("cluster_labels", {}, tmp_path / "none"):
            raise DataError("no labels", "labels.jsonl", 3)
        killed = subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, text=True)
        assert killed.stdout.readline() == "working\n"
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        deadline = time.monotonic() + 200
        while "train_encoder" not in ended(tracker, run):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        steps = tracker.steps(run)
        with connected() as service, pytest.raises(GateError, match="not promoted"):
            service.call("promote", **promotion(tmp_path, judged))
    assert {name: child.info.status for name, child in steps.items()} == {
        "validate_data": names.FINISHED,
        "cluster_labels": names.FAILED,
        "train_encoder": names.KILLED,
    }
    assert steps["validate_data"].data.params == {"data.rows": "3"}
    assert steps["cluster_labels"].data.tags["error"] == "labels.jsonl, line 3: no labels"
    with pytest.raises(TrackingError, match="gone"):
        Connection(path)


def ended(tracker, run):
    steps = tracker.steps(run)
    return [name for name, child in steps.items() if child.info.status != "RUNNING"]


def promotion(folder, judged):
    for name in ("bundle", "evaluation"):
        with writing(folder / name, name):
            pass
    digests = {name: read_manifest(folder / name).digest for name in ("bundle", "evaluation")}
    judgement = judged(digests["bundle"], verdict="HOLD")
    judgement = replace(judgement, evaluation=digests["evaluation"])
    with writing(folder / "verdict", KIND) as partial:
        (partial / VERDICT).write_text(judgement.to_json())
    folders = {name: str(folder / name) for name in (*digests, "verdict")}
    return {"model": "m", "key": "key", **folders}


def test_a_step_outlives_its_tracking_store(in_a_run, home, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = False
    with running() as path:
        with recorded("train_encoder", {}, tmp_path):
            done = True
        with pytest.raises(StoreAwayError, match="cannot be reached"):
            Connection(path).decide("find_champion", 0.0, model="m", candidate="")
        with recorded("train_classifier", {}, tmp_path):
            pass
    assert done
    told = "tracking store http://127.0.0.1:1: cannot be reached; what is to be recorded waits"
    assert told in capfd.readouterr().err
    waiting = [Record.read(path) for path in Outbox(home).waiting()]
    assert [record.operation for record in waiting] == 2 * ["begin_step", "end_step"]
    assert waiting[1].arguments["status"] == names.FINISHED


def test_a_step_that_its_runner_left_behind_is_ended(in_a_run, tracker):
    run = tracker.open_run("a run", "key", {}, {})
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, STEP], stdout=subprocess.PIPE)
    assert runner.stdout.readline() == b"working\n"
    runner.send_signal(signal.SIGKILL)
    assert runner.stdout.read() == b""  # the step has ended too
    runner.wait()
    deadline = time.monotonic() + 200
    while "train_encoder" not in ended(tracker, run):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_outside_a_run_nothing_is_recorded(monkeypatch, tmp_path):
    monkeypatch.delenv("XCFLOW_RUN_KEY", raising=False)
    with recorded("train_encoder", {}, tmp_path):
        assert "XCFLOW_TRACKING_SOCKET" not in os.environ
