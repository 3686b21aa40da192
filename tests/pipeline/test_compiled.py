"""The very YAML that a cluster gets, run to its end: loaded from its file, its volumes as folders.

As a schedule starts it: without the digest of the catalogue, and with the time in the run's name.
"""

import json
import os
import re
import subprocess
import sys

import pytest
from hook import Hook

from xcflow.catalogue.readers import catalogue_digest
from xcflow.config import Config
from xcflow.home import Home
from xcflow.library import library_digest
from xcflow.registry import names
from xcflow.registry.tracking import Tracker
from xcflow_pipelines.cluster.compiling import compile_package
from xcflow_pipelines.cluster.placing import HOME, SCRATCH

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KEY = "3b0c7a52-9a43-4d5e-8f3e-0123456789ab"
SMALL = {
    "run": {"threads": 1},
    "clustering": {"clusters": 32},
    "data": {"validation_fraction": 0.2},
    "module_one": {"epochs": 2, "batch_size": 128},
    "module_two": {"epochs": 1},
    "gate": {"primary": "R@10", "secondary": []},
}
RUN = """
import json, sys
from kfp import components, local
path, root, arguments = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
components.load_component_from_file(path)(**json.loads(arguments))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory, small_catalogue):
    """A home, after the compiled pipeline has run in it; and what a webhook was told."""
    root = tmp_path_factory.mktemp("cluster")
    scratch, home = root / "scratch", Home.at(root / "home")
    scratch.mkdir()
    with Hook() as hook:
        config = Config.from_dict({**SMALL, "notify": {"webhook": hook.url}})
        text = compile_package(config).text
        for place, folder in ((HOME, home.root), (SCRATCH, scratch)):
            text, count = re.subn(rf"value: {place}$", f"value: {folder}", text, flags=re.M)
            assert count
        path = root / "pipeline.yaml"
        path.write_text(text)
        arguments = {
            "run_name": "nightly-{time}",
            "catalogue_uri": str(small_catalogue),
            "catalogue_digest": "",
            "library_digest": library_digest(),
            "config": config.to_json(),
        }
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        done = subprocess.run(
            [sys.executable, "-c", RUN, path, root / "outputs", json.dumps(arguments)],
            env=clean | {names.RUN_KEY_VARIABLE: KEY, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return home, hook


def test_the_run_is_tracked_under_its_own_name_with_its_verdict(ran):
    home, _ = ran
    tracker = Tracker.at(Config().tracking, home)
    run = tracker.client.get_run(tracker.find_run(KEY))
    assert re.fullmatch(r"nightly-\d{4}-\d{4}", run.info.run_name)
    assert run.info.status == names.FINISHED
    assert run.data.tags[names.VERDICT] in (names.PROMOTE, names.HOLD, names.REJECT)


def test_the_content_of_the_catalogue_was_looked_up(ran, small_catalogue):
    home, _ = ran
    tracker = Tracker.at(Config().tracking, home)
    tags = tracker.tags(tracker.find_run(KEY))
    assert tags["catalogue_digest"] == catalogue_digest(small_catalogue)[:12]


def test_the_last_task_told_the_webhook(ran):
    home, hook = ran
    tracker = Tracker.at(Config().tracking, home)
    run = tracker.client.get_run(tracker.find_run(KEY))
    ((_, _, told),) = hook.told
    assert told["run"] == run.info.run_name
    assert told["state"] == "SUCCEEDED"
    assert told["verdict"] == run.data.tags[names.VERDICT]
