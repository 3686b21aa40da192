"""A sweep over two settings by the real command: shared steps, no champion, a second call."""

import json
import os
import subprocess
import sys

import pytest

from xcflow.home import Home
from xcflow_pipelines.records import find_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FILE = """
data = "{data}"
[set]
run.threads = 1
clustering.clusters = 32
module_one.batch_size = 128
module_one.epochs = 1
data.validation_fraction = 0.2
fusion.steps = 20
evaluation.latency_texts = 5
[grid]
"module_two.epochs" = [1, 2]
"""


def command(*arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    script = "from xcflow_pipelines.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env=environment | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_steps_are_shared_and_nothing_is_promoted(tmp_path, small_catalogue):
    home, file = Home.at(tmp_path / "home"), tmp_path / "classifier.toml"
    file.write_text(FILE.format(data=small_catalogue))
    sweep = ("sweep", str(file), "--home", str(home.root), "--json")
    tree = json.loads(command(*sweep).stdout)
    runs = [find_run(home, name) for group in tree["groups"] for name in group["runs"]]
    assert [group["values"]["module_two.epochs"] for group in tree["groups"]] == [1, 2]
    states = {task["name"]: task["state"] for task in runs[1].tasks}
    for name in ("validate_data", "cluster_labels", "train_encoder", "export_embeddings"):
        assert states[name] == "from cache"
    assert states["train_classifier"] == "done"
    for run in runs:
        verdict = json.loads((run.folder("gate_model") / "verdict.json").read_text())
        assert verdict["verdict"] != "PROMOTE"
    assert not home.promotions.exists()
    assert tree["from_cache"]["validate_data"] == tree["from_cache"]["train_encoder"] == 1
    assert "P@1 in points by module_two.epochs" in (home.sweeps / "classifier.html").read_text()
    again = command(*sweep)
    assert again.stderr.count("finished before: ") == 2
    assert json.loads(again.stdout) == tree
