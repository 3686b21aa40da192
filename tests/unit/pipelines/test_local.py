"""What surrounds Kubeflow's local runner; the runner itself is tested with the whole pipeline."""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from xcflow.artifact import writing
from xcflow.config import Config
from xcflow.errors import StorageError
from xcflow.home import Home
from xcflow_pipelines import local
from xcflow_pipelines.local import (
    forget_lost_outputs,
    new_run_name,
    run_label,
    temporary_files_in,
)
from xcflow_pipelines.watcher import LocalRun, Watcher

HOLD_LOCK = """
import sys
from xcflow.home import Home
from xcflow_pipelines.local import _locked
with _locked(Home.at(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def add_entry(cache, name, *uris, parameter="text"):
    outputs = {f"o{i}": {"uri": str(uri), "metadata": {}} for i, uri in enumerate(uris)}
    (cache / f"{name}.json").write_text(json.dumps({**outputs, "Output": parameter}))


def entries(cache):
    return sorted(path.stem for path in cache.iterdir())


def test_entries_of_lost_or_broken_outputs_are_forgotten(tmp_path, cache):
    for name in ("whole", "broken", "bare"):
        with writing(tmp_path / name, "dataset") as folder:
            (folder / "data.bin").write_bytes(b"data")
        add_entry(cache, name, tmp_path / name)
    (tmp_path / "report").write_text("<p>page</p>")
    add_entry(cache, "file", tmp_path / "report")
    (cache / "damaged.json").write_text("{")
    (tmp_path / "broken" / "data.bin").unlink()
    (tmp_path / "bare" / "manifest.json").unlink()
    forget_lost_outputs(cache)
    assert entries(cache) == ["file", "whole"]
    forget_lost_outputs(cache, everything=True)
    assert entries(cache) == []


def test_temporary_files_of_one_run_do_not_outlast_it(tmp_path):
    for name in ("first", "second"):
        scratch = tmp_path / name
        scratch.mkdir()
        with temporary_files_in(str(scratch)):
            assert Path(tempfile.mkdtemp()).parent == scratch
        shutil.rmtree(scratch)
    assert Path(tempfile.gettempdir()).is_dir()


def test_names_of_runs_do_not_repeat(tmp_path):
    home, found = Home.at(tmp_path), []
    for _ in range(3):
        found.append(new_run_name(home, "quick"))
        (home.runs / found[-1]).mkdir(parents=True)
    assert len(set(found)) == 3
    assert all(name.startswith("quick-") for name in found)


def test_a_run_is_named_by_what_differs_most_often():
    config = Config.from_dict({"clustering": {"clusters": 64}, "run": {"seed": 3}})
    assert run_label("small debian/é", "quick", config) == "small-debian-é-quick-K64-s3"
    assert run_label("books", "kids' books", config) == "books-kids-books-K64-s3"
    assert len(run_label("x" * 100, "quick", config)) == 32 + len("-quick-K64-s3")


def test_a_second_run_on_a_home_is_refused(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout.readline() == "locked\n"
        with (
            pytest.raises(StorageError, match=f"another run .process {first.pid}."),
            local._locked(Home.at(tmp_path)),
        ):
            pass
    finally:
        first.communicate()
    with local._locked(Home.at(tmp_path)):  # free again
        assert (tmp_path / "run.lock").read_text() == str(os.getpid())


def test_the_runners_log_becomes_states_and_files(tmp_path):
    told = []
    run = LocalRun("name", tmp_path)
    watcher = Watcher(run, lambda task, line: told.append((task.name, task.state, line)))
    log = [
        "Running pipeline: \x1b[95m'p'\x1b[0m",
        "Task validate-data cache hit (key=0123); skipping execution.",
        "Executing task \x1b[96m'train-encoder'\x1b[0m",
        "    [KFP Executor 2026-01-01 INFO]: Got executor_input:",
        "    {",
        '        "a": 1',
        "    }",
        "    epoch 1",
        "    xcflow error: file, line 3: bad news",
        "Task \x1b[96m'train-encoder'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m",
        "Skipping task export-embeddings: upstream task(s) ['train-encoder'] failed.",
    ]
    for line in log:
        if line.startswith("    "):
            watcher.see(line)
        else:
            record = logging.LogRecord("root", logging.INFO, "", 0, line, None, None)
            assert watcher.filter(record) is False
    assert told == [
        ("validate_data", "from cache", ""),
        ("train_encoder", "started", ""),
        ("train_encoder", "started", "epoch 1"),
        ("train_encoder", "failed", ""),
        ("export_embeddings", "skipped", ""),
    ]
    assert run.failed.error == "file, line 3: bad news"
    assert '"a": 1' in (tmp_path / "logs" / "train_encoder.log").read_text()
