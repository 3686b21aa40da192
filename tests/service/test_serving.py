"""A real server process on a real registry: it follows, refuses, goes on, and ends in order."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import serving_soak as soak
from bundle_copies import alter, mistake_labels, variant

from xcflow.artifact import read_manifest
from xcflow.config import TrackingConfig
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker
from xcflow.serving.predictor import Predictor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TEXTS = ["amber goat x", "black heron", "coral", "denim ibis w", "ebony jackal z", "fawn koala"]
FAST = ("--set", "poll_seconds=0.2")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def other_model(catalogue, configure, train_model):
    """A model of the same labels that answers otherwise."""
    return train_model(catalogue, configure(run={"seed": 7}))


@pytest.fixture
def home(tmp_path):
    return Home.at(tmp_path / "home")


@pytest.fixture
def registry(home):
    return Registry(Tracker.at(TrackingConfig(), home), "xcflow", home)


def xcflow(*arguments):
    done = subprocess.run([*soak.COMMAND, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip()


def ids(predictor, text):
    return predictor.label_ids.take(predictor.top_k([text], 3).labels[0])


def asked(server, text):
    status, body = server.ask("POST", "/predict", {"texts": [text], "k": 3})
    assert status == 200
    return body["model"]["version"], [label["id"] for label in body["labels"][0]]


def test_a_server_follows_its_champion(registry, home, model, other_model, tmp_path):
    first, second = (ids(Predictor.load(each.bundle), TEXTS[0]) for each in (model, other_model))
    broken = soak.register_broken(registry, model.bundle, tmp_path, 2)
    old = soak.registered(registry, model.bundle)
    with soak.running(home.root, tmp_path / "log", *FAST) as server:
        assert asked(server, TEXTS[0]) == (old, first)

        new = soak.registered(registry, other_model.bundle)
        server.wait_until(lambda: server.version() == new)
        assert asked(server, TEXTS[0]) == (new, second)
        status, body = server.ask("POST", "/predict", {"texts": TEXTS[:1], "model": "previous"})
        assert (status, body["model"]["version"]) == (200, old)

        assert xcflow("rollback", "--reason", "a test", "--home", str(home.root))[0] == 0
        server.wait_until(lambda: server.version() == old)
        assert asked(server, TEXTS[0]) == (old, first)

        for count, number in enumerate(broken, 1):
            registry.rollback(number, "a broken one")
            server.wait_until(lambda n=number: f"version {n} is refused" in server.said())
            assert asked(server, TEXTS[0]) == (old, first)
            assert server.ask("GET", "/v2/health/ready")[0] == 200
            assert server.value("xcflow_models_refused_total") == count

        with soak.moved_away(home.database):
            server.wait_until(lambda: server.value("xcflow_registry_errors_total") > 0)
            assert asked(server, TEXTS[0]) == (old, first)
        registry.rollback(new, "it is back")
        server.wait_until(lambda: server.version() == new)


def test_what_was_accepted_is_answered_before_the_end(model, tmp_path):
    with soak.running(tmp_path, tmp_path / "log", "--model", str(model.bundle)) as server:
        body = json.dumps({"texts": TEXTS}).encode()
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for one in waiting:  # once it is told to go on, a request was accepted
            one.sendall(head + b"Expect: 100-continue\r\n\r\n")
        answers = [one.makefile("rb") for one in waiting]
        for answer in answers:
            assert answer.readline().startswith(b"HTTP/1.1 100")
            assert answer.readline() == b"\r\n"
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", server.port))
        for one in waiting:
            one.sendall(body)
        for one, answer in zip(waiting, answers, strict=True):
            assert answer.readline().startswith(b"HTTP/1.1 200")
            assert answer.read().endswith(b"}")
            one.close()
        assert server.process.wait(60) == 0
        assert "stopped; what was accepted is answered" in server.said()


def test_with_several_processes_numbers_add_up_and_all_end(model, tmp_path):
    arguments = ("--model", str(model.bundle), "--workers", "2")
    with soak.running(tmp_path, tmp_path / "log", *arguments) as server:
        server.wait_until(lambda: len(children_of(server.process.pid)) >= 2)
        both = 'xcflow_requests_total{route="/predict",status="200"}'
        threads = [
            threading.Thread(target=lambda: [asked(server, text) for text in TEXTS * 5])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {server.value(both) for _ in range(10)} == {4 * 5 * len(TEXTS)}
        children = children_of(server.process.pid)
        digest = read_manifest(model.bundle).digest
        name = model.bundle.name
        line = f'xcflow_model{{digest="{digest}",name="xcflow",version="{name}"}}'
        assert server.value(line) == 1
        # One that dies is replaced; its counts stay, what it said of the present goes.
        os.kill(children[-1], signal.SIGKILL)
        server.wait_until(lambda: children[-1] not in children_of(server.process.pid))
        server.wait_until(lambda: len(children_of(server.process.pid)) == len(children))
        server.wait_until(lambda: server.value(both) == 4 * 5 * len(TEXTS))
        children = children_of(server.process.pid)
        assert server.stop() == 0
        end = time.monotonic() + 30
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < end
            time.sleep(0.1)


def children_of(pid):
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("--host", "0.0.0.0"), 2, "set XCFLOW_SERVE_TOKEN to what requests must bear"),
        (("--host", "192.0.2.1", "--insecure"), 2, "cannot listen on 192.0.2.1"),
        (("--host", "no.such.host.invalid", "--insecure"), 2, "cannot listen on no.such.host"),
        (("--set", "k=3"), 2, "k"),
        (("--model", "nowhere"), 2, "nowhere"),
        (("--model", "7"), 1, "there is no tracking store at"),
        (("--model", "nowhere", "--workers", "2"), 2, "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, arguments, code, reason):
    found, said = xcflow("serve", "--home", str(tmp_path), "--port", "0", *arguments)
    last = said.splitlines()[-1]
    assert last.startswith("xcflow: ")
    assert reason in last
    assert found == code
    assert "Traceback" not in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_broken_bundle_is_one_line(tmp_path, model, workers):
    folder = variant(model.bundle, tmp_path / "broken")
    alter(folder)
    arguments = ("--model", str(folder), "--workers", workers)
    code, said = xcflow("serve", "--home", str(tmp_path), "--port", "0", *arguments)
    assert code == 1
    assert "was altered after it was written" in said
    assert said.splitlines()[-1].startswith("xcflow: ")
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_named(tmp_path, model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bundle = str(model.bundle)
        code, said = xcflow(
            "serve", "--home", str(tmp_path), "--port", str(port), "--model", bundle
        )
    assert code == 2
    assert said.splitlines()[-1].startswith(f"xcflow: cannot listen on 127.0.0.1, port {port}")


def test_a_tracking_server_that_comes_and_goes(server, model, other_model, tmp_path):
    trainer = Home.at(tmp_path / "trainer")
    registry = Registry(Tracker.at(TrackingConfig(uri=server.uri), trainer), "xcflow", trainer)
    soak.registered(registry, model.bundle)
    soak.registered(registry, other_model.bundle)
    broken = variant(model.bundle, tmp_path / "broken", number=3)
    mistake_labels(broken)
    soak.registered(registry, broken)
    registry.rollback("1", "to begin with")
    elsewhere = tmp_path / "elsewhere"  # a home that must fetch each bundle
    where = {"MLFLOW_TRACKING_URI": server.uri}
    with soak.running(elsewhere, tmp_path / "log", *FAST, **where) as serving:
        assert serving.version() == "1"
        registry.rollback("2", "forward")
        serving.wait_until(lambda: serving.version() == "2")
        assert asked(serving, TEXTS[0]) == ("2", ids(Predictor.load(other_model.bundle), TEXTS[0]))

        server.kill()
        serving.wait_until(lambda: serving.value("xcflow_registry_errors_total") > 0)
        assert asked(serving, TEXTS[0])[0] == "2"
        assert serving.ask("GET", "/v2/health/ready")[0] == 200
        server.start()

        registry.rollback("3", "a broken one")
        serving.wait_until(lambda: "version 3 is refused" in serving.said())
        assert serving.version() == "2"
        registry.rollback("1", "back")
        serving.wait_until(lambda: serving.version() == "1")

        server.send(signal.SIGSTOP)  # it takes questions and answers none
        try:
            for text in TEXTS:
                assert asked(serving, text)[0] == "1"
        finally:
            server.send(signal.SIGCONT)
        registry.rollback("2", "forward again")
        serving.wait_until(lambda: serving.version() == "2")


def test_two_minutes_of_load_while_everything_moves(registry, home, model, other_model, tmp_path):
    broken = soak.register_broken(registry, model.bundle, tmp_path, 5)
    bundles = (model.bundle, other_model.bundle)
    models = {soak.registered(registry, each): Predictor.load(each) for each in bundles}
    with soak.running(home.root, tmp_path / "log", *FAST) as server:
        load = soak.Load(server, models, TEXTS)
        report = soak.soak(load, registry, broken, seconds=120, moves=20)
        assert report.failures == []
        assert report.requests > 500
        assert (report.moves, report.refused, report.outages) == (20, 5, 4)
        assert server.value("xcflow_models_refused_total") == 5
        before, after = report.memory_mb
        assert after < before + 40
        # Of what was said before nothing is left: one version answers.
        _, text = server.ask("GET", "/metrics")
        shown = [line for line in text.splitlines() if line.startswith("xcflow_model{")]
        assert sum(float(line.rpartition(" ")[2]) for line in shown) == 1
        assert server.stop() == 0
