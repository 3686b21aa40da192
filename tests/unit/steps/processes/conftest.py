"""Steps as processes of their own, which a test can kill, interrupt and starve."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xcflow.steps import RETRAINING, STEPS

CHAIN = [name for name in RETRAINING if name != "promote_model"]
# What an evaluation says of the machine's speed differs from run to run.
TIMED = ("timings.json", "report.html", "manifest.json")

# Each run is forked from one process that has imported everything. It counts what it does to files
# and folders, and where it is told so it sends itself a signal right before the n-th of these.
ZYGOTE = """
import json, os, signal, sys, time
import faiss, great_expectations, matplotlib.pyplot, pydantic.main, rich.progress
import sklearn.linear_model, torch._dynamo, transformers, typer._click
import xcflow_pipelines.cli
from xcflow.steps import STEPS
for step in STEPS:
    __import__(f"xcflow.steps.{step}")

def watch(at, number):
    count = 0
    def see(event, arguments):
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            count += 1
            if count == at:
                os.kill(os.getpid(), number)
    sys.addaudithook(see)
    return lambda: count

for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1), os.dup2(log, 2)
        counted = watch(request["at"], request["signal"])
        code = 1
        try:
            sys.argv = ["xcflow", *request["arguments"]]
            xcflow_pipelines.cli.main()
        except SystemExit as end:
            code = end.code
        print(json.dumps({"events": counted()}), flush=True)
        os._exit(code)
    if request["kill_after"]:
        time.sleep(request["kill_after"])
        os.kill(pid, signal.SIGKILL)  # one that has ended waits to be waited for
    _, status = os.waitpid(pid, 0)
    print(status, flush=True)
"""


@dataclass
class Done:
    """How a process ended.

    Attributes:
        code: Its exit code; negative where a signal ended it.
        seconds: Wall time.
        said: Everything it printed.
        events: What it did to files and folders, where it was not killed.
    """

    code: int
    seconds: float
    said: str
    events: int = 0

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


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

    def run(
        self, *arguments: str, at: int = 0, number: int = signal.SIGKILL, kill_after: float = 0.0
    ) -> Done:
        """Run a command line.

        Args:
            arguments: What follows ``xcflow``.
            at: Before which write a signal comes; 0 for none.
            number: The signal.
            kill_after: After how many seconds it is killed from outside; 0 for never.
        """
        request = {"arguments": arguments, "at": at, "signal": number, "log": str(self._log)}
        request["kill_after"] = kill_after
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        start = time.monotonic()
        code = os.waitstatus_to_exitcode(int(self._process.stdout.readline()))
        seconds = time.monotonic() - start
        said = self._log.read_text()
        if code < 0:
            return Done(code, seconds, said)
        *lines, last = said.splitlines()
        return Done(code, seconds, "\n".join(lines), int(json.loads(last)["events"]))

    def finish(self, *arguments: str) -> Done:
        """Run a command line to its good end."""
        done = self.run(*arguments)
        assert done.code == 0, done.said
        return done

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
        done = self.zygote.finish(*self.command(step, place))
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
        assert_clean(place)


def assert_clean(place: Path) -> None:
    """Nothing lies about but an output and an empty home."""
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
