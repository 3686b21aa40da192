"""A training step on two nodes: real ranks under torchrun, a real S3 server between them."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from kubernetes_stub import NAMESPACE, end, kubernetes  # noqa: F401  # a fixture
from safetensors.numpy import load_file

from xcflow.artifact import read_manifest
from xcflow.config import Config
from xcflow.errors import ArtifactError
from xcflow.steps import STEPS, run_step
from xcflow.steps.remote_job import RemoteJob
from xcflow_components.nodes import running
from xcflow_components.nodes.running import run_on_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STEP = "train_encoder"


class Nodes:
    """Machines of a TrainJob: one torchrun each, told about each other as Kubeflow Trainer does.

    Args:
        folder: Gets each node's home and log.
    """

    def __init__(self, folder):
        self._folder = folder

    def start(self, document):
        threading.Thread(target=self._run, args=(document,), daemon=True).start()

    def _run(self, document):
        trainer = document["spec"]["trainer"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with ExitStack() as stack:
            nodes = [
                stack.enter_context(self._node(rank, trainer, port))
                for rank in range(trainer["numNodes"])
            ]
            codes = [node.wait() for node in nodes]
        end(document, "Failed" if any(codes) else "Complete", message="a node failed")

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
        with self.log(rank).open("wb") as log:
            return subprocess.Popen(
                trainer["command"], env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def log(self, rank):
        return self._folder / f"node-{rank}.log"


@pytest.fixture
def nodes(kubernetes, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XCFLOW_RUN_KEY", tmp_path.name)
    monkeypatch.setenv(running.TRAINER_VARIABLE, json.dumps({"image": "this-environment"}))
    monkeypatch.setenv(running.NAMESPACE_VARIABLE, NAMESPACE)
    monkeypatch.setattr(running, "POLL_S", 0.1)
    nodes = Nodes(tmp_path)
    kubernetes.on_create = nodes.start
    return nodes


@pytest.fixture
def config(model):
    """The settings of ``model`` as the component gets them, on two nodes."""
    tree = json.loads(model.config.to_json(STEPS[STEP].sections))
    tree["distributed"] |= {"nodes": 2, "max_restarts": 0, "share": "s3://bucket/share"}
    return Config.from_dict(tree)


@pytest.fixture
def inputs(model):
    return {name: model.folders[name] for name in STEPS[STEP].inputs}


@pytest.mark.usefixtures("credentials")
def test_two_nodes_train_what_one_process_does(nodes, kubernetes, config, inputs, tmp_path):  # noqa: F811
    run_on_nodes(STEP, config, inputs, tmp_path / "output")
    here = Config.from_dict({**config.to_dict(), "distributed": {}})
    run_step(STEP, here, inputs, tmp_path / "alone")
    one, two = (read_manifest(tmp_path / name, verify=True) for name in ("alone", "output"))
    assert (one.config_digest, one.inputs) == (two.config_digest, two.inputs)
    alone, together = (
        json.loads((tmp_path / name / "history.json").read_text()) for name in ("alone", "output")
    )
    assert alone["series"].keys() == together["series"].keys()
    losses = [name for name in alone["series"] if "loss" in name]
    assert losses
    for name in losses:
        np.testing.assert_allclose(together["series"][name], alone["series"][name], rtol=1e-4)
    assert kubernetes.jobs == {}
    tensors = next((tmp_path / "output").glob("*.safetensors"))
    assert np.isfinite(load_file(tensors)["auxiliary.weight"]).all()


@pytest.mark.usefixtures("credentials")
def test_a_ranks_error_reaches_the_task(nodes, kubernetes, config, inputs, tmp_path):  # noqa: F811
    """Here: inputs were mixed up."""
    mixed = {"dataset": inputs["clusters"], "clusters": inputs["dataset"]}
    job = RemoteJob.of(os.environ["XCFLOW_RUN_KEY"], STEP, config, mixed)
    with pytest.raises(ArtifactError) as error:
        run_on_nodes(STEP, config, mixed, tmp_path / "output")
    assert "\n" not in str(error.value)
    assert str(error.value) == str(job.error)
    assert kubernetes.jobs == {}
