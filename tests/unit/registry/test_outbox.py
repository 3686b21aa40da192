"""What is recorded later looks as if it had been recorded when it happened, and only once."""

import json
import socket

import pytest

from xcflow.artifact import writing
from xcflow.config import TrackingConfig
from xcflow.errors import AccessError, ArtifactError, CredentialsError, StoreAwayError
from xcflow.registry import names
from xcflow.registry.outbox import Outbox, Record, Store
from xcflow.registry.sending import send, send_all

KEY = {"key": "key"}
STEP = {**KEY, "step_key": "key/train_encoder/1"}
DATASET = {"name": "catalogue", "digest": "0123456789abcdef", "source": "/data/catalogue"}


@pytest.fixture
def store(tracker):
    return Store(tracker.uri, tracker.experiment)


@pytest.fixture
def outbox(home, monkeypatch):
    monkeypatch.setenv("XCFLOW_HOME", str(home.root))
    return Outbox(home)


@pytest.fixture
def encoder(tmp_path):
    with writing(tmp_path / "encoder", "encoder", meta={"dim": 8}) as folder:
        history = {"series": {"train/loss": [[1, 0.5], [2, 0.25]]}}
        (folder / "history.json").write_text(json.dumps(history))
        (folder / "report.html").write_text("<p>report</p>")
    return tmp_path / "encoder"


def put_a_run(outbox, store, encoder):
    """A run of one step: began at 1000, trained from 1010 to 1060, ended at 1070."""
    opened = {"name": "a run", **KEY, "params": {"run": {"seed": 1}}, "tags": {}}
    end = {"status": names.FINISHED, "folder": str(encoder), "error": ""}
    rows = [
        ("open_run", {**opened, "dataset": DATASET}, 1000.0),
        ("begin_step", {**STEP, "step": "train_encoder", "params": {}}, 1010.0),
        ("end_step", {**STEP, **end}, 1060.0),
        ("close_run", {**KEY, "succeeded": True, "error": ""}, 1070.5),
    ]
    return [outbox.put(Record(store, *row)) for row in rows]


def test_times_are_those_of_the_events(outbox, store, tracker, encoder):
    put_a_run(outbox, store, encoder)
    send(outbox, store, tracker)
    assert outbox.waiting() == []
    run = tracker.client.get_run(tracker.find_run("key"))
    assert (run.info.start_time, run.info.end_time) == (1_000_000, 1_070_500)
    assert run.info.status == "FINISHED"
    step = tracker.steps(run.info.run_id)["train_encoder"]
    assert (step.info.start_time, step.info.end_time) == (1_010_000, 1_060_000)
    points = tracker.client.get_metric_history(step.info.run_id, "train/loss")
    assert [(p.step, p.value, p.timestamp) for p in points] == [
        (1, 0.5, 1_060_000),
        (2, 0.25, 1_060_000),
    ]


def test_nothing_is_recorded_twice(outbox, store, tracker, encoder):
    """A killed process may have sent each record without removing it."""
    files = put_a_run(outbox, store, encoder)
    kept = [path.read_text() for path in files]
    for _ in range(2):
        for path, text in zip(files, kept, strict=True):
            path.write_text(text)
        send(outbox, store, tracker)
    found = tracker.client.search_runs([tracker.experiment_id()])
    assert len(found) == 2
    run = tracker.find_run("key")
    assert len(tracker.client.get_run(run).inputs.dataset_inputs) == 1
    child = tracker.steps(run)["train_encoder"].info.run_id
    assert len(tracker.client.get_metric_history(child, "train/loss")) == 2
    assert len(tracker.client.list_artifacts(child)) == 1


@pytest.mark.parametrize("kind", [StoreAwayError, AccessError, CredentialsError])
def test_an_absent_store_keeps_all_in_order(outbox, store, kind):
    """So does one that refuses this user: the next may have the right, or the password."""
    for number in range(5):
        outbox.put(Record(store, "close_run", {"number": number}))
    seen = []

    def act(record):
        seen.append(record.arguments["number"])
        if len(seen) == 3:
            raise kind("not now")

    with pytest.raises(kind):
        outbox.deliver(store, act)
    assert len(outbox.waiting()) == 3
    outbox.deliver(store, act)
    assert seen == [0, 1, 2, 2, 3, 4]


def test_what_is_refused_for_good_stops_nothing(outbox, store, capsys):
    files = [outbox.put(Record(store, "end_step", {"number": n})) for n in range(3)]

    def act(record):
        if record.arguments["number"] == 1:
            raise ArtifactError("encoder: not a complete encoder")
        return record.arguments["number"]

    assert outbox.deliver(store, act) == {files[0]: 0, files[2]: 2}
    assert outbox.waiting() == []
    (aside,) = (outbox.folder / "refused").iterdir()
    assert Record.read(aside).arguments == {"number": 1}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: end_step was not recorded: encoder: not a complete encoder")
    assert str(aside) in line


def test_each_store_gets_its_own(outbox, store, home, encoder, tmp_path):
    other = Store(f"sqlite:///{tmp_path}/other.db", "elsewhere")
    put_a_run(outbox, store, encoder)
    put_a_run(outbox, other, encoder)
    assert outbox.stores() == {store, other}
    assert send_all(home, TrackingConfig()) == 8
    assert outbox.waiting() == []


def test_a_store_that_is_away_holds_up_no_other(outbox, store, home, encoder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        away = Store(f"http://127.0.0.1:{free.getsockname()[1]}", "elsewhere")
    put_a_run(outbox, away, encoder)
    put_a_run(outbox, store, encoder)
    with pytest.raises(StoreAwayError, match="cannot be reached"):
        send_all(home, TrackingConfig())
    assert outbox.stores() == {away}


def test_a_damaged_record_is_left_where_it_is(outbox, store):
    path = outbox.put(Record(store, "close_run", {}))
    path.write_text("{")
    assert outbox.deliver(store, lambda record: None) == {}
    assert outbox.waiting() == [path]
