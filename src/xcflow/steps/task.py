"""A step as one task of a pipeline: what the bodies of the components call."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from xcflow.artifact import Manifest, read_manifest
from xcflow.config import Config
from xcflow.errors import DataError, XcflowError
from xcflow.home import Home
from xcflow.interruption import Interruption, interruptible
from xcflow.phases import phase, timed
from xcflow.registry.names import RUN_KEY_VARIABLE
from xcflow.registry.service import recorded
from xcflow.registry.summary import step_metrics
from xcflow.steps import STEPS, fetch_inputs, run_step

# Stands before an error's line in a task's log, so that whoever started the pipeline finds it.
ERROR_MARK = "xcflow error: "
REPORT = "report.html"
# Among the facts of an output, not in its folder, whose bytes are the same whenever it is made; so
# the times stay with an output that is taken from the cache.
TIMES = "times"
# As ``run_step``: step, configuration, inputs, output.
Work = Callable[[str, Config, Mapping[str, Path], Path], None]


class Artifact(Protocol):
    """The part of Kubeflow's artifacts that is used here."""

    path: str
    metadata: dict[str, Any]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line where a user's error would print a traceback."""
    # Kubeflow's executor shows the INFO lines of every library.
    logging.getLogger().setLevel(logging.WARNING)
    try:
        with interruptible():
            yield
    except XcflowError as error:
        print(ERROR_MARK + " ".join(str(error).split()), file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(1) from None
    except Interruption as interruption:
        print(f"{ERROR_MARK}{interruption}", file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(interruption.exit_code) from None


def run_task(
    name: str,
    config: str,
    inputs: Mapping[str, str],
    output: Artifact,
    report: Artifact | None = None,
    metrics: Artifact | None = None,
    expected: Mapping[str, str] | None = None,
    work: Work = run_step,
) -> None:
    """Run a step, record it as a child of the pipeline's run, and describe what it wrote.

    Args:
        name: The step.
        config: Its sections of the configuration as JSON.
        inputs: Name of an input -> folder, or URI of one.
        output: Where the step's folder is to stand; gets facts from its manifest.
        report: Gets the step's HTML report.
        metrics: Gets the step's main figures.
        expected: Name of an input -> the digest that it must have had when it was read.
        work: What runs the step.
    """
    with one_line_errors():
        settings, folder = Config.from_json(config), Path(output.path)
        with recorded(name, json.loads(config), folder), timed() as clock:
            with phase("inputs"):
                local = fetch_inputs(inputs, Home.at().downloads)
            work(name, settings, local, folder)
            times = clock.times()
        manifest = read_manifest(folder, STEPS[name].produces)
        _require_inputs(manifest, inputs, expected or {})
        output.metadata.update(_facts(manifest), **{TIMES: times.to_dict()})
        if report is not None:
            shutil.copyfile(folder / REPORT, report.path)
        if metrics is not None:
            figures = step_metrics(folder)
            metrics.metadata.update(figures)
            # Kubeflow's local cache takes an artifact without a file for a lost one.
            Path(metrics.path).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _require_inputs(
    manifest: Manifest, inputs: Mapping[str, str], expected: Mapping[str, str]
) -> None:
    for key, digest in expected.items():
        if manifest.inputs.get(key) != digest:
            raise DataError("was changed after the run was started: start it again", inputs[key])


def _facts(manifest: Manifest) -> dict[str, Any]:
    """What Kubeflow's pages show of a folder, and by which run it was written."""
    plain = {k: v for k, v in manifest.meta.items() if isinstance(v, str | int | float | bool)}
    run = os.environ.get(RUN_KEY_VARIABLE, "")
    return plain | {"digest": manifest.digest, "written_by_run": run}
