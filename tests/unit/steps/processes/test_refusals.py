"""Full and read-only disks, taken places, Ctrl-C: one clear line, and the next run goes on."""

import random
import shutil
import signal
import subprocess
from contextlib import ExitStack

import pytest

from xcflow.disk import claimed
from xcflow.steps import RETRAINING

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CHAIN = [name for name in RETRAINING if name != "promote_model"]
TRAINED = ("train_encoder", "train_classifier")
KIND = "bag_of_embeddings"
FULL = "no space left: free some room and type the same command again"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True, check=False)
    if not mounted or mounted.returncode:
        pytest.skip("disks can be mounted only by root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk, left):
    """Leave so many bytes of a disk free."""
    with (disk / "ballast").open("wb") as ballast:
        ballast.write(bytes(shutil.disk_usage(disk).free - left))


def last_line(done):
    assert "Traceback" not in done.said
    return done.said.splitlines()[-1]


@pytest.mark.parametrize("step", CHAIN)
def test_a_full_disk(lives, small_disk, step):
    life, place = lives(KIND), small_disk / "step"
    command = life.command(step, place)
    place.mkdir()
    fill(small_disk, 4096)
    done = life.zygote.run(*command)
    assert done.code == 1, done.said
    assert last_line(done) == f"xcflow: {place}/output: cannot be written: {FULL}"
    assert done.said.count("training goes on without a newer checkpoint") == (step in TRAINED)
    assert {path.name for path in place.iterdir()} <= {"home"}
    (small_disk / "ballast").unlink()
    life.zygote.finish(*command)
    life.check(step, place)


@pytest.mark.parametrize("step", TRAINED)
def test_training_is_worth_more_than_its_checkpoints(lives, small_disk, tmp_path, step):
    life = lives(KIND)
    fill(small_disk, 4096)
    done = life.zygote.finish(*life.command(step, tmp_path), "--home", str(small_disk / "home"))
    warnings = [line for line in done.said.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert warnings[0].endswith(f"{FULL}; training goes on without a newer checkpoint")
    assert life.content(step, tmp_path) == life.content(step, life.root / step)


@pytest.mark.parametrize("step", ["validate_data", "train_encoder", "gate_model"])
def test_a_read_only_disk(lives, small_disk, step):
    life = lives(KIND)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = life.zygote.run(*life.command(step, small_disk / "step"))
    assert done.code == 1
    reason = "the file system is read-only: choose another folder"
    assert last_line(done) == f"xcflow: {small_disk}/step/output: cannot be written: {reason}"


def test_a_file_where_a_folder_is_needed(lives, tmp_path):
    life = lives(KIND)
    command = life.command("gate_model", tmp_path)
    (tmp_path / "output").write_text("precious")
    done = life.zygote.run(*command)
    assert done.code == 1
    assert "a file stands where a folder is needed" in last_line(done)
    assert (tmp_path / "output").read_text() == "precious"
    (tmp_path / "output").unlink()
    (tmp_path / "home").write_text("precious")
    done = life.zygote.run(*life.command("train_encoder", tmp_path))
    assert "a file stands where a folder is needed" in done.said
    assert (tmp_path / "home").read_text() == "precious"


def test_an_output_is_written_by_one_at_a_time(lives, tmp_path):
    life = lives(KIND)
    command = life.command("gate_model", tmp_path)
    with claimed(tmp_path / "output"):
        done = life.zygote.run(*command)
    assert done.code == 1
    assert "output: is being written by another process: wait" in last_line(done)
    life.zygote.finish(*command)
    life.check("gate_model", tmp_path)


def test_the_same_is_trained_by_one_at_a_time(lives, tmp_path):
    life = lives(KIND)
    command = life.command("train_encoder", tmp_path)
    assert life.zygote.run(*command, at=life.events["train_encoder"] // 2).killed
    with ExitStack() as claims:
        for folder in (tmp_path / "home" / "checkpoints").glob("train_encoder-*"):
            claims.enter_context(claimed(folder))
        done = life.zygote.run(*command)
    assert done.code == 1
    assert "train_encoder: another process trains just this" in last_line(done)
    life.zygote.finish(*command)
    life.check("train_encoder", tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("step", CHAIN)
def test_an_interruption(lives, tmp_path, step, number, code):
    life, draw = lives(KIND), random.Random(f"{step} {code}")
    command, events = life.command(step, tmp_path), life.events[step]
    done = life.zygote.run(*command, at=draw.randint(2, events - 2), number=number)
    assert done.code == code, done.said
    assert last_line(done) == "xcflow: interrupted: type the same command again to go on"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    again = life.zygote.finish(*command)
    if step in TRAINED and "epoch 1:" in done.said:
        assert "going on from epoch" in again.said
    life.check(step, tmp_path)
