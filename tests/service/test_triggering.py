"""One run for each catalogue, whoever asks, however often, and whatever is killed meanwhile.

The tracking server is real. Runs are files in a folder that, like Kubeflow, takes any number of
runs of one name.
"""

import json
import multiprocessing
import os
import signal
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3

from xcflow.artifact import read_manifest, writing
from xcflow.catalogue.dataset import Dataset
from xcflow.catalogue.profile import Profile
from xcflow.catalogue.readers import catalogue_digest
from xcflow.catalogue.seal import NAME, Seal
from xcflow.config import Config, DataConfig, GateConfig
from xcflow.errors import StoreAwayError, TrackingError
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker
from xcflow.steps import run_step
from xcflow_pipelines import refreshing
from xcflow_pipelines.cluster.triggering import Patience, Run, Trigger

FORK = multiprocessing.get_context("fork")
TRIGGERS = 16
QUICK = Patience(claim_s=0.4, poll_s=0.05)
# So patient that only the end of the work ends the waiting.
PATIENT = Patience(claim_s=300.0, poll_s=0.2)


class FolderCluster:
    """Runs as files; ``at`` is called before and after each look and each change."""

    def __init__(self, folder: Path, at=lambda: None, seconds: float = 0.0):
        self._folder, self._at, self._seconds = folder, at, seconds
        folder.mkdir(exist_ok=True)

    def runs(self):
        rows = [json.loads(path.read_text()) for path in sorted(self._folder.iterdir())]
        return {row["id"]: row for row in rows}

    def prepare(self, outline):
        self._at()

    def submit(self, key, outline):
        self._at()
        for row in self.runs().values():
            if row["name"] == key:
                return Run(row["id"], key)
        self._at()
        time.sleep(self._seconds)
        run = uuid.uuid4().hex
        self.write(run, name=key, uri=outline.uri, content=outline.content, state="RUNNING")
        self._at()
        return Run(run, key)

    def write(self, run, **facts):
        partial = self._folder.parent / f"{run}.partial"
        partial.write_text(json.dumps({"id": run, **facts}))
        partial.rename(self._folder / f"{run}.json")

    def end(self, run, state):
        self.write(
            run, **{k: v for k, v in self.runs()[run].items() if k != "id"} | {"state": state}
        )

    def is_over(self, state):
        return state != "RUNNING"

    def state(self, run):
        return self.runs()[run]["state"]

    def cancel(self, run):
        self.end(run, "CANCELED")


