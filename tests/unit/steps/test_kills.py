"""Steps that are killed, at any moment, end with the bytes of an undisturbed run.

Each run is a process of its own, forked from one that has imported everything. It counts what it
does to files and folders, and where it is told to be killed at the n-th of these, it sends itself
SIGKILL right before it; others are killed from outside after a share of the usual time.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xcflow.steps import STEPS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHAIN = [name for name in STEPS if name != "promote_model"]
KINDS = ("bag_of_embeddings", "transformer", "transformer_with_bag")
TRAINED = ("train_encoder", "train_classifier")
# What an evaluation says of the machine's speed differs from run to run.
TIMED = ("timings.json", "report.html", "manifest.json")

ZYGOTE = """
import json, os, signal, sys
import faiss, great_expectations, matplotlib.pyplot, pydantic.main, rich.progress
import sklearn.linear_model, torch._dynamo, transformers, typer._click
import xcflow_pipelines.cli
from xcflow.steps import STEPS
for step in STEPS:
    __import__(f"xcflow.steps.{step}")

def watch(kill_at):
    count = 0
    def see(event, arguments):
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(see)
    return lambda: count

for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2)
        counted = watch(request["kill_at"])
        code = 1
        try:
            sys.argv = ["xcflow", *request["arguments"]]
            xcflow_pipelines.cli.main()
        except SystemExit as end:
            code = end.code
        print(json.dumps({"events": counted()}), flush=True)
        os._exit(code)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print(status, flush=True)
"""


@dataclass
class Done:
    """How a process ended."""

    killed: bool
    seconds: float
    said: str

    @property
    def events(self) -> int:
        return int(json.loads(self.said.splitlines()[-1])["events"])


class Zygote:
    """Makes processes that run a command line of xcflow."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        self._process = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def run(self, *arguments: str, kill_at: int = 0, kill_after: float = 0.0) -> Done:
        request = {"arguments": arguments, "kill_at": kill_at, "log": str(self._log)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        pid, start = int(self._process.stdout.readline()), time.monotonic()
        if kill_after:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)  # a process that has ended waits to be waited for
        status = int(self._process.stdout.readline())
        seconds = time.monotonic() - start
        said = self._log.read_text()
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, said
            return Done(True, seconds, said)
        assert os.WEXITSTATUS(status) == 0, said
        return Done(False, seconds, said)

    def close(self) -> None:
        self._process.communicate()


