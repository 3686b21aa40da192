"""Training that is killed goes on, on another machine, from what stands on a real S3 server."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys

import pytest
from faulty_proxy import FaultyProxy

from xcflow.artifact import read_manifest
from xcflow.config import CheckpointConfig
from xcflow.storage import exists, listing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("credentials")]

TRAIN = """
import sys
from pathlib import Path
from xcflow.config import Config
from xcflow.steps import run_step
step, config, output, *inputs = sys.argv[1:]
folders = {name: Path(path) for name, _, path in (pair.partition("=") for pair in inputs)}
run_step(step, Config.from_json(config), folders, Path(output))
"""
STEPS = {
    "train_encoder": ("encoder", ("dataset", "clusters")),
    "train_classifier": ("classifier", ("dataset", "embeddings")),
}


@pytest.fixture
def proxy(endpoint, monkeypatch):
    with FaultyProxy(endpoint).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def start(step, model, uri, machine, log):
    """A training process on a machine whose disk is the folder ``machine``."""
    checkpoint = CheckpointConfig(every_seconds=0, uri=uri)
    config = dataclasses.replace(model.config, checkpoint=checkpoint)
    inputs = [f"{name}={model.folders[name]}" for name in STEPS[step][1]]
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, step, config.to_json(), machine / "output", *inputs],
        env={**os.environ, "XCFLOW_HOME": str(machine / "home"), "OMP_NUM_THREADS": "1"},
        stderr=log.open("w"),
    )


def killed_while_saving(at, step, model, uri, machine, log, proxy):
    """A training process that is killed before it has sent its ``at``-th state."""
    proxy.on("PUT", "state.safetensors", lambda: process.send_signal(signal.SIGKILL), at=at)
    process = start(step, model, uri, machine, log)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("step", STEPS)
def test_another_machine_goes_on(step, model, proxy, tmp_path):
    uri, log = f"s3://bucket/checkpoints/{step}", tmp_path / "log"
    machine = tmp_path / "machine"
    for at in (3, 2):
        killed_while_saving(at, step, model, uri, machine, log, proxy)
        shutil.rmtree(machine)
    process = start(step, model, uri, machine, log)
    assert process.wait() == 0, log.read_text()
    assert "going on from epoch" in log.read_text()
    kind = STEPS[step][0]
    assert read_manifest(machine / "output", kind, verify=True) == model.manifest(kind)
    assert not exists(uri)


def test_other_settings_take_nothing_from_it(model, proxy, tmp_path):
    uri = "s3://bucket/checkpoints/two"
    log = tmp_path / "log"
    killed_while_saving(3, "train_classifier", model, uri, tmp_path / "one", log, proxy)
    kept = listing(uri)
    assert kept
    other = dataclasses.replace(model.config.run, seed=99)
    changed = dataclasses.replace(model, config=dataclasses.replace(model.config, run=other))
    process = start("train_classifier", changed, uri, tmp_path / "two", log)
    assert process.wait() == 0, log.read_text()
    assert "going on" not in log.read_text()
    assert listing(uri) == kept


def test_a_store_that_is_away_does_not_stop_the_training(model, proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    uri, log = "s3://bucket/checkpoints/away", tmp_path / "log"
    proxy.answer("PUT", "checkpoints", 503, "SlowDown", times=1000)
    process = start("train_classifier", model, uri, tmp_path / "one", log)
    assert process.wait() == 0, log.read_text()
    assert log.read_text().count("training goes on without a newer checkpoint") == 1
    found = read_manifest(tmp_path / "one" / "output", "classifier", verify=True)
    assert found == model.manifest("classifier")
