"""From the registry to the drift report, as the tasks of a pipeline ask for it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from xcflow.artifact import read_manifest, writing
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.profile import Profile
from xcflow.config import Config
from xcflow.registry.store import URI_VARIABLE
from xcflow.steps import flow, run_step
from xcflow_components.check_drift import check_drift
from xcflow_components.find_accepted import find_accepted

CONFIG = Config.from_dict({"data": {"catalogue_words": 0}, "tracking": {"model_name": "model"}})


@dataclass
class Artifact:
    """The part of Kubeflow's artifacts that a task's body uses."""

    path: str
    metadata: dict[str, Any] = field(default_factory=dict)


def make_dataset(folder: Path, labels: int) -> Path:
    catalogue = folder / f"{labels} labels"
    catalogue.mkdir()
    rows = {
        "labels": [{"id": f"l{i}", "text": f"label {i}"} for i in range(labels)],
        "train": [{"id": f"d{i}", "text": f"text {i}", "labels": ["l0"]} for i in range(9)],
        "test": [{"id": f"t{i}", "text": f"query {i}", "labels": ["l1"]} for i in range(3)],
    }
    for role, content in rows.items():
        lines = (json.dumps(row) + "\n" for row in content)
        (catalogue / f"{role}.jsonl").write_text("".join(lines))
    run_step("validate_data", CONFIG, {"catalogue": catalogue}, folder / f"dataset {labels}")
    return folder / f"dataset {labels}"


def make_bundle(folder: Path, dataset: Dataset) -> Path:
    """What of a bundle tells of its catalogue."""
    meta = {"catalogue_digest": dataset.manifest.meta["catalogue_digest"]}
    with writing(folder, "bundle", meta=meta) as partial:
        (partial / "labels").mkdir()
        dataset.labels.ids.save(partial / "labels" / "ids")
        dataset.labels.texts.save(partial / "labels" / "texts")
        Profile.of(dataset).save(partial)
    return folder


@pytest.fixture
def accepted(registry, home, judged, tmp_path, monkeypatch) -> Dataset:
    """The data set of a catalogue with ten labels, whose model is the champion."""
    dataset = Dataset.open(make_dataset(tmp_path, 10))
    bundle = make_bundle(tmp_path / "bundle", dataset)
    digest = read_manifest(bundle).digest
    registry.promote(bundle, judged(digest), run=None)
    monkeypatch.setenv("XCFLOW_HOME", str(home.root))
    monkeypatch.delenv("XCFLOW_RUN_KEY", raising=False)
    return dataset


def test_a_later_catalogue_is_held_against_that_of_the_champion(accepted, registry, tmp_path):
    later = make_dataset(tmp_path, 8)
    config, digest = CONFIG.to_json(), read_manifest(later).meta["catalogue_digest"]
    found = find_accepted.python_func(config, digest)
    assert found == registry.champion().digest
    drift, report, metrics = (Artifact(str(tmp_path / name)) for name in ("d", "r", "m"))
    dataset = Artifact(str(later))
    check_drift.python_func("library", config, found, dataset, drift, report, metrics)
    assert metrics.metadata["removed_labels"] == 2
    assert drift.metadata["status"] == "warning"
    assert "8 of 8 labels" in Path(report.path).read_text()


def test_the_champions_own_catalogue_is_held_against_nothing(accepted):
    digest = accepted.manifest.meta["catalogue_digest"]
    assert flow.find_accepted(CONFIG.to_json(), digest) == ""
    assert flow.bundle_input("accepted", "") == {}


def test_a_store_that_is_away_does_not_stop_the_run(accepted, tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(URI_VARIABLE, f"sqlite:///{tmp_path}/file/mlflow.db")
    assert flow.find_accepted(CONFIG.to_json(), "later") == ""
    assert "the catalogue is not held against the last accepted one" in capfd.readouterr().err
