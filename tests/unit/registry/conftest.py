"""A tracking store of its own for each test: a copy of one that was made once."""

import shutil

import pytest

from xcflow.artifact import read_manifest, writing
from xcflow.config import GateConfig, TrackingConfig
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """Making the tables of a store takes seconds."""
    home = Home.at(tmp_path_factory.mktemp("store"))
    Tracker.at(TrackingConfig(), home).find_model("")
    return home.database


@pytest.fixture
def home(tmp_path, empty_store, monkeypatch):
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    home = Home.at(tmp_path / "home")
    home.root.mkdir()
    shutil.copyfile(empty_store, home.database)
    return home


@pytest.fixture
def tracker(home):
    return Tracker.at(TrackingConfig(experiment="tests"), home)


@pytest.fixture
def registry(tracker, home):
    return Registry(tracker, "model", home)


@pytest.fixture
def make_bundle(tmp_path):
    """Makes a folder that is a bundle by its manifest; returns it and its digest."""

    def make(content, catalogue=""):
        folder, meta = tmp_path / f"bundle-{content}", {"catalogue_digest": catalogue}
        with writing(folder, "bundle", meta=meta) as partial:
            (partial / "weights.txt").write_text(content)
        return folder, read_manifest(folder).digest

    return make


@pytest.fixture(scope="session")
def judged():
    """Makes a verdict on a bundle by its digest, compared with a champion by its."""

    def make(candidate, champion="", verdict="PROMOTE"):
        return Judgement(
            verdict=verdict,
            reasons=("for a test",),
            notes=(),
            checks=(),
            candidate=candidate,
            champion=champion,
            evaluation=f"evaluation of {candidate[:6]}",
            dataset="dataset",
            catalogue="catalogue",
            test_split="split",
            documents=100,
            thresholds=GateConfig(),
        )

    return make
