"""A champion is trained, its catalogue changes, and `xcflow refresh` takes the changes in."""

import json
from collections import Counter
from pathlib import Path

import pytest
from command_line import xcflow

from xcflow.config import TrackingConfig
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.tracking import Tracker
from xcflow.serving.predictor import Predictor
from xcflow.steps import REFRESHING

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = (
    "run.threads=1",
    "clustering.clusters=32",
    "module_one.batch_size=128",
    "module_one.epochs=6",
    "module_two.epochs=3",
    "fusion.steps=100",
    "evaluation.latency_texts=5",
)
# The first champion is small: it need not beat the baselines in everything. A few hundred test
# documents cannot show that nothing falls by half a point.
LENIENT = ("gate.margin=0.05", 'gate.secondary=["P@5"]', 'gate.slice_metric=""')
NEW = 40


class Life:
    """One home, and everything that was done with it."""

    def __init__(self, home):
        self.home = home

    def command(self, *arguments):
        return xcflow(self.home, *arguments)

    def run(self, command, catalogue, *settings):
        overrides = [part for s in (*SETTINGS, *LENIENT, *settings) for part in ("--set", s)]
        return self.command(command, "--data", str(catalogue), "--json", *overrides)


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def write(folder, labels, train, test):
    folder.mkdir()
    ids = {row["id"] for row in labels}
    for name, some in (("labels", labels), ("train", train), ("test", test)):
        kept = some
        if name != "labels":
            kept = [{**r, "labels": [x for x in r["labels"] if x in ids]} for r in some]
            kept = [r for r in kept if r["labels"]]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    return folder


@pytest.fixture(scope="module")
def catalogues(small_catalogue, tmp_path_factory):
    """Before: without every tenth label. After: with all of them but one, one renamed."""
    root = tmp_path_factory.mktemp("catalogues")
    labels, train, test = (rows(small_catalogue, name) for name in ("labels", "train", "test"))
    counts = Counter(x for row in test for x in row["labels"])
    labels.sort(key=lambda row: (-counts[row["id"]], row["id"]))
    new = labels[5 : 10 * NEW : 10]
    before = [row for row in labels if row not in new]
    after = [*labels[:-1]]
    after[7] = {**after[7], "text": after[7]["text"] + " (renamed)"}
    return {
        "before": write(root / "before", before, train, test),
        "after": write(root / "after", after, train, test),
        "new": [row["id"] for row in new],
        "removed": labels[-1]["id"],
    }


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    return Life(tmp_path_factory.mktemp("life") / "home")


@pytest.fixture(scope="module")
def too_early(life, catalogues):
    return life.run("refresh", catalogues["after"])


@pytest.fixture(scope="module")
def champion(life, catalogues, too_early):
    done = life.run("run", catalogues["before"])
    assert done.returncode in (0, 3), done.stderr
    outcome = json.loads(done.stdout)
    if outcome["verdict"] != "PROMOTE":
        reason = ("--override", "--reason", "for a test")
        assert life.command("promote", outcome["run"], *reason).returncode == 0
    return outcome


@pytest.fixture(scope="module")
def refreshed(life, catalogues, champion):
    done = life.run("refresh", catalogues["after"])
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_without_a_champion_there_is_nothing_to_refresh(too_early):
    assert too_early.returncode == 1
    last = too_early.stderr.strip().splitlines()[-1]
    assert "there is no champion to refresh: train a model first (xcflow run)" in last


def test_the_champion_takes_in_the_catalogue_without_training(refreshed, champion, catalogues):
    assert refreshed["verdict"] == "PROMOTE"
    assert refreshed["reasons"][0] == (
        f"Refreshed without training, labels: {NEW} new, 1 gone, 1 with another text."
    )
    assert refreshed["reasons"][1].startswith("R@10 of new labels is ")
    done = {task["name"] for task in refreshed["tasks"] if task["state"] == "done"}
    assert set(REFRESHING) <= done
    assert not done & {"cluster_labels", "train_encoder", "train_classifier", "build_index"}
    assert refreshed["promotion"]["from_version"] == "1"
    assert refreshed["run"].startswith("after-refresh-")


def test_the_new_champion_knows_new_labels_and_no_removed_one(refreshed, life, catalogues):
    predictor = Predictor.load(Path(refreshed["bundle"]))
    known = predictor.label_ids.find([*catalogues["new"], catalogues["removed"]])
    assert (known[:-1] >= 0).all()
    assert known[-1] == -1
    wanted = catalogues["new"][0]
    text = predictor.label_texts.take(known[:1])[0]
    done = life.command("predict", text, "--json")
    assert done.returncode == 0, done.stderr
    assert wanted in [row["id"] for row in json.loads(done.stdout)["labels"]]


def test_history_and_mlflow_tell_of_the_refresh(refreshed, life):
    history = life.command("history")
    assert "Refreshed without training" in history.stdout
    home = Home.at(life.home)
    tracker = Tracker.at(TrackingConfig(), home)
    tags = tracker.tags(refreshed["mlflow_run"])
    assert tags[names.KIND] == "refresh"
    assert tags[names.REFRESHED_FROM] == "version 1"
    assert tags[names.VERDICT] == "PROMOTE"
    steps = tracker.steps(refreshed["mlflow_run"])
    assert set(steps) == set(REFRESHING)
    card = tracker.client.download_artifacts(refreshed["mlflow_run"], names.CARD_FILE)
    told = f"labels that joined {NEW}, that left 1, with another text 1."
    assert told in Path(card).read_text()
    page = Path(refreshed["reports"]["verdict"]).read_text()
    assert "need not rise above itself" in page


def test_a_second_refresh_with_the_same_catalogue_is_refused(refreshed, life, catalogues):
    again = life.run("refresh", catalogues["after"])
    assert again.returncode == 1
    last = again.stderr.strip().splitlines()[-1]
    assert "the champion (version 2) was made of this very catalogue" in last
    assert len(last.splitlines()) == 1


def test_another_catalogue_is_refused(refreshed, life, catalogues, tmp_path):
    def other(some):
        return [
            {**r, "id": f"other-{r['id']}", "labels": [f"other-{x}" for x in r.get("labels", [])]}
            for r in some
        ]

    parts = [other(rows(catalogues["after"], name)) for name in ("labels", "train", "test")]
    done = life.run("refresh", write(tmp_path / "other", *parts))
    assert done.returncode == 1
    assert "it is another catalogue, train a model of it" in done.stderr.splitlines()[-1]


def test_the_way_back_is_a_rollback(refreshed, life, catalogues):
    """Last: it moves the champion."""
    done = life.command("rollback", "--reason", "for a test", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == "1"