@dataclass
class Life:
    """A home and the folders of the steps, as one undisturbed run of each left them."""

    root: Path
    zygote: Zygote
    settings: list[str]
    folders: dict[str, Path]
    seconds: dict[str, float] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)

    def command(self, step: str, place: Path) -> list[str]:
        inputs = [
            part for key in STEPS[step].inputs for part in ("--input", f"{key}={self.folders[key]}")
        ]
        if step == "evaluate_model":  # against itself, so that the champion's part is there too
            inputs += ["--input", f"champion={self.folders['bundle']}"]
        home = ["--home", str(place / "home"), "--output", str(place / "output")]
        return ["step", step, *inputs, *self.settings, *home]

    def undisturbed(self, step: str) -> None:
        place = self.root / step
        done = self.zygote.run(*self.command(step, place))
        self.folders[STEPS[step].produces] = place / "output"
        self.seconds[step], self.events[step] = done.seconds, done.events

    def content(self, step: str, place: Path) -> dict[str, str]:
        left_out = TIMED if step == "evaluate_model" else ()
        return {
            str(path.relative_to(place / "output")): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((place / "output").rglob("*"))
            if path.is_file() and path.name not in left_out
        }

    def check(self, step: str, place: Path) -> None:
        """The last run ended as the undisturbed one did, and nothing lies about."""
        assert self.content(step, place) == self.content(step, self.root / step)
        left = {p.name for p in place.iterdir()} | {p.name for p in place.glob("home/*/*")}
        assert left <= {"home", "output"}, left


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    zygote = Zygote(tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def lives(tmp_path_factory, zygote, catalogue, pretrained):
    """Kind of encoder -> its life, made when it is first asked for."""
    made: dict[str, Life] = {}

    def life(kind: str) -> Life:
        if kind not in made:
            settings = {
                "run.threads": 1,
                "data.catalogue_word_min_count": 1,
                "data.validation_fraction": 0.2,
                "encoder.model": str(pretrained),
                "encoder.kind": kind,
                "encoder.bf16": "off",
                "encoder.dropout": 0.2,
                "clustering.clusters": 4,
                "module_one.epochs": 5,
                "module_one.batch_size": 20,
                "module_one.cluster_from_epoch": 1,
                "module_one.learning_rate": 0.02,
                "module_two.epochs": 5,
                "module_two.batch_size": 20,
                "module_two.learning_rate": 0.02,
                "module_two.dropout": 0.2,
                "module_two.mined": 3,
                "module_two.mined_per_batch": 5,
                "module_two.mine_from_epoch": 1,
                "module_two.patience": 2,
                "fusion.steps": 20,
                "evaluation.latency_texts": 2,
                "checkpoint.every_seconds": 0,
            }
            overrides = [part for k, v in settings.items() for part in ("--set", f"{k}={v}")]
            root = tmp_path_factory.mktemp(kind)
            made[kind] = Life(root, zygote, overrides, {"catalogue": catalogue})
            for step in CHAIN:
                made[kind].undisturbed(step)
        return made[kind]

    return life


def test_a_second_run_elsewhere_writes_the_same_bytes(lives, tmp_path):
    life = lives(KINDS[0])
    for step in CHAIN:
        place = tmp_path / step
        assert not life.zygote.run(*life.command(step, place)).killed
        life.check(step, place)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", TRAINED)
def test_training_is_killed_again_and_again(lives, tmp_path, kind, step):
    life, draw = lives(kind), random.Random(f"{kind} {step}")
    command, events = life.command(step, tmp_path), life.events[step]
    kills = [events // 2, *(draw.randint(events // 4, events) for _ in range(3))]
    done = [life.zygote.run(*command, kill_at=kill_at) for kill_at in kills]
    done.append(life.zygote.run(*command))
    assert done[0].killed
    assert "going on from epoch" in done[1].said
    life.check(step, tmp_path)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("step", ["train_classifier", "gate_model"])
def test_a_kill_between_any_two_writes_of_the_end(lives, tmp_path, step, before):
    """Also where an output stood there: between two renames there is none for a moment."""
    life = lives(KINDS[0])
    for kill_at in range(max(1, life.events[step] - 7), life.events[step] + 1):
        place = tmp_path / str(kill_at)
        command = life.command(step, place)
        if before:
            assert not life.zygote.run(*command).killed
        assert life.zygote.run(*command, kill_at=kill_at).killed
        assert not life.zygote.run(*command).killed
        life.check(step, place)


@pytest.mark.parametrize("step", [step for step in CHAIN if step not in TRAINED])
def test_a_kill_between_any_other_writes(lives, tmp_path, step):
    life, draw = lives(KINDS[0]), random.Random(step)
    command = life.command(step, tmp_path)
    for kill_at in draw.sample(range(1, life.events[step]), 3):
        assert life.zygote.run(*command, kill_at=kill_at).killed
    assert not life.zygote.run(*command).killed
    life.check(step, tmp_path)


@pytest.mark.parametrize("step", CHAIN)
def test_a_kill_after_any_time(lives, tmp_path, step):
    life, draw = lives(KINDS[-1]), random.Random(step)
    command = life.command(step, tmp_path)
    for _ in range(2):
        life.zygote.run(*command, kill_after=draw.random() * life.seconds[step])
    assert not life.zygote.run(*command).killed
    life.check(step, tmp_path)


def test_an_output_that_was_moved_away_comes_back(lives, tmp_path):
    """A step that fails after such a kill leaves the output of the run before."""
    life = lives(KINDS[0])
    command = life.command("gate_model", tmp_path)
    assert not life.zygote.run(*command).killed
    (tmp_path / "output").rename(tmp_path / ".output.old-1")
    wrong = [part.replace("evaluation=", "evaluation=/nowhere/") for part in command]
    with pytest.raises(AssertionError, match="nowhere"):
        life.zygote.run(*wrong)
    life.check("gate_model", tmp_path)
