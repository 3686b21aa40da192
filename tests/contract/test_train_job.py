"""A step's TrainJob, from the profile to what the manifests show and allow."""

import json

import custom_resources
import pytest
import yaml
from kubernetes_stub import VERBS
from manifests import DEPLOY

from xcflow.config import Config
from xcflow.steps import STEPS
from xcflow.steps.remote_job import RemoteJob
from xcflow_components.nodes.running import NAMESPACE_VARIABLE, TRAINER_VARIABLE
from xcflow_components.nodes.train_job import GROUP, PLURAL, train_job, trainer_of
from xcflow_pipelines.cluster.compiling import compile_package

IMAGE = "registry.example.org/xcflow-train@sha256:" + 64 * "0"
SETTINGS = {
    "resources": {"train_encoder": {"cpu": "4", "memory": "8Gi"}},
    "distributed": {"nodes": 2, "processes": 4, "share": "s3://training/share"},
    "cluster": {
        "image": IMAGE,
        "require_digests": True,
        "environment": {"AWS_ENDPOINT_URL": "https://s3.example.org"},
        "secrets": {"AWS_ACCESS_KEY_ID": "s3/access-key"},
    },
}


def example():
    return yaml.safe_load((DEPLOY / "examples/train-job.yaml").read_text())


@pytest.fixture(scope="module")
def compiled():
    """The tasks' containers, and what Kubernetes is to do for them, by step."""
    pipeline, platform = yaml.safe_load_all(compile_package(Config.from_dict(SETTINGS)).text)
    containers = pipeline["deploymentSpec"]["executors"]
    extras = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        name: (containers[f"exec-{name.replace('_', '-')}"]["container"], extras[key])
        for name in STEPS
        if (key := f"exec-{name.replace('_', '-')}") in containers
    }


def test_the_example_is_what_a_step_makes():
    config = Config.from_dict(SETTINGS)
    job = RemoteJob("s3://training/share/jobs/xcflow-train-encoder-1b9d6bcd0f3e4a57")
    trainer = trainer_of(config, "train_encoder")
    made = train_job(job, "train_encoder", config.distributed, trainer, "xcflow-pipelines")
    assert made == example()
    assert custom_resources.problems(made) == []


def test_accelerators_are_asked_for_on_each_node():
    wanted = {"accelerator": "nvidia.com/gpu", "accelerators": 2}
    config = Config.from_dict({"resources": {"train_classifier": wanted}})
    limits = trainer_of(config, "train_classifier")["resourcesPerNode"]["limits"]
    assert limits == {"memory": "4Gi", "nvidia.com/gpu": "2"}


def test_the_role_allows_just_what_is_asked():
    role = next(yaml.safe_load_all((DEPLOY / "base/rbac/pipeline-role.yaml").read_text()))
    (rule,) = [rule for rule in role["rules"] if GROUP in rule["apiGroups"]]
    assert rule["resources"] == [PLURAL]
    assert sorted(rule["verbs"]) == sorted(VERBS.values())


def test_tasks_that_start_nodes_know_what_these_get(compiled):
    for name, (container, extras) in compiled.items():
        variables = {each["name"]: each["value"] for each in container.get("env", [])}
        fields = {each["name"]: each["fieldPath"] for each in extras["fieldPathAsEnv"]}
        assert (TRAINER_VARIABLE in variables) == STEPS[name].shared
        if STEPS[name].shared:
            trainer = json.loads(variables[TRAINER_VARIABLE])
            assert trainer == trainer_of(Config.from_dict(SETTINGS), name)
            assert fields[NAMESPACE_VARIABLE] == "metadata.namespace"


def test_tasks_that_only_wait_ask_for_little(compiled):
    container, _ = compiled["train_encoder"]
    assert container["resources"]["resourceMemoryLimit"] == "1Gi"
    container, _ = compiled["build_index"]
    assert container["resources"]["resourceMemoryLimit"] == "4Gi"
