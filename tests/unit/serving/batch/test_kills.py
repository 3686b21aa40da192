"""Jobs in processes that are killed, at any moment, end with the bytes of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from xcflow.serving.batch.rows_in import ENDINGS

# Each job is forked from one process that has imported everything. It counts what it does to files
# and folders, and kills itself right before the n-th of these.
ZYGOTE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from conftest import LengthPredictor
from xcflow.home import Home
from xcflow.serving.batch import job, rows_in

rows_in.BATCH_TEXTS, job.BATCHES_IN_PART = 2, 3

def kill_at(number):
    count = 0
    def see(event, arguments):
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(see)

for line in sys.stdin:
    source, target, number = line.split()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            kill_at(int(number))
            job.BatchJob(source, target, 5).run(LengthPredictor(), Home.at("nowhere"))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a job that is killed before its n-th write (0: never); returns whether it was."""
    process = subprocess.Popen(
        [sys.executable, "-c", ZYGOTE, str(Path(__file__).parent)],
        cwd=tmp_path_factory.mktemp("zygote"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
    )

    def run(source, target, at=0):
        process.stdin.write(f"{source} {target} {at}\n")
        process.stdin.flush()
        code = int(process.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        return code != 0

    yield run
    process.communicate()


@pytest.fixture
def source(tmp_path, write_rows):
    return write_rows(tmp_path / "in.jsonl", [(f"d{i}", "x" * (i % 17)) for i in range(16)])


def assert_as_undisturbed(run, source, target):
    undisturbed = target.parent / f"undisturbed{''.join(target.suffixes)}"
    if not undisturbed.exists():
        assert not run(source, undisturbed)
    assert target.read_bytes() == undisturbed.read_bytes()
    left = {path.name for path in target.parent.iterdir()}
    assert left == {source.name, target.name, undisturbed.name}


def test_a_kill_between_any_two_writes(run, source, tmp_path):
    target = tmp_path / "out.jsonl.gz"
    for number in count(1):
        killed = run(source, target, number)
        if killed:
            assert not run(source, target)
        assert_as_undisturbed(run, source, target)
        target.unlink()
        if not killed:
            break
    assert number > 20


@pytest.mark.parametrize("ending", ENDINGS)
def test_kills_again_and_again(run, source, tmp_path, ending):
    target, draw = tmp_path / f"out{ending}", random.Random(ending)
    kills = [run(source, target, draw.randint(8, 20)) for _ in range(4)]
    assert any(kills)
    assert not run(source, target)
    assert_as_undisturbed(run, source, target)
