"""A step in several ranks that are killed, interrupted, or given what they cannot use."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = ("train_encoder", "train_classifier")
# Long enough to be met in the middle.
LONG = {
    "train_encoder": ["--set", "module_one.epochs=60", "--set", "module_one.patience=60"],
    "train_classifier": ["--set", "module_two.epochs=60", "--set", "module_two.patience=60"],
}
WAIT_S = 240


class Running:
    """A command line of xcflow, whose ranks a test can reach."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "xcflow_pipelines", *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=log.open("wb"),
        )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_S
        while not happened():
            assert time.monotonic() < end, self.said
            time.sleep(0.02)

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.said)

    def ranks(self) -> dict[int, int]:
        """Rank -> process, of those that live."""
        found = {}
        for pid in self.descendants():
            environment = _read(pid, "environ").split(b"\0")
            ranks = [v for v in environment if v.startswith(b"RANK=")]
            if ranks and b"xcflow.steps.rank" in _read(pid, "cmdline"):
                found[int(ranks[0].removeprefix(b"RANK="))] = pid
        return found

    def descendants(self) -> list[int]:
        parents = {}
        for folder in Path("/proc").glob("[0-9]*"):
            if stat := _read(int(folder.name), "stat"):
                parents[int(folder.name)] = int(stat.rpartition(b")")[2].split()[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]

    def end(self) -> int:
        return self.process.wait(WAIT_S)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def life(lives):
    return lives("bag_of_embeddings")


@pytest.fixture
def start(life, tmp_path):
    """Start a step in two ranks; whatever is left of it dies with the test."""
    started = []

    def start(step: str, place: str, *more: str) -> Running:
        (tmp_path / place).mkdir(exist_ok=True)
        command = life.command(step, tmp_path / place)
        command += ["--processes", "2", *LONG[step], *more]
        started.append(Running(command, tmp_path / f"{place}-{len(started)}.log"))
        return started[-1]

    yield start
    for running in started:
        for pid in [*running.descendants(), running.process.pid]:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
        running.process.wait()


@pytest.mark.parametrize("step", STEPS)
def test_ranks_that_are_killed_end_with_the_bytes_of_others(life, start, tmp_path, step):
    undisturbed = start(step, "undisturbed")
    assert undisturbed.end() == 0, undisturbed.said
    killed = start(step, "killed")
    for rank, epoch in ((1, 3), (0, 9)):
        killed.until_said(f"epoch {epoch}:")
        os.kill(killed.ranks()[rank], signal.SIGKILL)
    assert killed.end() == 0, killed.said
    assert killed.said.count("going on from epoch") == 2
    content = [life.content(step, tmp_path / place) for place in ("undisturbed", "killed")]
    assert content[0] == content[1]
    assert "Traceback" not in killed.said


def test_an_interruption_reaches_all_ranks_and_the_command_goes_on(life, start, tmp_path):
    step = "train_classifier"
    assert start(step, "undisturbed").end() == 0
    running = start(step, "stopped", "--set", "checkpoint.every_seconds=1000")
    running.until_said("epoch 3:")
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 128 + signal.SIGTERM
    assert running.said.splitlines()[-1].endswith("type the same command again to go on")
    again = start(step, "stopped", "--set", "checkpoint.every_seconds=1000")
    assert again.end() == 0, again.said
    assert "going on from epoch" in again.said
    content = [life.content(step, tmp_path / place) for place in ("undisturbed", "stopped")]
    assert {**content[0], "manifest.json": ""} == {**content[1], "manifest.json": ""}


def test_a_rank_that_is_lost_for_good_is_told_in_one_line(start):
    running = start("train_encoder", "lost", "--set", "distributed.max_restarts=0")
    running.until_said("epoch 2:")
    os.kill(running.ranks()[1], signal.SIGKILL)
    assert running.end() == 1
    last = running.said.splitlines()[-1]
    assert last.startswith("xcflow: train_encoder: rank 1 was ended by SIGKILL"), running.said
    assert "Traceback" not in running.said


def test_what_is_wrong_is_told_once_and_not_tried_again(start, tmp_path):
    running = start("train_encoder", "wrong", "--input", f"clusters={tmp_path}")
    assert running.end() == 1
    assert running.said.count("not a complete clusters") == 1
    assert len(running.said.splitlines()) == 1, running.said


def test_ranks_end_with_the_command_that_started_them(start):
    running = start("train_encoder", "orphans", "--set", "checkpoint.every_seconds=1000")
    running.until_said("epoch 2:")
    others = running.descendants()
    assert len(others) >= 3
    running.process.kill()
    running.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in others))
