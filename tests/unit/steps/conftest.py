"""Whole models from catalogues that are written down in the test."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xcflow.artifact import Manifest, read_manifest
from xcflow.config import Config
from xcflow.serving.predictor import Predictor
from xcflow.steps import STEPS, run_step

Row = dict[str, Any]
# The steps from a catalogue to a bundle, with the names under which later ones take their outputs.
CHAIN = {
    "validate_data": "dataset",
    "cluster_labels": "clusters",
    "train_encoder": "encoder",
    "export_embeddings": "embeddings",
    "train_classifier": "classifier",
    "build_index": "bundle",
}


def write_catalogue(folder: Path, labels: list[Row], train: list[Row], test: list[Row]) -> Path:
    folder.mkdir(parents=True)
    for name, rows in (("labels", labels), ("train", train), ("test", test)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Model:
    """The folders that the steps wrote."""

    folders: dict[str, Path]
    config: Config

    def __getattr__(self, name: str) -> Path:
        return self.folders[name]

    def manifest(self, name: str) -> Manifest:
        return read_manifest(self.folders[name], name, verify=True)

    def predictor(self) -> Predictor:
        return Predictor.load(self.bundle)


def run_chain(catalogue: Path, root: Path, config: Config, done: dict[str, Path]) -> Model:
    """Run the steps that are not in ``done`` with the same settings from the same catalogue."""
    folders, key = {"catalogue": catalogue}, str(catalogue)
    for name, output in CHAIN.items():
        sections = STEPS[name].sections
        key += config.digest(*sections)
        if key not in done:
            inputs = {x: folders[x] for x in STEPS[name].inputs}
            # As the pipeline does: a step gets no other sections than its own.
            run_step(name, Config.from_json(config.to_json(sections)), inputs, root / output)
            done[key] = root / output
        folders[output] = done[key]
    return Model(folders, config)


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 documents that name two of 12 colours and animals; the label zebra has no document."""
    rng = np.random.default_rng(4)
    names = ["amber", "black", "coral", "denim", "ebony", "fawn"]
    names += ["goat", "heron", "ibis", "jackal", "koala", "zebra"]

    def document(name: str) -> Row:
        own = sorted(rng.choice(11, 2, replace=False).tolist())
        text = " ".join([names[i] for i in own] + rng.choice(list("wxyz"), 2).tolist())
        return {"id": name, "text": text, "labels": [f"l{i}" for i in own]}

    return write_catalogue(
        tmp_path_factory.mktemp("catalogue") / "colours and animals",
        [{"id": f"l{i}", "text": name} for i, name in enumerate(names)],
        [document(f"d{i}") for i in range(60)],
        [document(f"t{i}") for i in range(6)],
    )


@pytest.fixture(scope="session")
def configure(pretrained: Path) -> Callable[..., Config]:
    """A configuration for the tiny model, with overrides."""

    def make(**sections: dict[str, Any]) -> Config:
        defaults: dict[str, dict[str, Any]] = {
            "run": {"threads": 1},
            "data": {"catalogue_word_min_count": 1},
            "encoder": {"model": str(pretrained), "bf16": "off"},
            "module_one": {"epochs": 3, "batch_size": 20, "cluster_from_epoch": 1},
            "module_two": {"epochs": 3, "batch_size": 20},
            "fusion": {"steps": 20},
        }
        for name, values in sections.items():
            defaults[name] = defaults.get(name, {}) | values
        return Config.from_dict(defaults)

    return make


@pytest.fixture(scope="session")
def models_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of all models that tests train."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def train_model(
    tmp_path_factory: pytest.TempPathFactory, models_home: Path
) -> Callable[..., Model]:
    """Run the steps up to the bundle; ``anew`` takes none over from an earlier model."""
    done: dict[str, Path] = {}

    def train(catalogue: Path, config: Config, *, anew: bool = False) -> Model:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XCFLOW_HOME", str(models_home))
            known = {} if anew else done
            return run_chain(catalogue, tmp_path_factory.mktemp("model"), config, known)

    return train


@pytest.fixture(scope="session")
def model(
    catalogue: Path, configure: Callable[..., Config], train_model: Callable[..., Model]
) -> Model:
    """A model of colours and animals, trained until it knows them."""
    rates = {"learning_rate": 0.05, "dense_learning_rate": 0.01, "epochs": 8}
    config = configure(
        module_one=rates,
        module_two={"learning_rate": 0.02, "epochs": 6},
        checkpoint={"every_seconds": 0},
    )
    return train_model(catalogue, config)


@pytest.fixture(name="write_catalogue", scope="session")
def write_catalogue_fixture() -> Callable[..., Path]:
    return write_catalogue
