"""The compiled pipeline is kept beside its source: what a cluster gets changes only on purpose."""

import re
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from xcflow.config import Config
from xcflow_pipelines.retraining import UNCACHED, compile_pipeline

GOLDEN = Path(__file__).parent / "golden" / "retraining.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("ir") / "retraining.yaml"
    compile_pipeline(Config(), path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def documents(compiled):
    return list(yaml.safe_load_all(compiled))


def dags(pipeline):
    """The DAG of the pipeline and those of its sub-pipelines."""
    yield pipeline["root"]["dag"]
    for component in pipeline["components"].values():
        if "dag" in component:
            yield component["dag"]


def tasks(pipeline):
    """Name -> task of everything that runs in a container."""
    return {
        name: task
        for dag in dags(pipeline)
        for name, task in dag["tasks"].items()
        if "executorLabel" in pipeline["components"][task["componentRef"]["name"]]
    }


def test_it_is_the_golden_file(compiled):
    assert compiled == GOLDEN.read_text(encoding="utf-8"), (
        "the pipeline changed; if that is meant, write the golden file anew: "
        "python -m xcflow_pipelines.retraining tests/contract/golden/retraining.yaml"
    )


def test_it_is_what_kubeflow_reads(documents):
    pipeline, platform = documents
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    assert spec.pipeline_info.name == "xcflow-retraining"
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_each_task_has_an_image_and_bounds(documents):
    for name, executor in documents[0]["deploymentSpec"]["executors"].items():
        container = executor["container"]
        assert re.fullmatch(r"xcflow-train:\d+\.\d+\.\d+", container["image"]), name
        resources = container["resources"]
        assert resources["resourceCpuRequest"], name
        assert resources["resourceMemoryRequest"], name
        assert resources["resourceMemoryLimit"], name


def test_caching_is_set_task_by_task(documents):
    for name, task in tasks(documents[0]).items():
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (name.replace("-", "_") not in UNCACHED), name


def test_no_cached_task_takes_what_differs_from_run_to_run(documents):
    for name, task in tasks(documents[0]).items():
        if task["cachingOptions"].get("enableCache"):
            assert "run_name" not in task["inputs"]["parameters"], name


def test_each_cached_task_knows_the_code(documents):
    for name, task in tasks(documents[0]).items():
        if task["cachingOptions"].get("enableCache"):
            source = task["inputs"]["parameters"]["library_digest"]
            assert source["componentInputParameter"].endswith("library_digest"), name


def test_a_failure_anywhere_reaches_the_exit_handler(documents):
    root = documents[0]["root"]["dag"]["tasks"]
    assert set(root) == {"exit-handler-1", "notify"}
    assert root["notify"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"


def test_only_a_good_verdict_promotes(documents):
    (condition,) = [
        task["triggerPolicy"]["condition"]
        for dag in dags(documents[0])
        for task in dag["tasks"].values()
        if "condition" in task.get("triggerPolicy", {})
    ]
    assert condition.endswith("== 'PROMOTE'")


def test_resources_come_from_the_configuration(tmp_path):
    config = Config.from_dict(
        {"resources": {"train_encoder": {"cpu": "16", "memory": "64Gi", "accelerators": 1}}}
    )
    path = tmp_path / "gpu.yaml"
    compile_pipeline(config, path)
    executors = next(yaml.safe_load_all(path.read_text()))["deploymentSpec"]["executors"]
    asked = executors["exec-train-encoder"]["container"]["resources"]
    assert asked["resourceCpuRequest"] == "16"
    assert asked["resourceMemoryLimit"] == "64Gi"
    assert asked["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert asked["accelerator"]["resourceCount"] == "1"
    assert "accelerator" not in executors["exec-build-index"]["container"]["resources"]


def test_a_configured_tracking_store_reaches_each_task(tmp_path):
    config = Config.from_dict({"tracking": {"uri": "https://mlflow", "experiment": "nightly"}})
    path = tmp_path / "tracked.yaml"
    compile_pipeline(config, path)
    executors = next(yaml.safe_load_all(path.read_text()))["deploymentSpec"]["executors"]
    for executor in executors.values():
        variables = {v["name"]: v["value"] for v in executor["container"]["env"]}
        assert variables["MLFLOW_TRACKING_URI"] == "https://mlflow"
        assert variables["MLFLOW_EXPERIMENT_NAME"] == "nightly"
