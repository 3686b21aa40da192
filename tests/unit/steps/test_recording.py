"""A small model that was really trained, recorded in a real store: its card, times and data."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from xcflow.artifact import MANIFEST, read_manifest
from xcflow.config import Config, TrackingConfig
from xcflow.errors import ArtifactError
from xcflow.evaluation.result import Evaluation
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.phases import StepTimes
from xcflow.registry import names, operations
from xcflow.registry.model_card import Origin, model_card, shortened
from xcflow.registry.promotion import Registry
from xcflow.registry.pyfunc import requirements
from xcflow.registry.tracking import Tracker
from xcflow.report.page import signed_points
from xcflow.steps import run_step
from xcflow.steps.flow import RECORDED

SECTIONS = [
    "Intended use",
    "Data",
    "Method",
    "Figures",
    "Slices",
    "Calibration",
    "Limits",
    "How to use",
    "Size and speed",
    "Provenance",
]
RUN = "colours-quick-K4-s1-1124-0900"
TIMES = StepTimes(3.5, {"batches": 2.0, "batches/backward": 1.25, "other": 0.25}, 321.0)


@dataclass(frozen=True)
class Recorded:
    tracker: Tracker
    home: Home
    run: str
    config: Config
    folders: dict

    @property
    def card(self):
        return self.artifact(names.CARD_FILE)

    def artifact(self, name):
        path = self.tracker.client.download_artifacts(self.run, name)
        return Path(path).read_text(encoding="utf-8")

    @property
    def model(self):
        return self.tracker.find_model(read_manifest(self.folders["build_index"]).digest)

    def metrics(self):
        return Evaluation.open(self.folders["evaluate_model"]).metrics


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    """What all recorded steps wrote."""
    root = tmp_path_factory.mktemp("judged")
    found = {"validate_data": model.dataset, "cluster_labels": model.clusters}
    found |= {"train_encoder": model.encoder, "export_embeddings": model.embeddings}
    found |= {"train_classifier": model.classifier, "build_index": model.bundle}
    measured = {"dataset": model.dataset, "bundle": model.bundle}
    run_step("check_drift", model.config, {"dataset": model.dataset}, root / "drift")
    run_step("evaluate_model", model.config, measured, root / "evaluation")
    run_step("gate_model", model.config, {"evaluation": root / "evaluation"}, root / "verdict")
    found["check_drift"] = root / "drift"
    return found | {"evaluate_model": root / "evaluation", "gate_model": root / "verdict"}


@pytest.fixture(scope="module")
def recorded(model, folders, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(variable, raising=False)
        home = Home.at(tmp_path_factory.mktemp("home"))
        tracker = Tracker.at(TrackingConfig(experiment="tests"), home)
        tags = {names.CATALOGUE: "colours", names.METHOD: "DEXA", names.LICENCE: "CC0-1.0"}
        data = {"name": "colours", "digest": "c" * 64, "source": str(home.root)}
        run = operations.open_run(tracker, RUN, "key", model.config.to_dict(), tags, data)
        steps = [
            {
                "name": name,
                "folder": str(folders[name]),
                "params": {},
                "from_cache": name == "validate_data",
                "times": TIMES.to_dict() if name == "train_encoder" else {},
            }
            for name in RECORDED
        ]
        operations.record_results(tracker, RUN, "key", model.config.to_dict(), steps)
        yield Recorded(tracker, home, run, model.config, folders)


def section(card, name):
    return re.search(rf"^## {name}\n\n(.*?)(?=\n## |\Z)", card, re.S | re.M)[1]


def rows(text):
    """The cells of the Markdown tables in a text, without their lines of dashes."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip(" *`") for cell in line.strip("|").split("|")] for line in lines]


def percent(value):
    return f"{100 * value:.1f}"


def blocks(card, language):
    return re.findall(rf"```{language}\n(.*?)```", section(card, "How to use"), re.S)


def test_the_card_has_all_sections(recorded):
    assert re.findall(r"^## (.+)$", recorded.card, re.M) == SECTIONS
    assert all(section(recorded.card, name).strip() for name in SECTIONS)


def test_the_cards_data_are_those_of_the_data_set(recorded):
    facts = dict(row for row in rows(section(recorded.card, "Data")) if any(row))
    meta = read_manifest(recorded.folders["validate_data"]).meta
    counts = recorded.metrics()["counts"]
    assert facts == {
        "catalogue": f"colours `{meta['catalogue_digest'][:12]}",
        "licence": "CC0-1.0",
        "training documents": f"60, of which {meta['validation_documents']} held out "
        "for every choice",
        "test documents": f"{counts['documents']} measured, 0 without a label left out",
        "labels": f"12, {meta['cold_labels']} without a training document",
        "training pairs": str(meta["train_pairs"]),
        "data report": meta["status"],
    }
    assert f"{meta['cold_labels']} labels had no training" in section(recorded.card, "Limits")


