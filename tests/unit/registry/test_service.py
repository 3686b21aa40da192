"""The recording process: it neither fails nor delays a step, and sees one that is killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from xcflow.artifact import read_manifest, writing
from xcflow.errors import DataError, GateError, TrackingError
from xcflow.evaluation.verdict import KIND, VERDICT
from xcflow.registry import names
from xcflow.registry.service import Connection, connected, recorded, running

STEP = """
import sys, time
from pathlib import Path
from xcflow.registry.service import recorded
with recorded("train_encoder", {}, Path("nowhere")):
    print("working", flush=True)
    time.sleep(600)
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
        deadline = time.monotonic() + 60
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


def test_a_step_outlives_its_tracking_store(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("XCFLOW_RUN_KEY", "key")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/absent/folder/mlflow.db")
    done = False
    with recorded("train_encoder", {}, tmp_path):
        done = True
    assert done
    assert "the step goes unrecorded" in capfd.readouterr().err


def test_outside_a_run_nothing_is_recorded(monkeypatch, tmp_path):
    monkeypatch.delenv("XCFLOW_RUN_KEY", raising=False)
    with recorded("train_encoder", {}, tmp_path):
        assert "XCFLOW_TRACKING_SOCKET" not in os.environ
