"""The commands in the tables of docs/runbook.md, typed one after the other as they stand there."""

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xcflow.home import Home
from xcflow.storage import publish, publish_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.usefixtures("credentials")]

PAGE = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")
# So that runs are short; what a command says is typed after it, and holds.
PROFILE = """
[run]
threads = 1
[clustering]
clusters = 32
[module_one]
epochs = 2
batch_size = 128
[module_two]
epochs = 1
[data]
validation_fraction = 0.2
[tracking]
model_name = "runbook"
[gate]
primary = "R@10"
secondary = []
"""
SWEEP = 'profile = "{profile}"\ndata = "{data}"\n[grid]\n"run.seed" = [1, 2]\n'
XCFLOW = [sys.executable, "-m", "xcflow_pipelines"]
# Servers answer until they are interrupted, as soon as they say this.
SERVERS = {"xcflow serve": "answers", "xcflow mlflow": "http://127.0.0.1:"}
# What a test of its own runs.
ELSEWHERE = {
    "make images": "test_images.py",
    "kubectl apply -k deploy/overlays/dev": "test_dev_installation.py",
    "docker compose -f docker/compose.yaml up": "test_images.py",
    "xcflow user NAME --role reader": "test_tracking_server.py",
}
HELD = 3


def commands():
    tables = PAGE.partition("## Every day")[2].partition("### Upgrade")[0]
    for row in re.findall(r"^\| (?!To \|)[^|]+ \| (.+) \|$", tables, re.MULTILINE):
        typed = re.sub(r"\(.*\)|, with .*|, or .*", "", row)
        yield from re.findall(r"`([^`]+)`", typed)


@pytest.fixture
def place(tmp_path, small_catalogue, monkeypatch, kubeflow):
    """A working folder with all that the commands name, and the surroundings they need."""
    profile = tmp_path / "profile.toml"
    profile.write_text(PROFILE)
    texts = [{"id": str(i), "text": f"a web server {i}"} for i in range(20)]
    with gzip.open(tmp_path / "texts.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in texts)
    csv = tmp_path / "texts.csv"
    csv.write_text("id,text\n1,a web server\n")
    (tmp_path / "clusters.toml").write_text(SWEEP.format(profile=profile, data=small_catalogue))
    newer = shutil.copytree(small_catalogue, tmp_path / "newer")
    with (newer / "labels.jsonl").open("a") as stream:
        stream.write(json.dumps({"id": "new", "text": "a label of another kind"}) + "\n")
    publish(small_catalogue, "s3://bucket/catalogue")
    publish_file(csv, "s3://bucket/texts.csv")
    monkeypatch.setenv("XCFLOW_HOME", str(tmp_path / "home"))
    return tmp_path


def start(arguments, place):
    return subprocess.Popen(
        arguments,
        cwd=place,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def typed(command, place, runs, catalogue, kubeflow):
    """The arguments that stand for a command of the page."""
    started = next(iter(kubeflow.runs), "")
    run = started if "pipeline" in command else runs[-1:] and runs[-1]
    values = {"RUN RUN": f"{runs[0]} {runs[-1]}" if runs else "", "RUN": run or ""}
    folder = "newer" if "refresh" in command else str(catalogue)
    values |= {"FOLDER": shlex.quote(folder), "FILE": "profile.toml"}
    for name, value in values.items():
        command = re.sub(rf"\b{name}\b", lambda _, value=value: value, command)
    _, *arguments = shlex.split(command)
    if arguments[0] in ("run", "validate", "evaluate", "refresh"):
        if "--data" not in arguments:
            arguments += ["--data", str(catalogue)]
        arguments += ["--profile", "profile.toml"]
    if arguments[0] == "serve":
        arguments += ["--port", "0"]
    return [*XCFLOW, *arguments]


def runs_of(place):
    found = Home.at(place / "home").runs.glob("*/run.json")
    return [path.parent.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def test_each_command_works(place, small_catalogue, kubeflow):
    done = []
    for command in commands():
        if command in ELSEWHERE:
            continue
        arguments = typed(command, place, runs_of(place), small_catalogue, kubeflow)
        if "--watch" in arguments:  # for its end
            kubeflow.go_on(next(iter(kubeflow.runs)), "SUCCEEDED")
        process = start(arguments, place)
        print(command, flush=True)
        if expected := SERVERS.get(command):
            lines = []
            for line in process.stdout:
                lines.append(line)
                if expected in line:
                    break
            process.send_signal(signal.SIGTERM)
            output = "".join(lines) + process.communicate(timeout=60)[0]
            assert expected in output, f"{command}: {output}"
        else:
            output = process.communicate(timeout=600)[0]
            assert process.returncode in (0, HELD), f"{command}: {output}"
        assert "Traceback" not in output, f"{command}: {output}"
        done.append(command)
        time.sleep(0.01)  # runs are told apart by when they were written
    assert len(done) > 25
    assert len(kubeflow.runs) == 2  # submitted, triggered


def test_other_commands_have_a_test_of_their_own():
    for command, file in ELSEWHERE.items():
        assert command in set(commands())
        assert (Path(__file__).parent / file).is_file()
