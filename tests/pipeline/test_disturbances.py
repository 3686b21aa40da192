"""The whole pipeline by the real command, killed and interrupted until it comes to its end."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xcflow.artifact import read_manifest
from xcflow.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SETTINGS = (
    "run.threads=1",
    "clustering.clusters=32",
    "module_one.batch_size=128",
    "module_one.epochs=3",
    "module_two.epochs=3",
    "data.validation_fraction=0.2",
    "fusion.steps=20",
    "evaluation.latency_texts=5",
    "checkpoint.every_seconds=0",
)
WAIT_S = 1200
# Shells start what runs in the background with SIGINT ignored.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from xcflow_pipelines.cli import main
main()
"""


class Run:
    """A run in a process group of its own."""

    def __init__(self, home, catalogue):
        self.home = Home.at(home)
        self._known = self._logs()
        overrides = [part for s in SETTINGS for part in ("--set", s)]
        command = ["run", "--data", str(catalogue), "--home", str(home), "--json", *overrides]
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        )

    def _logs(self):
        return set(self.home.runs.glob("*/logs/*.log"))

    def wait_for(self, step, words=""):
        """Wait until a step has begun, or printed some words."""
        end = time.monotonic() + WAIT_S
        while not any(
            path.stem == step and words in path.read_text() for path in self._logs() - self._known
        ):
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.05)

    def end(self):
        """Its exit code and what it said, after all its processes are gone."""
        said = self.process.communicate(timeout=WAIT_S)
        deadline = time.monotonic() + 60
        while alive := processes_of(self.process.pid):
            assert time.monotonic() < deadline, alive
            time.sleep(0.05)
        return self.process.returncode, *said


def processes_of(session):
    """Command lines of what still runs of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            facts = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(facts[3]) == session and facts[0] != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_catalogue):
    run = Run(tmp_path_factory.mktemp("undisturbed") / "home", small_catalogue)
    code, answer, said = run.end()
    assert code in (0, 3), said
    return json.loads(answer)


def statuses(home):
    with sqlite3.connect(home.database) as store:
        rows = "SELECT name, status FROM runs ORDER BY start_time"
        return store.execute(rows).fetchall()


def test_a_run_that_is_killed_and_interrupted_again_and_again(
    tmp_path, small_catalogue, undisturbed
):
    home = tmp_path / "home"

    def start():
        return Run(home, small_catalogue)

    killed = start()
    killed.wait_for("train_encoder", "epoch 1:")
    os.killpg(killed.process.pid, signal.SIGKILL)
    assert killed.end()[0] == -signal.SIGKILL

    left_alone = start()
    left_alone.wait_for("train_encoder", "going on from epoch")
    left_alone.process.kill()  # its tasks live on, until they notice
    assert left_alone.end()[0] == -signal.SIGKILL

    from_terminal = start()
    from_terminal.wait_for("train_classifier", "epoch 1:")
    os.killpg(from_terminal.process.pid, signal.SIGINT)
    code, _, said = from_terminal.end()
    assert code == 130, said
    assert said.splitlines()[-1].startswith("xcflow: run ")
    assert said.endswith("was interrupted: type the same command again to go on\n")
    assert "Traceback" not in said

    by_scheduler = start()
    by_scheduler.wait_for("build_index")
    by_scheduler.process.terminate()
    code, _, said = by_scheduler.end()
    assert code == 143, said
    assert "was interrupted: type the same command again to go on" in said.splitlines()[-1]

    at_once = start()
    at_once.wait_for("build_index")
    for _ in range(2):
        os.killpg(at_once.process.pid, signal.SIGINT)
        time.sleep(0.3)
    start_of_end = time.monotonic()
    at_once.end()
    assert time.monotonic() - start_of_end < 30

    code, answer, said = start().end()
    assert code in (0, 3), said
    outcome = json.loads(answer)
    digests = [read_manifest(Path(run["bundle"])).digest for run in (outcome, undisturbed)]
    assert digests[0] == digests[1]
    assert outcome["models"] == undisturbed["models"]
    states = {task["name"]: task["state"] for task in outcome["tasks"]}
    assert states["train_encoder"] == states["train_classifier"] == "from cache"
    assert not list(home.glob("tmp-*"))
    assert not list((home / "checkpoints").iterdir())
    assert not list((home / "outbox").glob("*.json"))
    ended = dict(statuses(Home.at(home)))
    assert ended[outcome["run"]] == "FINISHED"


def test_two_runs_on_one_home(tmp_path, small_catalogue):
    first = Run(tmp_path / "home", small_catalogue)
    first.wait_for("validate_data")
    second = Run(tmp_path / "home", small_catalogue)
    code, _, said = second.end()
    assert code == 1
    assert f"is used by another run (process {first.process.pid}): wait for its end" in said
    first.process.terminate()
    assert first.end()[0] == 143
