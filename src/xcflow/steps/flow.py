"""What surrounds the steps in a pipeline: the run, the champion, the record of the results.

Trouble with the tracking store is reported and gone over wherever no decision hangs on it: a
trained model is worth more than its record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xcflow
from xcflow.artifact import read_manifest
from xcflow.config import Config
from xcflow.errors import ConfigError, TrackingError
from xcflow.home import Home
from xcflow.library import library_digest
from xcflow.progress import log
from xcflow.registry import names
from xcflow.registry.promotion import Registry, fetch_bundle
from xcflow.registry.summary import METRICS, evaluation_metrics, read_json
from xcflow.registry.tracking import Tracker
from xcflow.steps import STEPS
from xcflow.steps.task import Artifact, one_line_errors

VERDICT = "verdict.json"
SUMMARY = "summary.json"
# Steps whose outputs ``record_run`` gets, in the order in which it gets them.
RECORDED = tuple(name for name in STEPS if name != "promote_model")


def open_run(
    run_name: str, catalogue_uri: str, catalogue_digest: str, expected_library: str, config: str
) -> tuple[str, ...]:
    """Open the pipeline's run and split the configuration; see the component ``configure``.

    Returns:
        The configuration sections of each step in the order of ``STEPS``, as JSON.

    Raises:
        SystemExit: The configuration is wrong, or the run was made for other code.
    """
    with one_line_errors():
        settings, present = Config.from_json(config), library_digest()
        if present != expected_library:
            raise ConfigError(
                f"the run was made for the library {expected_library[:12]}, but this is "
                f"{present[:12]} (version {xcflow.__version__}): start it again"
            )
        with _survived("the run goes unrecorded"):
            tracker = Tracker.at(settings.tracking, Home.at())
            run = _open(tracker, run_name, settings)
            tags = {
                "catalogue": Path(catalogue_uri).name,
                "catalogue_digest": catalogue_digest[:12],
                "library_digest": present[:12],
                "method": method_name(settings),
            }
            tracker.log_results(run, {}, tags)
            name = Path(catalogue_uri).name
            tracker.log_dataset(run, name, catalogue_digest, catalogue_uri, "training")
        return tuple(settings.to_json(step.sections) for step in STEPS.values())


def find_champion(config: str, bundle: str) -> str:
    """The digest of the bundle that a candidate is compared with, empty where there is none."""
    with one_line_errors():
        tracking, home = Config.from_json(config).tracking, Home.at()
        champion = Registry(Tracker.at(tracking, home), tracking.model_name, home).champion()
        if champion is None:
            return ""
        if champion.digest == read_manifest(Path(bundle), "bundle").digest:
            return champion.compared_with
        return champion.digest


def champion_input(digest: str) -> dict[str, str]:
    """The input ``champion`` of the evaluation: none, or the champion's folder."""
    if not digest:
        return {}
    with one_line_errors():
        return {"champion": str(fetch_bundle(Tracker.from_environment(), Home.at(), digest))}


def decision(verdict: str) -> str:
    """PROMOTE, HOLD or REJECT, from a verdict's folder."""
    return str(read_json(Path(verdict) / VERDICT)["verdict"])


def record_run(run_name: str, config: str, outputs: Sequence[Artifact], summary: str) -> None:
    """Record the results of a run, and write a summary for whoever started it.

    Args:
        run_name: Name of the run.
        config: The whole configuration as JSON.
        outputs: The folders of the steps in ``RECORDED``.
        summary: The file to write.
    """
    with one_line_errors():
        settings, key = Config.from_json(config), os.environ.get(names.RUN_KEY_VARIABLE, "")
        folders = {name: Path(o.path) for name, o in zip(RECORDED, outputs, strict=True)}
        cached = {
            name: o.metadata.get("written_by_run") != key
            for name, o in zip(RECORDED, outputs, strict=True)
        }
        result: dict[str, Any] = {
            "run": run_name,
            "mlflow_run": "",
            "steps": {n: {"folder": str(f), "from_cache": cached[n]} for n, f in folders.items()},
        }
        with _survived("results and model are not recorded, they stay in the pipeline's folder"):
            tracker = Tracker.at(settings.tracking, Home.at())
            run = result["mlflow_run"] = _open(tracker, run_name, settings)
            _record_cached_steps(tracker, run, settings, folders, cached)
            _record_results(tracker, run, folders)
        Path(summary).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def close_run(run_name: str, state: str, error: str) -> None:
    """Close the pipeline's run and say how it ended."""
    with one_line_errors(), _survived("the run's end goes unrecorded"):
        tracker = Tracker.from_environment()
        run = tracker.pipeline_run()
        if state == "SUCCEEDED":
            tracker.end(run, names.FINISHED)
            log(f"run {run_name} finished")
            return
        failed = [
            f"{name}: {child.data.tags.get(names.ERROR, 'failed')}"
            for name, child in tracker.steps(run).items()
            if child.info.status in (names.FAILED, names.KILLED)
        ]
        reason = "; ".join(failed) or error or state
        tracker.end(run, names.FAILED, reason)
        log(f"run {run_name} failed: {reason}")


def method_name(config: Config) -> str:
    """The name that the literature has for what a configuration trains."""
    return "DEXA" if config.clustering.clusters else "NGAME"


@contextmanager
def _survived(consequence: str) -> Iterator[None]:
    try:
        yield
    except TrackingError as error:
        log(f"{error}; {consequence}")


def _open(tracker: Tracker, run_name: str, config: Config) -> str:
    key = os.environ.get(names.RUN_KEY_VARIABLE) or run_name
    params = {k: v for k, v in config.to_dict().items() if k not in ("tracking", "resources")}
    return tracker.open_run(run_name, key, params, {})


def _record_cached_steps(
    tracker: Tracker,
    run: str,
    config: Config,
    folders: Mapping[str, Path],
    cached: Mapping[str, bool],
) -> None:
    """Give the steps that did not run a child too, so that each run is whole by itself."""
    done, tree = tracker.steps(run), config.to_dict()
    for name, folder in folders.items():
        if name not in done:
            params = {section: tree[section] for section in STEPS[name].sections}
            child = tracker.start_step(run, name, params, cached=cached[name])
            tracker.log_step(child, folder)
            tracker.end(child, names.FINISHED)


def _record_results(tracker: Tracker, run: str, folders: Mapping[str, Path]) -> None:
    bundle, evaluation = folders["build_index"], folders["evaluate_model"]
    digest = read_manifest(bundle, "bundle").digest
    model = tracker.find_model(digest)
    if model is None:
        model = tracker.log_model(run, bundle, {names.BUNDLE_DIGEST: digest})
    tags = {
        names.VERDICT: decision(str(folders["gate_model"])),
        names.BUNDLE_DIGEST: digest[:12],
    }
    metrics = evaluation_metrics(read_json(evaluation / METRICS))
    tracker.log_results(run, metrics, tags, model)
    for name in ("validate_data", "evaluate_model", "gate_model"):
        for report in sorted(folders[name].glob("*.html")):
            tracker.log_folder(run, report, f"reports/{name}")
    tracker.log_folder(run, evaluation, "evaluation")
