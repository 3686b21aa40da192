"""The compiled pipeline is kept beside its source: what a cluster gets changes only on purpose.

What the local runner gets is the same, but for what only a cluster heeds.
"""

import copy
import re
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from xcflow.config import Config
from xcflow_pipelines.cluster.compiling import compile_package
from xcflow_pipelines.placement import on_this_machine
from xcflow_pipelines.retraining import UNCACHED, retraining_pipeline

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "retraining.yaml"
PROFILE = HERE / "cluster.toml"


def compiled_with(**sections):
    """The two documents of a pipeline that is compiled with some settings."""
    return list(yaml.safe_load_all(compile_package(Config.from_dict(sections)).text))


@pytest.fixture(scope="module")
def documents():
    return compiled_with()


@pytest.fixture(scope="module")
def production():
    """The pipeline of a cluster that asks for everything."""
    return list(yaml.safe_load_all(compile_package(Config.load(PROFILE)).text))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The pipeline as the local runner gets it."""
    path = tmp_path_factory.mktemp("ir") / "local.yaml"
    compiler.Compiler().compile(retraining_pipeline(on_this_machine), str(path))
    (pipeline,) = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return pipeline


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


def placed(pipeline):
    """What of a pipeline a placement sets, taken out."""
    taken = []
    for executor in pipeline["deploymentSpec"]["executors"].values():
        container = executor["container"]
        taken.append([container.pop(key, None) for key in ("image", "resources", "env")])
    for dag in dags(pipeline):
        taken += [task.pop("retryPolicy", None) for task in dag["tasks"].values()]
    return taken


def test_it_is_the_golden_file():
    package = compile_package(Config.load(PROFILE))
    assert package.text == GOLDEN.read_text(encoding="utf-8"), (
        "the pipeline changed; if that is meant, write the golden file anew: "
        f"xcflow pipeline compile --profile {PROFILE} --output {GOLDEN}"
    )
    assert compile_package(Config.load(PROFILE)).version == package.version


def test_local_run_and_cluster_agree_step_by_step(local, production):
    here, there = copy.deepcopy(local), copy.deepcopy(production[0])
    assert placed(here) != placed(there)
    assert list(tasks(here)) == list(tasks(there))
    for name, task in tasks(here).items():
        assert task == tasks(there)[name], name
    assert here == there


def test_what_a_placement_sets_is_no_part_of_the_steps(local):
    # So the comparison above would notice a step that differs.
    here, other = copy.deepcopy(local), copy.deepcopy(local)
    tasks(other)["train-encoder"]["dependentTasks"].pop()
    placed(here), placed(other)
    assert here != other


def test_it_is_what_kubeflow_reads(production):
    pipeline, platform = production
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


def test_each_task_has_what_the_profile_says(production):
    pipeline, platform = production
    containers = pipeline["deploymentSpec"]["executors"]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(pods) == set(containers)
    for name, executor in containers.items():
        container, pod = executor["container"], pods[name]
        assert container["image"].startswith("registry.example.com/xcflow-train@sha256:0123"), name
        assert {v["name"]: v["value"] for v in container["env"]} == {
            "AWS_ENDPOINT_URL": "https://s3.example.com",
            "HOME": "/tmp",
            "MLFLOW_EXPERIMENT_NAME": "nightly",
            "MLFLOW_TRACKING_URI": "https://mlflow.example.com",
            "XCFLOW_HOME": "/xcflow",
        }, name
        assert {
            key["envVar"]: f"{secret['secretName']}/{key['secretKey']}"
            for secret in pod["secretAsEnv"]
            for key in secret["keyToEnv"]
        } == Config.load(PROFILE).cluster.secrets, name
        assert pod["fieldPathAsEnv"] == [
            {"name": "XCFLOW_RUN_KEY", "fieldPath": "metadata.labels['pipeline/runid']"}
        ], name
        assert pod["nodeSelector"]["labels"]["kubernetes.io/arch"] == "amd64", name
        assert {"key": "spot", "operator": "Equal", "value": "true", "effect": "NoExecute",
                "tolerationSeconds": "60"} in pod["tolerations"], name  # fmt: skip
        assert pod["imagePullPolicy"] == "IfNotPresent", name
        assert [secret["secretName"] for secret in pod["imagePullSecret"]] == ["registry"], name
        assert pod["activeDeadlineSeconds"] == "43200", name
        assert pod["securityContext"] == {"runAsNonRoot": True}, name
        assert pod["podMetadata"]["labels"]["app.kubernetes.io/name"] == "xcflow", name


def test_only_the_step_with_accelerators_asks_for_their_nodes(production):
    pipeline, platform = production
    asked = pipeline["deploymentSpec"]["executors"]["exec-train-encoder"]["container"]["resources"]
    assert asked["resourceCpuRequest"] == "8"
    assert asked["resourceMemoryLimit"] == "64Gi"
    assert asked["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert asked["accelerator"]["resourceCount"] == "2"
    for name, executor in pipeline["deploymentSpec"]["executors"].items():
        has = "accelerator" in executor["container"]["resources"]
        assert has == (name == "exec-train-encoder"), name
    for name, pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        product = pod["nodeSelector"]["labels"].get("nvidia.com/gpu.product")
        assert bool(product) == (name == "exec-train-encoder"), name
        keys = [toleration["key"] for toleration in pod["tolerations"]]
        assert ("nvidia.com/gpu" in keys) == (name == "exec-train-encoder"), name


def test_a_random_user_on_a_read_only_root_can_write(documents, production):
    for pipeline, platform in (documents, production):
        pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        for name, executor in pipeline["deploymentSpec"]["executors"].items():
            variables = {v["name"]: v["value"] for v in executor["container"]["env"]}
            mounts = pods[name]["emptyDirMounts"] + pods[name].get("pvcMount", [])
            places = [mount["mountPath"] for mount in mounts]
            assert variables["HOME"] in places, name
            assert variables["XCFLOW_HOME"] in places, name
            assert "/tmp" in places, name


def test_loaders_of_data_have_shared_memory(production):
    pods = production[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    sizes = {
        name: mount["sizeLimit"]
        for name, pod in pods.items()
        for mount in pod["emptyDirMounts"]
        if mount["mountPath"] == "/dev/shm" and mount["medium"] == "Memory"
    }
    assert sizes["exec-train-encoder"] == "16Gi"
    assert sizes["exec-train-classifier"] == "1Gi"
    assert "exec-notify" not in sizes


def test_failed_tasks_are_tried_again_with_growing_pauses(production):
    for name, task in tasks(production[0]).items():
        assert task["retryPolicy"] == {
            "maxRetryCount": 3,
            "backoffDuration": "30s",
            "backoffFactor": 3.0,
            "backoffMaxDuration": "600s",
        }, name
    without = compiled_with(cluster={"retry": {"count": 0}})[0]
    assert not any("retryPolicy" in task for task in tasks(without).values())


def test_a_run_has_an_end_and_is_cleared_away(production):
    assert production[1]["platforms"]["kubernetes"]["pipelineConfig"] == {
        "activeDeadlineSeconds": 86400,
        "resourceTtlOnCompletion": 259200,
    }
    unlimited = compiled_with(cluster={"deadline_seconds": 0, "ttl_seconds": 0})
    assert "pipelineConfig" not in unlimited[1]["platforms"]["kubernetes"]


def test_the_cache_can_be_left_alone():
    pipeline = compiled_with(cluster={"cache": False})[0]
    for name, task in tasks(pipeline).items():
        assert not task["cachingOptions"].get("enableCache"), name


def test_without_a_profile_nothing_special_is_asked_for(documents):
    for pod in documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        assert not {"secretAsEnv", "nodeSelector", "tolerations", "pvcMount", "imagePullSecret"} & (
            set(pod)
        )