@pytest.fixture(scope="module")
def tracking_server(make_server, tmp_path_factory):
    server = make_server(tmp_path_factory.mktemp("tracking"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def cluster(tmp_path):
    return FolderCluster(tmp_path / "cluster")


@pytest.fixture
def folder(write_catalogue, tmp_path):
    return write_catalogue(
        tmp_path / "catalogue",
        [{"id": f"l{i}", "text": f"label {i}"} for i in range(5)],
        [{"id": f"d{i}", "text": f"text {i}", "labels": ["l0"]} for i in range(9)],
        [{"id": "t1", "text": "query", "labels": ["l1"]}],
    )


@pytest.fixture
def config(tracking_server, request):
    """Each test has a model of its own on the server."""
    tracking = {"uri": tracking_server.uri, "model_name": request.node.name[:100]}
    return Config.from_dict({"tracking": tracking, "data": {"catalogue_words": 0}})


@pytest.fixture
def make_trigger(config, tmp_path):
    def make(cluster, patience=QUICK, model="", pipeline=""):
        home = Home.at(tmp_path / f"home-{uuid.uuid4().hex[:8]}")
        tracking = replace(config.tracking, model_name=model or config.tracking.model_name)
        settings = replace(config, tracking=tracking)
        return Trigger(settings, Tracker.at(tracking, home), home, cluster, patience, pipeline)

    return make


@pytest.fixture
def make_champion(config, tmp_path):
    """Makes a model that was trained on a catalogue the champion."""

    def make(catalogue):
        run_step("validate_data", config, {"catalogue": catalogue}, tmp_path / "dataset")
        dataset = Dataset.open(tmp_path / "dataset")
        meta = {"catalogue_digest": dataset.manifest.meta["catalogue_digest"]}
        bundle = tmp_path / "bundle"
        with writing(bundle, "bundle", meta=meta) as partial:
            (partial / "labels").mkdir()
            dataset.labels.ids.save(partial / "labels" / "ids")
            dataset.labels.texts.save(partial / "labels" / "texts")
            Profile.of(dataset).save(partial)
        judgement = Judgement(
            verdict="PROMOTE", reasons=("for a test",), notes=(), checks=(),
            candidate=read_manifest(bundle).digest, champion="", evaluation="e", dataset="d",
            catalogue="c", test_split="s", documents=1, thresholds=GateConfig(),
        )  # fmt: skip
        home = Home.at(tmp_path / "home-of-the-champion")
        tracker = Tracker.at(config.tracking, home)
        Registry(tracker, config.tracking.model_name, home).promote(bundle, judgement, run=None)

    return make


def change(folder):
    """One label more, one less, one with another text; two more documents."""
    rows = [{"id": f"l{i}", "text": f"label {i}"} for i in range(4)]
    rows = [*rows[1:], {"id": "l0", "text": "another name"}, {"id": "new", "text": "a new one"}]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "train.jsonl").open("a") as stream:
        for i in (10, 11):
            row = {"id": f"d{i}", "text": f"text {i}", "labels": ["new"]}
            stream.write(json.dumps(row) + "\n")


def test_a_first_catalogue_has_its_run_once(make_trigger, cluster, folder):
    trigger = make_trigger(cluster)
    first = trigger.pull(str(folder))
    assert (first.state, first.accepted, first.difference) == ("submitted", "", None)
    (run,) = cluster.runs().values()
    assert (run["uri"], run["content"]) == (str(folder), catalogue_digest(folder))
    assert (run["id"], run["name"]) == (first.submission.run, first.submission.name)
    for _ in range(2):
        again = make_trigger(cluster).pull(str(folder))
        assert (again.state, again.submission) == ("known", first.submission)
        assert again.run_state == "RUNNING"
    assert len(cluster.runs()) == 1


def test_the_accepted_catalogue_needs_no_run(make_trigger, make_champion, cluster, folder):
    make_champion(folder)
    assert make_trigger(cluster).pull(str(folder)).state == "accepted"
    (folder / NAME).write_bytes(Seal.of(folder, DataConfig()).to_bytes())
    sealed = make_trigger(cluster).pull(str(folder))
    assert (sealed.state, sealed.outline.basis) == ("accepted", "seal")
    assert cluster.runs() == {}


def test_what_is_new_is_told_before_a_run_is_submitted(
    make_trigger, make_champion, cluster, folder
):
    make_champion(folder)
    change(folder)
    outcome = make_trigger(cluster).pull(str(folder))
    assert outcome.state == "submitted"
    labels, documents = outcome.difference.labels, outcome.difference.documents
    assert labels.added.examples == ('new "a new one"',)
    assert labels.removed.examples == ('l4 "label 4"',)
    assert labels.renamed.examples == ('l0 "another name", was "label 0"',)
    assert (documents.added, documents.removed, documents.exact) == (2, 0, True)


def test_each_pipeline_has_a_run_of_its_own(make_trigger, make_champion, cluster, folder):
    refresh = make_trigger(cluster, pipeline=refreshing.NAME)
    with pytest.raises(TrackingError, match="no champion yet to take a catalogue in: retrain"):
        refresh.pull(str(folder))
    make_champion(folder)
    change(folder)
    for trigger in (refresh, make_trigger(cluster)):
        assert trigger.pull(str(folder)).state == "submitted"
        assert trigger.pull(str(folder)).state == "known"
    first, second = sorted((run["name"] for run in cluster.runs().values()), key=len, reverse=True)
    assert first == f"{second} {refreshing.NAME}"


def test_a_dry_run_changes_nothing(make_trigger, cluster, folder, config, tmp_path):
    outcome = make_trigger(cluster).pull(str(folder), dry_run=True)
    assert (outcome.state, outcome.submission) == ("due", None)
    assert cluster.runs() == {}
    client = Tracker.at(config.tracking, Home.at(tmp_path / "another home")).client
    made = [e.name for e in client.search_experiments()]
    assert f"{config.tracking.model_name} triggers" not in made
    assert make_trigger(cluster).pull(str(folder)).state == "submitted"


def test_another_run_is_made_on_demand_once_the_latest_is_over(make_trigger, cluster, folder):
    first = make_trigger(cluster).pull(str(folder)).submission
    assert make_trigger(cluster).pull(str(folder), again=True).state == "known"
    cluster.end(first.run, "FAILED")
    known = make_trigger(cluster).pull(str(folder))
    assert (known.state, known.run_state) == ("known", "FAILED")
    again = make_trigger(cluster).pull(str(folder), again=True)
    assert again.state == "submitted"
    assert again.submission.name != first.name
    assert make_trigger(cluster).pull(str(folder)).submission == again.submission
    assert len(cluster.runs()) == 2


def run_in(queue, barrier, trigger, uri):
    barrier.wait()
    outcome = trigger.pull(uri)
    queue.put((outcome.state, outcome.submission.run))


def test_of_many_at_once_one_submits_and_all_know_the_run(make_trigger, tmp_path, folder):
    cluster = FolderCluster(tmp_path / "cluster", seconds=1.0)
    queue, barrier = FORK.Queue(), FORK.Barrier(TRIGGERS)
    processes = [
        FORK.Process(
            target=run_in, args=(queue, barrier, make_trigger(cluster, PATIENT), str(folder))
        )
        for _ in range(TRIGGERS)
    ]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    (run,) = cluster.runs()
    assert sorted(answers) == [("known", run)] * (TRIGGERS - 1) + [("submitted", run)]


def killed_at(number):
    """A function that kills the process when it is called for the so-many-th time."""
    calls = iter(range(number))
    return lambda: None if next(calls, None) is not None else os.kill(os.getpid(), signal.SIGKILL)


def pull_and_die(trigger, uri, at):
    """Trigger, but die before or after one of the requests."""
    original = urllib3.connectionpool.HTTPConnectionPool.urlopen

    def urlopen(*args, **kwargs):
        at()
        response = original(*args, **kwargs)
        at()
        return response

    urllib3.connectionpool.HTTPConnectionPool.urlopen = urlopen
    trigger.pull(uri)


@pytest.mark.slow
def test_killed_at_any_request_the_next_one_makes_it_one_run(make_trigger, folder, tmp_path):
    number, survived, uri = 0, False, str(folder)
    while not survived:
        # Each time for another model, so that all begins anew.
        place, model, at = tmp_path / f"cluster-{number}", f"killed-{number}", killed_at(number)
        trigger = make_trigger(FolderCluster(place, at), model=model)
        process = FORK.Process(target=pull_and_die, args=(trigger, uri, at))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        survived = process.exitcode == 0
        cluster = FolderCluster(place)
        outcome = make_trigger(cluster, model=model).pull(uri)
        assert list(cluster.runs()) == [outcome.submission.run], number
        assert make_trigger(cluster, model=model).pull(uri).submission == outcome.submission
        number += 1
    assert number > 20


def test_of_two_that_were_submitted_all_the_same_one_stays(make_trigger, folder, tmp_path):
    """A process that is held up after its claim, until that was taken over."""
    place = tmp_path / "cluster"
    others = []

    class HeldUp(FolderCluster):
        def submit(self, key, outline):
            others.append(make_trigger(FolderCluster(place)).pull(str(folder)))
            run = uuid.uuid4().hex  # it looked for the run before the other one made it
            self.write(run, name=key, uri="", content="", state="RUNNING")
            return Run(run, key)

    outcome = make_trigger(HeldUp(place)).pull(str(folder))
    assert others[0].state == "submitted"
    assert (outcome.state, outcome.submission) == ("known", others[0].submission)
    states = {run: row["state"] for run, row in FolderCluster(place).runs().items()}
    assert states.pop(outcome.submission.run) == "RUNNING"
    assert list(states.values()) == ["CANCELED"]


@pytest.mark.slow
def test_a_store_that_is_away_is_told_and_nothing_is_submitted(
    make_trigger, cluster, folder, tracking_server
):
    trigger = make_trigger(cluster)
    tracking_server.kill()
    try:
        with pytest.raises(StoreAwayError) as caught:
            trigger.pull(str(folder))
        assert "cannot be reached" in str(caught.value)
        assert cluster.runs() == {}
    finally:
        tracking_server.start()
    assert trigger.pull(str(folder)).state == "submitted"


@pytest.mark.slow
def test_a_store_that_goes_away_after_the_submission_loses_nothing(
    make_trigger, folder, tracking_server, tmp_path
):
    class Fatal(FolderCluster):
        def submit(self, key, outline):
            run = super().submit(key, outline)
            tracking_server.kill()
            return run

    try:
        with pytest.raises(StoreAwayError):
            make_trigger(Fatal(tmp_path / "cluster")).pull(str(folder))
    finally:
        tracking_server.start()
    cluster = FolderCluster(tmp_path / "cluster")
    outcome = make_trigger(cluster).pull(str(folder))
    assert [outcome.submission.run] == list(cluster.runs())
