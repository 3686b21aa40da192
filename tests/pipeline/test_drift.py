"""A catalogue changes between two runs of one home: what is told, what stops, what is cached."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import xcflow

from xcflow.steps import RETRAINING

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = (
    "run.threads=1",
    "clustering.clusters=32",
    "module_one.batch_size=128",
    "module_one.epochs=1",
    "module_two.epochs=1",
    "fusion.steps=20",
    "evaluation.latency_texts=5",
    "gate.promote=false",
)
STRICT = ("drift.removed_labels.fail=0.1",)


class Life:
    """One home, and everything that was done with it."""

    def __init__(self, home):
        self.home = home

    def command(self, *arguments):
        return xcflow(self.home, *arguments)

    def run(self, catalogue, *settings):
        overrides = [part for s in (*SETTINGS, *settings) for part in ("--set", s)]
        return self.command("run", "--data", str(catalogue), "--json", *overrides)

    def outcome(self, catalogue):
        done = self.run(catalogue)
        assert done.returncode == 3, done.stderr
        outcome = json.loads(done.stdout)
        outcome["states"] = {task["name"]: task["state"] for task in outcome["tasks"]}
        outcome["data"] = json.loads(
            Path(outcome["reports"]["data"]).resolve().with_name("report.json").read_text()
        )
        return outcome

    def promote(self, outcome):
        done = self.command("promote", outcome["run"], "--override", "--reason", "for a test")
        assert done.returncode == 0, done.stderr


def rewrite(path, change):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    return Life(tmp_path_factory.mktemp("life") / "home")


@pytest.fixture(scope="module")
def changed_catalogue(small_catalogue, tmp_path_factory):
    """60 of 400 labels are gone, one has another text."""
    folder = tmp_path_factory.mktemp("changed") / "small debian"
    shutil.copytree(small_catalogue, folder)
    kept = set()

    def without_some(rows):
        rows = [*rows[60:], {"id": "a-new-one", "text": "something new"}]
        rows[0]["text"] = "another text"
        kept.update(row["id"] for row in rows)
        return rows

    def known(rows):
        rows = ({**row, "labels": [x for x in row["labels"] if x in kept]} for row in rows)
        return [row for row in rows if row["labels"]]

    rewrite(folder / "labels.jsonl", without_some)
    rewrite(folder / "train.jsonl", known)
    rewrite(folder / "test.jsonl", known)
    return folder


@pytest.fixture(scope="module")
def first(life, small_catalogue):
    outcome = life.outcome(small_catalogue)
    life.promote(outcome)
    return outcome


@pytest.fixture(scope="module")
def refused(life, first, changed_catalogue):
    return life.run(changed_catalogue, *STRICT)


@pytest.fixture(scope="module")
def second(life, refused, changed_catalogue):
    return life.outcome(changed_catalogue)


@pytest.fixture(scope="module")
def repeated(life, second, changed_catalogue):
    """The same run once its model is the champion."""
    life.promote(second)
    return life.outcome(changed_catalogue)


def counts(outcome):
    names = ("removed_labels", "renamed_labels", "added_labels")
    found = {check["name"]: check["count"] for check in outcome["data"]["checks"]}
    return [found.get(name) for name in names]


def test_the_first_catalogue_is_held_against_nothing(first):
    assert first["states"]["check_drift"] == "done"
    assert first["data"]["drift"] is None


def test_too_many_removed_labels_stop_the_run_before_training(life, refused):
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(
        "xcflow: step check_drift failed: Labels that were removed: 60 of 400 labels of the "
        "accepted catalogue (15%, 10% allowed); report: "
    )
    page = Path(last.rpartition("report: ")[2])
    assert "another text" in page.read_text()


def test_what_changed_stands_in_the_data_report(second):
    assert set(second["states"].values()) - {"from cache"} == {"done"}
    assert second["states"]["validate_data"] == "from cache"  # the refused run wrote it
    assert second["data"]["drift"]["labels_in_common"] == 340
    assert counts(second) == [60, 1, 1]
    page = Path(second["reports"]["data"]).read_text()
    assert "Beside the last accepted catalogue" in page


def test_a_repeated_run_is_cached_to_its_end_though_its_own_model_was_accepted(second, repeated):
    states = repeated["states"]
    assert {states[name] for name in RETRAINING if name != "promote_model"} == {"from cache"}
    assert repeated["data"] == second["data"]


def test_another_accepted_catalogue_trains_nothing_anew(life, first, repeated, small_catalogue):
    back = life.outcome(small_catalogue)
    done = {name for name, state in back["states"].items() if state == "done"} & set(RETRAINING)
    assert done == {"check_drift", "evaluate_model", "gate_model"}
    assert counts(back) == [1, 1, 60]
    assert back["bundle"] == first["bundle"]


def test_the_command_line_compares_too(life, first, second, changed_catalogue):
    settings = [part for s in SETTINGS for part in ("--set", s)]
    against = ("validate", "--data", str(changed_catalogue), *settings, "--against")
    for name in (first["bundle"], "1"):
        done = life.command(*against, name)
        assert done.returncode == 0, done.stderr
        assert "warning  Labels that were removed: 60" in done.stdout
