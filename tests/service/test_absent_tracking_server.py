"""A tracking server that is away or hangs: steps go on, decisions wait, nothing is lost."""

import json
import signal
import threading
import time

import pytest

from xcflow.artifact import writing
from xcflow.config import TrackingConfig
from xcflow.errors import StoreAwayError
from xcflow.home import Home
from xcflow.registry.outbox import Outbox
from xcflow.registry.sending import send_all
from xcflow.registry.service import connected, recorded, running
from xcflow.registry.tracking import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def home(tmp_path, monkeypatch, server):
    for name, value in {
        "XCFLOW_HOME": str(tmp_path / "home"),
        "XCFLOW_RUN_KEY": "key",
        "MLFLOW_TRACKING_URI": server.uri,
        "MLFLOW_EXPERIMENT_NAME": "tests",
    }.items():
        monkeypatch.setenv(name, value)
    return Home.at()


@pytest.fixture
def tracker(home):
    return Tracker.from_environment()


def open_run():
    dataset = {"name": "catalogue", "digest": "0123456789abcdef", "source": "/data/catalogue"}
    with connected() as service:
        service.record(
            "open_run", name="a run", key="key", params={"run": {"seed": 1}}, tags={},
            dataset=dataset,
        )  # fmt: skip


def do_step(name, folder):
    """A step that writes a curve and a report; returns what its record cost in seconds."""
    start = time.monotonic()
    with recorded(name, {"run": {"seed": 1}}, folder), writing(folder, "encoder") as partial:
        series = {"train/loss": [[1, 0.5], [2, 0.25]]}
        (partial / "history.json").write_text(json.dumps({"series": series}))
        (partial / "report.html").write_text("<p>report</p>")
    return time.monotonic() - start


def champion(patience):
    with connected() as service:
        return service.decide("find_champion", patience, model="m", candidate="")


def close_run():
    with connected() as service:
        return service.record("close_run", key="key", succeeded=True, error="")


def assert_recorded(tracker, names, began):
    """Each step stands there once, whole, with the times at which it ran."""
    run = tracker.client.get_run(tracker.find_run("key"))
    assert run.info.status == "FINISHED"
    everything = tracker.client.search_runs([run.info.experiment_id])
    assert len(everything) == 1 + len(names)
    steps = tracker.steps(run.info.run_id)
    for name in names:
        info = steps[name].info
        assert info.status == "FINISHED"
        assert abs(info.start_time / 1000 - began[name]) < 10
        assert len(tracker.client.get_metric_history(info.run_id, "train/loss")) == 2
        assert [file.path for file in tracker.client.list_artifacts(info.run_id)] == ["report.html"]


def test_a_server_that_is_gone_for_a_while(server, home, tracker, tmp_path, capfd):
    began = {}
    with running():
        open_run()
        began["cluster_labels"] = time.time()
        do_step("cluster_labels", tmp_path / "clusters")
        assert champion(120) == ""
        server.kill()
        began["train_encoder"] = time.time()
        do_step("train_encoder", tmp_path / "encoder")
        with pytest.raises(StoreAwayError, match="cannot be reached"):
            champion(0)
        assert len(Outbox(home).waiting()) == 2
        starting = threading.Thread(target=server.start)
        starting.start()
        assert champion(240) == ""  # it waits for the server
        starting.join()
        assert Outbox(home).waiting() == []  # and comes after all that was recorded before
        close_run()
    assert "asking again for" in capfd.readouterr().err
    assert_recorded(tracker, ["cluster_labels", "train_encoder"], began)


def test_a_server_that_hangs(server, home, tracker, tmp_path):
    began = {}
    with running():
        open_run()
        assert champion(120) == ""
        server.send(signal.SIGSTOP)
        began["train_encoder"] = time.time()
        assert do_step("train_encoder", tmp_path / "encoder") < 10
        start = time.monotonic()
        with pytest.raises(StoreAwayError, match="does not answer"):
            champion(0)
        assert time.monotonic() - start < 90
        server.send(signal.SIGCONT)
        assert champion(120) == ""
        close_run()
    assert_recorded(tracker, ["train_encoder"], began)


def test_what_is_left_is_sent_later(server, home, tracker, tmp_path):
    began = {}
    server.kill()
    with running():
        open_run()
        began["train_encoder"] = time.time()
        do_step("train_encoder", tmp_path / "encoder")
        assert close_run() is None
    assert len(Outbox(home).waiting()) == 4
    with pytest.raises(StoreAwayError):
        send_all(home, TrackingConfig())
    server.start()
    assert send_all(home, TrackingConfig()) == 4
    assert_recorded(tracker, ["train_encoder"], began)
    assert send_all(home, TrackingConfig()) == 0
