"""The whole pipeline under Kubeflow's local runner with a real MLflow store, by the real command.

The runs follow each other in one home; each is looked at as it was when it ended. A test that
changes something in the home puts it back.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import xcflow

from xcflow.config import TrackingConfig
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker
from xcflow.steps import RETRAINING

# Three tokens of a document: the model cannot know what it is about.
WEAK = ("module_one.epochs=1", "module_two.epochs=1", "data.max_document_tokens=3")
STRONG = ("module_one.epochs=8", "module_two.epochs=4")
COMMON = (
    "run.threads=1",
    "clustering.clusters=32",
    "module_one.batch_size=128",
    "data.validation_fraction=0.2",
    "gate.primary=R@10",
    "gate.secondary=[]",
)
TRAINING = ("validate_data", "cluster_labels", "train_encoder", "export_embeddings")
TRAINING += ("train_classifier", "build_index")

pytestmark = pytest.mark.timeout(600)


class Life:
    """One home, and everything that was done with it."""

    def __init__(self, home, catalogue):
        self.home = Home.at(home)
        self.catalogue = catalogue

    def command(self, *arguments):
        return xcflow(self.home.root, *arguments)

    def answer(self, *arguments):
        done = self.command(*arguments, "--json")
        assert done.returncode in (0, 3), done.stderr
        return json.loads(done.stdout)

    def run(self, *settings):
        overrides = [part for s in (*COMMON, *settings) for part in ("--set", s)]
        done = self.command("run", "--data", str(self.catalogue), "--json", *overrides)
        assert done.returncode in (0, 3), done.stderr
        outcome = json.loads(done.stdout)
        assert done.returncode == (0 if outcome["verdict"] == "PROMOTE" else 3)
        outcome["states"] = {task["name"]: task["state"] for task in outcome["tasks"]}
        outcome["history"] = self.answer("history")
        registry = Registry(self.tracker, "xcflow", self.home)
        outcome["aliases"] = [v and v.number for v in (registry.champion(), registry.previous())]
        return outcome

    @property
    def tracker(self):
        return Tracker.at(TrackingConfig(), self.home)


@pytest.fixture(scope="module")
def life(tmp_path_factory, small_catalogue):
    return Life(tmp_path_factory.mktemp("life") / "home of a run", small_catalogue)


@pytest.fixture(scope="module")
def first(life):
    return life.run(*WEAK)


@pytest.fixture(scope="module")
def repeated(life, first):
    return life.run(*WEAK)


@pytest.fixture(scope="module")
def stricter(life, repeated):
    return life.run(*WEAK, "gate.floor_lift=0.9")


@pytest.fixture(scope="module")
def second(life, stricter):
    return life.run(*STRONG)


def test_the_first_model_is_promoted_over_the_baselines(first):
    assert first["verdict"] == "PROMOTE", first["reasons"]
    assert first["promotion"]["version"] == "1"
    assert first["aliases"] == ["1", None]
    assert set(first["states"].values()) == {"done"}
    assert set(RETRAINING) <= set(first["states"])
    models = first["models"]
    assert models["fused"]["P@1"] > models["baseline_tfidf"]["P@1"]
    for page in first["reports"].values():
        assert "</html>" in Path(page).read_text(encoding="utf-8")


def test_a_repeated_run_takes_all_steps_from_the_cache(first, repeated):
    states = repeated["states"]
    assert {states[name] for name in RETRAINING if name != "promote_model"} == {"from cache"}
    assert repeated["bundle"] == first["bundle"]
    assert repeated["models"] == first["models"]
    assert repeated["verdict"] == "PROMOTE"
    assert repeated["promotion"] == {}  # it is the champion already
    assert repeated["history"] == first["history"]


def test_another_threshold_leaves_everything_but_the_gate_cached(stricter):
    done = {name for name, state in stricter["states"].items() if state == "done"}
    assert done & set(RETRAINING) == {"gate_model"}
    assert stricter["verdict"] in ("HOLD", "REJECT")
    assert "promote_model" not in stricter["states"]


def test_a_better_model_replaces_the_champion(first, second):
    assert second["verdict"] == "PROMOTE", second["reasons"]
    assert second["promotion"]["from_version"] == "1"
    assert second["models"]["champion"] == first["models"]["fused"]
    assert set(second["states"].values()) == {"done"}
    assert second["aliases"] == [second["promotion"]["version"], "1"] == ["2", "1"]
    assert [move["version"] for move in second["history"]] == ["2", "1"]


def test_runs_and_steps_stand_in_mlflow(life, first, repeated, second):
    tracker = life.tracker
    for outcome, cached in ((first, False), (repeated, True)):
        run = tracker.client.get_run(outcome["mlflow_run"])
        assert run.info.run_name == outcome["run"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["verdict"] == "PROMOTE"
        assert run.data.tags["method"] == "DEXA"
        assert run.data.params["module_one.epochs"] == "1"
        fused = outcome["models"]["fused"]
        assert run.data.metrics["test/fused/P_at_1"] == pytest.approx(fused["P@1"])
        datasets = {entry.dataset.name for entry in run.inputs.dataset_inputs}
        assert datasets == {"small debian", "small debian validation", "small debian test"}
        steps = tracker.steps(outcome["mlflow_run"])
        assert set(steps) >= set(RETRAINING) - {"promote_model"}
        for name in TRAINING:
            assert steps[name].data.tags["from_cache"] == str(cached).lower(), name
            assert steps[name].info.status == "FINISHED", name
        curves = tracker.client.get_metric_history(steps["train_encoder"].info.run_id, "train/loss")
        assert curves
        reports = tracker.client.list_artifacts(outcome["mlflow_run"], "reports/evaluate_model")
        assert [Path(report.path).name for report in reports] == ["report.html"]


def test_the_logged_model_answers_like_the_bundle(life, second):
    answer = life.answer("predict", "a library for http in python", "-k", "5")["labels"]
    script = f"""