def test_the_cards_figures_are_those_of_the_evaluation(recorded):
    found = rows(section(recorded.card, "Figures"))
    metrics, columns = recorded.metrics(), found[0][1:]
    titles = {"fused": "this model", "baseline_tfidf": "baseline: TF-IDF on label texts"}
    for model, title in titles.items():
        (row,) = [r for r in found if r[0] == title and "(" not in r[1]]
        assert row[1:] == [percent(metrics["models"][model][c]) for c in columns]
    checks = Judgement.open(recorded.folders["gate_model"]).checks
    differences = [check for check in checks if check.difference]
    assert differences
    for check in differences:
        d = check.difference
        values = [signed_points(v) for v in (d.difference, d.low, d.high)]
        assert "{} ({} to {})".format(*values) in section(recorded.card, "Figures")


def test_the_cards_slices_and_calibration_are_those_of_the_evaluation(recorded):
    metrics = recorded.metrics()
    head, *found = rows(section(recorded.card, "Slices"))
    assert [row[0] for row in found] == list(metrics["slices"]["fused"])
    for name, *cells in found:
        facts = metrics["label_slices"][name]
        assert cells[0] == str(facts["labels"])
        assert cells[1] == f"{facts['min_count']} to {facts['max_count']}"
        assert cells[2] == str(facts["test_positives"])
        assert cells[3:] == [percent(metrics["slices"]["fused"][name][m]) for m in head[4:]]
    ece = metrics["calibration"]["fused"]
    for name, after in ece["after"].items():
        shown = f"{name} {percent(ece['before'][name])} → {percent(after)}"
        assert shown in section(recorded.card, "Calibration")


def test_the_cards_method_size_and_origin(recorded):
    bundle, text = recorded.folders["build_index"], section(recorded.card, "Size and speed")
    timings = Evaluation.open(recorded.folders["evaluate_model"]).timings
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    assert text.startswith(f"{size / 1e6:.1f} MB on disk")
    assert f"took {timings['latency_ms']['fused']['p50']:.1f} ms" in text
    assert f"had {timings['peak_memory_mb']:.0f} MB" in text
    method = section(recorded.card, "Method")
    rows_of_labels = read_manifest(recorded.folders["cluster_labels"]).meta["rows"]
    clusters = recorded.config.clustering.clusters
    assert f"{rows_of_labels} auxiliary vectors shared by labels (K = {clusters})" in method
    assert "module_one.learning_rate=0.05" in method
    assert "calibration.method" not in method
    origin = section(recorded.card, "Provenance")
    for step in ("build_index", "validate_data", "evaluate_model"):
        assert read_manifest(recorded.folders[step]).digest[:12] in origin
    assert recorded.run in origin


def test_the_card_stands_on_the_models_pages(recorded, tmp_path):
    assert recorded.tracker.model_note(recorded.model) == recorded.card
    registry = Registry(recorded.tracker, "colours", Home.at(tmp_path))
    judgement = Judgement.open(recorded.folders["gate_model"])
    bundle, why = recorded.folders["build_index"], "for a test"
    move = registry.promote(bundle, judgement, run=recorded.run, reason=why, override=True)
    version = recorded.tracker.client.get_model_version("colours", move.version)
    assert version.description == shortened(recorded.card)
    assert version.tags[names.REASON] == "for a test"
    linked = recorded.tracker.client.get_logged_model(recorded.model).tags["mlflow.modelVersions"]
    assert json.loads(linked) == [{"name": "colours", "version": move.version}]


