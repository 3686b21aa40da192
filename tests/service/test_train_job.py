"""A training step on two nodes: real ranks under torchrun, a real S3 server between them."""

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kubernetes_stub import NAMESPACE, end, kubernetes  # noqa: F401  # a fixture

from xcflow.artifact import read_manifest
from xcflow.config import Config
from xcflow.errors import ArtifactError
from xcflow.steps import STEPS, run_step
from xcflow.steps.remote_job import RemoteJob
from xcflow_components.nodes import running
from xcflow_components.nodes.running import run_on_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STEP = "train_encoder"
# Python runs this first in each process: the first rank dies as it keeps its second state.
DIES_ONCE = """
import os, signal, sys

if os.environ.get("RANK") == "0" and not os.path.exists(__file__ + ".died"):
    seen = []
    def see(event, arguments):
        if event == "os.rename" and str(arguments[1]).endswith("state.safetensors"):
            seen.append(event)
            if len(seen) == 2:
                open(__file__ + ".died", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(see)
"""


class Nodes:
    """Machines of a TrainJob: one torchrun each, told about each other as Kubeflow Trainer does.

    Args:
        folder: Gets each node's home and log.
    """

    def __init__(self, folder):
        self._folder = folder
        self._nodes = []

    def start(self, document):
        threading.Thread(target=self._run, args=(document,), daemon=True).start()

    def _run(self, document):
        trainer = document["spec"]["trainer"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._nodes = [self._node(rank, trainer, port) for rank in range(trainer["numNodes"])]
        codes = [node.wait() for node in self._nodes]
        end(document, "Failed" if any(codes) else "Complete", message="a node failed")

    def stop(self):
        for node in self._nodes:
            node.terminate()
            node.wait()

    def _node(self, rank, trainer, port):
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {
            "PATH": programs,
            "XCFLOW_HOME": str(self._folder / f"node-{rank}"),
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(rank),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
        with (self._folder / f"node-{rank}.log").open("wb") as log:
            return subprocess.Popen(
                trainer["command"], env=environment, stdout=log, stderr=subprocess.STDOUT
            )


@pytest.fixture
def nodes(kubernetes, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XCFLOW_RUN_KEY", tmp_path.name)
    monkeypatch.setenv(running.TRAINER_VARIABLE, json.dumps({"image": "this-environment"}))
    monkeypatch.setenv(running.NAMESPACE_VARIABLE, NAMESPACE)
    monkeypatch.setattr(running, "POLL_S", 0.1)
    nodes = Nodes(tmp_path)
    kubernetes.on_create = nodes.start
    yield
    nodes.stop()


@pytest.fixture
def config(model):
    """Settings as the component gets them, for two nodes."""
    tree = json.loads(model.config.to_json(STEPS[STEP].sections))
    tree["encoder"] |= {"dropout": 0.0}  # which ranks draw otherwise than a single process
    tree["module_one"] |= {"epochs": 3}
    tree["distributed"] |= {"nodes": 2, "max_restarts": 0, "share": "s3://bucket/share"}
    return Config.from_dict(tree)


@pytest.fixture
def inputs(model):
    return {name: model.folders[name] for name in STEPS[STEP].inputs}


def assert_as_alone(config, inputs, output):
    """The output is the one of a single process."""
    alone = output.with_name("alone")
    run_step(STEP, Config.from_dict({**config.to_dict(), "distributed": {}}), inputs, alone)
    one, two = (read_manifest(folder, verify=True) for folder in (alone, output))
    assert (one.config_digest, one.inputs) == (two.config_digest, two.inputs)
    here, there = (
        json.loads((folder / "history.json").read_text())["series"] for folder in (alone, output)
    )
    assert here.keys() == there.keys()
    losses = [name for name in here if "loss" in name]
    assert losses
    for name in losses:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-4)


@pytest.mark.usefixtures("credentials", "nodes")
def test_two_nodes_train_what_one_process_does(kubernetes, config, inputs, tmp_path):  # noqa: F811
    run_on_nodes(STEP, config, inputs, tmp_path / "output")
    assert_as_alone(config, inputs, tmp_path / "output")
    assert kubernetes.jobs == {}


@pytest.mark.usefixtures("credentials", "nodes")
def test_a_lost_rank_is_made_up_for(config, inputs, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(DIES_ONCE)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path.rstrip(os.pathsep))
    again = replace(config, distributed=replace(config.distributed, max_restarts=1))
    run_on_nodes(STEP, again, inputs, tmp_path / "output")
    assert (tmp_path / "sitecustomize.py.died").exists()
    assert_as_alone(config, inputs, tmp_path / "output")


@pytest.mark.usefixtures("credentials", "nodes")
def test_a_ranks_error_reaches_the_task(kubernetes, config, inputs, tmp_path):  # noqa: F811
    """Here: inputs were mixed up."""
    mixed = {"dataset": inputs["clusters"], "clusters": inputs["dataset"]}
    job = RemoteJob.of(os.environ["XCFLOW_RUN_KEY"], STEP, config, mixed)
    with pytest.raises(ArtifactError) as error:
        run_on_nodes(STEP, config, mixed, tmp_path / "output")
    assert "\n" not in str(error.value)
    assert str(error.value) == str(job.error)
    assert kubernetes.jobs == {}
