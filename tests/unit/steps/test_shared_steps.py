"""Steps that several ranks share write what one process writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import Model

from xcflow.artifact import read_manifest
from xcflow.distributed.world import World
from xcflow.errors import ConfigError
from xcflow.evaluation.result import METRICS, TIMINGS, Evaluation
from xcflow.steps import run_step

# What an evaluation says of the machine's speed.
TIMED = {TIMINGS, "report.html"}


@pytest.fixture
def shared(model: Model, run_ranks: Callable[..., list[Any]], tmp_path: Path, monkeypatch):
    """Run a step of the model again, in so many ranks."""
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))

    def run(step: str, inputs: list[str], size: int, **more: Path) -> Path:
        folders = {name: model.folders[name] for name in inputs} | more

        def work(world: World) -> None:
            run_step(step, model.config, folders, tmp_path / step)

        run_ranks(size, work, join=False)
        return tmp_path / step

    return run


@pytest.mark.parametrize(("size", "block"), [(2, 4096), (3, 7)])
def test_embeddings_are_the_same_bytes(shared, model, size, block, monkeypatch, tmp_path):
    monkeypatch.setattr("xcflow.steps.export_embeddings.ENCODE_ROWS", block)
    monkeypatch.setattr("xcflow.steps.export_embeddings.SHARD_ROWS", 5 * block)
    inputs = ["dataset", "encoder"]
    output = shared("export_embeddings", inputs, size)
    folders = {name: model.folders[name] for name in inputs}
    run_step("export_embeddings", model.config, folders, tmp_path / "alone")
    assert read_manifest(output, verify=True) == read_manifest(tmp_path / "alone")


def test_an_evaluation_is_the_same_but_for_rounding(shared, model, tmp_path):
    """Also with fewer documents in a block than ranks."""
    inputs = ["dataset", "bundle"]
    output = shared("evaluate_model", inputs, 4, champion=model.bundle)
    folders = {name: model.folders[name] for name in inputs} | {"champion": model.bundle}
    run_step("evaluate_model", model.config, folders, tmp_path / "alone")
    found, expected = (read_manifest(x, verify=True).files for x in (output, tmp_path / "alone"))
    assert set(found) == set(expected)
    # Of scores the last bit depends on how many documents are scored at a time.
    rounded = {name for name in expected if name.endswith("scores.npy")} | {METRICS}
    differ = {name for name, digest in expected.items() if found[name] != digest}
    assert differ <= rounded | TIMED
    for name in rounded - {METRICS}:
        mine, theirs = (np.load(x / name) for x in (output, tmp_path / "alone"))
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    mine, theirs = (Evaluation.load(x).metrics["models"] for x in (output, tmp_path / "alone"))
    assert mine == theirs


def test_trained_classifiers_are_close(shared, model):
    output = shared("train_classifier", ["dataset", "embeddings"], 2)
    for name in ("classifiers.npy", "labels_in_use.npy"):
        found, expected = (np.load(x / name) for x in (output, model.folders["classifier"]))
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_step_of_one_process_refuses_to_be_shared(model, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="cluster_labels is the work of one process"):
        run_step("cluster_labels", model.config, {"dataset": tmp_path}, tmp_path / "output")


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("1", ""), ("", "2"), ("one", "2")])
def test_an_environment_that_makes_no_sense_is_told(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigError, match="start it by torchrun, or unset both"):
        World.of_environment()
