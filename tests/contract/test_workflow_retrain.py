"""The workflow for new catalogues: few rights, no secret shown, and a script that works."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / ".github" / "workflows" / "retrain-on-new-catalogue.yml"
OUTCOME = {
    "state": "submitted",
    "catalogue": "s3://bucket/catalogue",
    "digest": "d" * 64,
    "changes": ["labels: 1 added", "documents: 2 added"],
    "run": "run-1",
}
# A docker that writes down how it was called, and answers as the command would.
DOCKER = """#!/bin/bash
printf '%s\\n' "$@" > called
cp "$(cut -d: -f1 <<< "$(grep -m1 profile.toml: called)")" profile-seen
cat outcome-given
"""


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load(FILE.read_text())


@pytest.fixture(scope="module")
def steps(workflow):
    return workflow["jobs"]["trigger"]["steps"]


def test_its_job_reads_the_image_and_nothing_else(workflow, steps):
    assert workflow["jobs"]["trigger"]["permissions"] == {"packages": "read"}
    assert not any("uses" in step for step in steps)


def test_no_text_from_outside_becomes_code(steps):
    for step in steps:
        assert "${{" not in step.get("run", "")


def test_it_starts_by_hand_by_a_message_and_by_the_clock(workflow):
    triggers = workflow[True]  # YAML takes "on" for true
    assert set(triggers) == {"workflow_dispatch", "repository_dispatch", "schedule"}
    assert triggers["repository_dispatch"] == {"types": ["new-catalogue"]}


@pytest.fixture(autouse=True)
def _needs_jq():
    if shutil.which("jq") is None:
        pytest.skip("no jq, which the machines of the workflow have: apt-get install jq")


def run(step, folder, **variables):
    """Run a step as the runner does, with a docker that only says what it was asked."""
    (folder / "bin").mkdir()
    docker = folder / "bin" / "docker"
    docker.write_text(DOCKER)
    docker.chmod(docker.stat().st_mode | stat.S_IEXEC)
    (folder / "outcome-given").write_text(json.dumps(OUTCOME))
    environment = dict.fromkeys(step["env"], "") | variables
    files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={"PATH": path, **files, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return (folder / "called").read_text().splitlines()


def command_of(called):
    """What runs inside the image."""
    return called[called.index("xcflow") + 2 :]


@pytest.fixture
def trigger_step(steps):
    return next(step for step in steps if step.get("id") == "trigger")


def test_what_came_of_it_is_handed_on(trigger_step, tmp_path):
    variables = {"IMAGE": "image", "CATALOGUE": "s3://bucket/catalogue", "PROFILE": "[run]\nseed=3"}
    secrets = {"AWS_SECRET_ACCESS_KEY": "very secret", "XCFLOW_KFP_TOKEN": "secret too"}
    called = run(trigger_step, tmp_path, DRY_RUN="false", AGAIN="false", **variables, **secrets)
    expected = ["pipeline", "trigger", "--catalogue", "s3://bucket/catalogue"]
    assert command_of(called) == [*expected, "--profile", "/profile.toml", "--json"]
    assert not set(secrets.values()) & set(called)
    passed = {called[i + 1] for i, word in enumerate(called) if word == "--env"}
    assert passed == {"HOME=/tmp", "XCFLOW_HOME=/tmp/xcflow", *secrets}
    assert (tmp_path / "profile-seen").read_text() == "[run]\nseed=3\n"
    outputs = f"state=submitted\ndigest={'d' * 64}\nrun=run-1\n"
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == outputs
    summary = (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert summary == (
        "**submitted**: s3://bucket/catalogue\n\n- labels: 1 added\n- documents: 2 added\n"
    )


def test_its_options_are_those_of_the_command(trigger_step, tmp_path):
    from typer.main import get_command

    from xcflow_pipelines.cli import app

    called = run(trigger_step, tmp_path, IMAGE="image", CATALOGUE="c", DRY_RUN="true", AGAIN="true")
    *names, catalogue = command_of(called)[:4]
    assert (names, catalogue) == (["pipeline", "trigger", "--catalogue"], "c")
    command = get_command(app)
    for name in names[:2]:
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    asked = {word for word in command_of(called) if word.startswith("--")}
    assert asked == {"--catalogue", "--profile", "--json", "--dry-run", "--again"}
    assert asked <= known


def test_a_failure_of_the_command_fails_the_step(trigger_step, tmp_path):
    failing = dict(trigger_step, run=trigger_step["run"].replace("docker run", "false"))
    with pytest.raises(AssertionError):
        run(failing, tmp_path, IMAGE="image", CATALOGUE="c")
    assert not (tmp_path / "GITHUB_OUTPUT").exists()
