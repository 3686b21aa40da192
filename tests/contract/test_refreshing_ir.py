"""The refresh as a cluster gets it: the same tasks as the retraining pipeline but for training."""

from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.pipeline_spec import pipeline_spec_pb2

from xcflow.config import Config
from xcflow.steps import REFRESHING
from xcflow_pipelines.cluster.compiling import compile_package
from xcflow_pipelines.placement import on_this_machine
from xcflow_pipelines.refreshing import NAME, UNCACHED, refreshing_pipeline

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "refreshing.yaml"
PROFILE = HERE / "cluster.toml"


@pytest.fixture(scope="module")
def package():
    return compile_package(Config.load(PROFILE), NAME)


@pytest.fixture(scope="module")
def pipeline(package):
    return next(yaml.safe_load_all(package.text))


def parts_of(pipeline):
    """Name of a task that runs in a container -> its declaration."""
    dags = [pipeline["root"]["dag"]]
    dags += [c["dag"] for c in pipeline["components"].values() if "dag" in c]
    found = {name: task for dag in dags for name, task in dag["tasks"].items()}
    parts = pipeline["components"]
    return {
        name.replace("-", "_"): task
        for name, task in found.items()
        if "executorLabel" in parts[task["componentRef"]["name"]]
    }


@pytest.fixture(scope="module")
def tasks(pipeline):
    return parts_of(pipeline)


def test_it_is_the_golden_file(package):
    assert package.text == GOLDEN.read_text(encoding="utf-8"), (
        "the pipeline changed; if that is meant, write the golden file anew: xcflow pipeline "
        f"compile --pipeline {NAME} --profile {PROFILE} --output {GOLDEN}"
    )


def test_local_run_and_cluster_agree_task_by_task(tasks, tmp_path):
    compiler.Compiler().compile(refreshing_pipeline(on_this_machine), str(tmp_path / "local.yaml"))
    here = parts_of(next(yaml.safe_load_all((tmp_path / "local.yaml").read_text())))
    assert list(here) == list(tasks)
    for name, task in here.items():
        there = {k: v for k, v in tasks[name].items() if k != "retryPolicy"}
        assert task == there, name


def test_it_is_what_kubeflow_reads(pipeline):
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    assert spec.pipeline_info.name == NAME


def test_its_tasks_are_its_steps_and_what_surrounds_them(tasks):
    assert set(tasks) == {*REFRESHING, *UNCACHED}


def test_what_looks_outside_is_never_cached_and_knows_the_run_alone(tasks):
    for name, task in tasks.items():
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (name not in UNCACHED), name
        if cached:
            parameters = task["inputs"]["parameters"]
            assert "run_name" not in parameters, name
            source = parameters["library_digest"]["componentInputParameter"]
            assert source.endswith("library_digest"), name


def test_the_champion_is_refreshed_compared_with_and_held_against(tasks):
    for name, argument in (
        ("refresh_model", "champion"),
        ("evaluate_model", "champion"),
        ("check_drift", "accepted"),
    ):
        given = tasks[name]["inputs"]["parameters"][argument]["taskOutputParameter"]
        assert given["producerTask"] == "find-refreshed"
    assert "check-drift" in tasks["refresh_model"]["dependentTasks"]
    assert "find-refreshed" in tasks["validate_data"]["dependentTasks"]
    assert "configure" in tasks["find_refreshed"]["dependentTasks"]