def test_the_cards_python_runs_as_it_stands(recorded):
    (block,) = blocks(recorded.card, "python")
    environment = os.environ | {"MLFLOW_TRACKING_URI": recorded.tracker.uri}
    done = subprocess.run(
        [sys.executable, "-c", block.replace("a text", "amber goat")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = {"l0", "l6"}
    answer = re.findall(r"l\d+", done.stdout)
    assert len(answer) == 5
    assert set(answer[:2]) == expected


def test_a_long_card_is_cut_between_sections(recorded):
    card = recorded.card
    assert shortened(card, len(card)) == card
    cut = shortened(card, 2_500)
    assert len(cut) <= 2_500
    kept = re.findall(r"^## (.+)$", cut, re.M)
    assert kept == [*SECTIONS[: len(kept) - 1], "More"]
    assert names.CARD_FILE in cut


def test_the_card_tells_the_precision_of_a_transformer(recorded, tmp_path):
    assert "transformer" not in section(recorded.card, "Size and speed")
    bundle = shutil.copytree(recorded.folders["build_index"], tmp_path / "bundle")
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["meta"]["precision"] = {
        "chosen": "int8",
        "because": "which loses no more than 0.3 points on fp32",
        "validation_P@1": {"torch": 0.5, "fp32": 0.5, "int8": 0.499},
    }
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    origin = Origin(RUN, "id", "m-1", "DEXA", "colours", "", recorded.config.to_dict())
    card = model_card(origin, recorded.folders | {"build_index": bundle})
    assert (
        section(card, "Size and speed")
        .strip()
        .endswith(
            "The transformer answers in int8, which loses no more than 0.3 points on fp32; P@1 on "
            "validation documents: torch 50.0, fp32 50.0, int8 49.9."
        )
    )
    assert re.findall(r"^## (.+)$", card, re.M) == SECTIONS


def test_the_logged_model_requires_only_what_answering_loads(recorded):
    packages = ("faiss-cpu", "numpy", "scipy", "tokenizers")
    model = recorded.tracker.client.get_logged_model(recorded.model)
    wanted = Path(model.artifact_location.removeprefix("file://")) / "requirements.txt"
    pins = [line.partition("==")[0] for line in wanted.read_text().splitlines()]
    assert pins == ["mlflow", "xcflow", *packages]
    exported = {"encoder": "transformer", "precision": {"chosen": "int8"}}
    assert requirements(exported) == (*packages, "onnxruntime")
    assert requirements({"encoder": "transformer"})[-2:] == ("torch", "transformers")


def test_a_card_of_a_damaged_bundle_is_refused(recorded, tmp_path):
    origin = Origin(RUN, "id", "m-1", "DEXA", "colours", "", recorded.config.to_dict())
    with pytest.raises(ArtifactError):
        model_card(origin, recorded.folders | {"build_index": tmp_path})


def test_the_data_sets_of_training_validation_and_test(recorded):
    inputs = recorded.tracker.client.get_run(recorded.run).inputs
    found = {entry.tags[0].value: entry.dataset for entry in inputs.dataset_inputs}
    assert {context: data.name for context, data in found.items()} == {
        "training": "colours",
        "validation": "colours validation",
        "test": "colours test",
    }
    assert recorded.metrics()["test_split"].startswith(found["test"].digest)
    assert json.loads(found["test"].profile)["documents"] == 6
    model = recorded.tracker.client.get_logged_model(recorded.model)
    (figure,) = [m for m in model.metrics if m.key == "test/fused/P_at_1"]
    assert (figure.dataset_name, figure.dataset_digest) == ("colours test", found["test"].digest)
    assert model.name == RUN


def test_where_the_time_went_stands_in_run_step_and_table(recorded):
    run = recorded.tracker.client.get_run(recorded.run)
    assert run.data.metrics["time/train_encoder"] == 3.5
    step = recorded.tracker.steps(recorded.run)["train_encoder"]
    assert step.data.metrics["time/train_encoder/batches/backward"] == 1.25
    assert step.data.metrics["peak_memory_mb"] == 321.0
    table = list(csv.DictReader(io.StringIO(recorded.artifact(names.TIMES_FILE))))
    assert [row["phase"] for row in table] == ["batches", "batches/backward", "other"]
    assert sum(float(row["seconds"]) for row in table) == 3.5


def test_steps_from_the_cache_are_named_so(recorded):
    steps = recorded.tracker.steps(recorded.run)
    assert steps["validate_data"].info.run_name == "validate_data (from cache)"
    assert steps["train_encoder"].info.run_name == "train_encoder"
    assert {step.info.status for step in steps.values()} == {"FINISHED"}


def test_the_main_curves_stand_in_the_run_itself(recorded):
    history = recorded.tracker.client.get_metric_history
    for part in ("encoder", "classifier"):
        assert history(recorded.run, f"{part}/train/loss")
        points = history(recorded.run, f"{part}/validation/P_at_1")
        assert [point.step for point in points] == list(range(len(points)))