import json, mlflow, pandas as pd
mlflow.set_tracking_uri("sqlite:///{life.home.database}")
model = mlflow.pyfunc.load_model("models:/xcflow@champion")
rows = model.predict(pd.DataFrame({{"text": ["a library for http in python"]}}), params={{"k": 5}})
print(json.dumps(rows["labels"][0]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [label["id"] for label in answer]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the card asks with curl")
def test_the_commands_of_the_model_card_work_as_they_stand(life, second, tmp_path):
    (version,) = life.tracker.client.search_model_versions(
        f"name = 'xcflow' and run_id = '{second['mlflow_run']}'"
    )
    predict, serve, ask = re.findall(r"```bash\n(.*?)\n```", version.description, re.S)
    command, *arguments = shlex.split(predict)
    assert command == "xcflow"
    answered = life.command(*arguments)
    assert answered.returncode == 0, answered.stderr
    best = answered.stdout.split()[1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    program, *options = shlex.split(serve.replace("5001", port))
    assert program == "mlflow"
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{life.home.database}"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *options],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            question = [*shlex.split(ask.replace("5001", port)), "--retry", "120"]
            done = subprocess.run(
                [*question, "--retry-delay", "1", "--retry-connrefused"],
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    (prediction,) = json.loads(done.stdout)["predictions"]
    assert len(prediction["labels"]) == 5
    assert prediction["labels"][0] == best


def test_the_end_of_a_run_says_where_its_time_went(life, first, repeated):
    tasks = {task["name"]: task for task in first["tasks"]}
    trained = tasks["train_encoder"]
    assert set(trained["times"]["phases"]) >= {"imports", "batches/backward", "validation"}
    assert sum(trained["times"]["phases"].values()) == pytest.approx(trained["times"]["seconds"])
    assert trained["times"]["seconds"] < trained["seconds"]
    again = {task["name"]: task for task in repeated["tasks"]}["train_encoder"]
    assert (again["state"], again["times"]) == ("from cache", trained["times"])
    recorded = life.tracker.client.get_run(repeated["mlflow_run"]).data.metrics
    spent = trained["times"]["seconds"]
    assert recorded["time/train_encoder"] == pytest.approx(spent, abs=1e-4)


def test_a_file_is_answered_row_by_row(life, second, tmp_path):
    source, target = life.catalogue / "test.jsonl", tmp_path / "answers.jsonl.gz"
    done = life.command("predict", "--input", str(source), "--output", str(target), "-k", "3")
    assert done.returncode == 0, done.stderr
    import gzip

    with gzip.open(target, "rt") as stream:
        answers = [json.loads(line) for line in stream]
    asked = [json.loads(line) for line in source.read_text().splitlines()]
    assert [a["id"] for a in answers] == [a["id"] for a in asked]
    for answer in answers:
        scores = [label["score"] for label in answer["labels"]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)


def test_two_runs_are_compared_document_by_document(life, first, second):
    found = life.answer("compare", first["run"], second["run"])
    assert found["documents"] == 400
    (comparison,) = found["comparisons"]
    gain = second["models"]["fused"]["P@1"] - first["models"]["fused"]["P@1"]
    assert comparison["metrics"]["P@1"]["difference"] == pytest.approx(gain, abs=1e-6)
    assert comparison["settings"]["module_one.epochs"] == ["1", "8"]
    assert comparison["not_compared"] == {}
    by_id = life.answer("compare", first["mlflow_run"], second["mlflow_run"])
    assert by_id == found


def test_a_model_measured_alone_has_the_figures_of_its_run(life, second):
    settings = [part for s in (*COMMON, *STRONG) for part in ("--set", s)]
    found = life.answer("evaluate", "--data", str(life.catalogue), *settings)
    for model in ("fused", "encoder", "classifier", "baseline_tfidf"):
        assert found["models"][model] == second["models"][model]


def test_back_and_forth(life, second):
    back = life.answer("rollback", "--reason", "for a test")
    assert (back["from_version"], back["version"]) == ("2", "1")
    forth = life.answer("promote", second["run"])  # its verdict is about version 1
    assert (forth["from_version"], forth["version"]) == ("1", "2")
    latest = life.answer("history")[:2]
    assert [move["action"] for move in latest] == ["promote", "rollback"]
    assert latest[1]["reason"] == "for a test"


def test_a_held_model_needs_an_override(life, stricter):
    held = life.command("promote", stricter["run"])
    assert held.returncode == 3
    assert held.stderr.count("\n") == 1


def test_a_damaged_output_is_made_again(life, second, tmp_path):
    damaged = Path(second["reports"]["evaluation"]).resolve().parent / "metrics.json"
    kept = damaged.read_bytes()
    damaged.unlink()
    try:
        again = life.run(*STRONG)
    finally:
        damaged.write_bytes(kept)
    done = {name for name, state in again["states"].items() if state == "done"}
    assert done & set(RETRAINING) == {"evaluate_model", "gate_model", "promote_model"}
    assert again["models"]["fused"] == second["models"]["fused"]


def test_a_bad_catalogue_stops_the_run_with_one_line(life, second, tmp_path):
    shutil.copytree(life.catalogue, tmp_path / "bad")
    with (tmp_path / "bad" / "train.jsonl").open("a") as stream:
        stream.write('{"id": "x", "text"')
    done = life.command("run", "--data", str(tmp_path / "bad"))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("xcflow: step validate_data failed: ")
    assert "train.jsonl, line 1501" in last
    assert "Traceback" not in done.stderr
    with sqlite3.connect(life.home.database) as store:
        (row,) = store.execute(
            "SELECT status FROM runs WHERE name LIKE '%-quick-%' ORDER BY start_time DESC LIMIT 1"
        )
    assert row == ("FAILED",)


def test_the_champion_answers_after_all_that(life, second):
    done = life.command("predict", "a library for http in python")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 10
