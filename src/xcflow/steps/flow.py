"""What surrounds the steps in a pipeline: the run, the champion, the record of the results.

Trouble with the tracking store is reported and gone over wherever no decision hangs on it: a
trained model is worth more than its record.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xcflow
from xcflow.artifact import MANIFEST, read_manifest
from xcflow.config import Config
from xcflow.errors import ConfigError, TrackingError
from xcflow.home import Home
from xcflow.library import library_digest
from xcflow.progress import log
from xcflow.registry import names
from xcflow.registry.service import connected, survived
from xcflow.registry.summary import read_json, settings_that_differ
from xcflow.steps import STEPS
from xcflow.steps.task import TIMES, Artifact, one_line_errors
from xcflow.storage import fetch

# Name of the output of ``record_run``.
SUMMARY = "summary"
# Steps whose outputs ``record_run`` gets, in the order in which it gets them.
RECORDED = tuple(name for name in STEPS if name != "promote_model")
# Stands in the name of a run for the time of its start, which a schedule does not know beforehand.
START_TIME = "{time}"
# Sections that say where a run goes, not what it is.
_NOT_RECORDED = ("tracking", "resources", "cluster", "notify")


def open_run(
    run_name: str, catalogue_uri: str, catalogue_digest: str, expected_library: str, config: str
) -> tuple[str, ...]:
    """Open the pipeline's run and split the configuration; see the component ``configure``.

    Returns:
        The run's name, the identity of the catalogue's content, and the configuration sections of
        each step in the order of ``STEPS``, as JSON.

    Raises:
        SystemExit: The configuration or the catalogue is wrong, or the run was made for other code.
    """
    with one_line_errors():
        settings, present = Config.from_json(config), library_digest()
        if present != expected_library:
            raise ConfigError(
                f"the run was made for the library {expected_library[:12]}, but this is "
                f"{present[:12]} (version {xcflow.__version__}): start it again"
            )
        name = run_name.replace(START_TIME, time.strftime("%m%d-%H%M", time.gmtime()))
        digest = catalogue_digest or _present_digest(catalogue_uri, settings)
        catalogue = catalogue_uri.rstrip("/").rpartition("/")[2]
        with survived("the run goes unrecorded"), connected() as service:
            service.record(
                "open_run",
                name=name,
                key=_run_key(name),
                params=recorded_config(settings),
                tags={
                    names.CATALOGUE: catalogue,
                    "catalogue_digest": digest[:12],
                    "library_digest": present[:12],
                    names.METHOD: method_name(settings),
                    names.SETTINGS: settings_that_differ(recorded_config(settings)) or "defaults",
                    **_licence(catalogue_uri),
                },
                dataset={"name": catalogue, "digest": digest, "source": catalogue_uri},
            )
        return name, digest, *(settings.to_json(step.sections) for step in STEPS.values())


def _present_digest(catalogue_uri: str, config: Config) -> str:
    """The identity of what stands at a URI right now."""
    from xcflow.catalogue.readers import catalogue_digest

    with TemporaryDirectory() as scratch:
        return catalogue_digest(fetch(catalogue_uri, Path(scratch)), config.data.format)


def find_champion(config: str, bundle: str) -> str:
    """The digest of the bundle that a candidate is compared with, empty where there is none."""
    with one_line_errors(), connected() as service:
        tracking = Config.from_json(config).tracking
        candidate = read_manifest(Path(bundle), "bundle").digest
        question = {"model": tracking.model_name, "candidate": candidate}
        try:
            return str(service.decide("find_champion", tracking.patience_seconds, **question))
        except TrackingError as error:
            kept = "the trained model is kept, the same command goes on from here"
            raise TrackingError(f"{error}; {kept}") from error


def find_accepted(config: str, catalogue: str) -> str:
    """The digest of the bundle whose catalogue a catalogue is held against, empty for none.

    Trouble with the tracking store does not stop the run here: it has to answer before anything
    is promoted, and the same command then holds the catalogue against the accepted one.
    """
    answer, unknown = "", "the catalogue is not held against the last accepted one"
    with one_line_errors(), survived(unknown), connected() as service:
        model = Config.from_json(config).tracking.model_name
        answer = service.call("find_accepted", model=model, catalogue=catalogue)
    return str(answer)


def bundle_input(name: str, digest: str) -> dict[str, str]:
    """An optional input of a step: none, or the folder of a registered bundle.

    Args:
        name: Name of the input.
        digest: The bundle's digest, empty for none.
    """
    if not digest:
        return {}
    place = Home.at().models / digest
    if (place / MANIFEST).is_file():
        return {name: str(place)}
    with one_line_errors(), connected() as service:
        return {name: str(service.decide("fetch_bundle", digest=digest))}


def decision(verdict: str) -> str:
    """PROMOTE, HOLD or REJECT, from a verdict's folder."""
    return str(read_json(Path(verdict) / names.VERDICT_FILE)["verdict"])


def record_run(run_name: str, config: str, outputs: Sequence[Artifact], summary: str) -> None:
    """Record the results of a run, and write a summary for whoever started it.

    Args:
        run_name: Name of the run.
        config: The whole configuration as JSON.
        outputs: The folders of the steps in ``RECORDED``.
        summary: The file to write.
    """
    with one_line_errors():
        settings, key = Config.from_json(config), _run_key(run_name)
        tree = settings.to_dict()
        steps = [
            {
                "name": name,
                "folder": artifact.path,
                "params": {section: tree[section] for section in STEPS[name].sections},
                "from_cache": artifact.metadata.get("written_by_run") != key,
                "times": artifact.metadata.get(TIMES, {}),
            }
            for name, artifact in zip(RECORDED, outputs, strict=True)
        ]
        run = ""
        lost = "results and model are not recorded, they stay in the pipeline's folder"
        with survived(lost), connected() as service:
            recorded = service.record(
                "record_results",
                name=run_name,
                key=key,
                params=recorded_config(settings),
                steps=steps,
            )
            run = recorded or ""
        facts = {
            "run": run_name,
            "mlflow_run": run,
            "folders": {step["name"]: step["folder"] for step in steps},
            "times": {step["name"]: step["times"] for step in steps},
        }
        text = json.dumps(facts, indent=2)
        Path(summary).write_text(text + "\n", encoding="utf-8")


def close_run(run_name: str, config: str, state: str, error: str) -> None:
    """Close the pipeline's run and say how it ended."""
    succeeded = state == "SUCCEEDED"
    with one_line_errors(), survived("the run's end goes unrecorded"), connected() as service:
        key = _run_key(run_name)
        reason = service.record("close_run", key=key, succeeded=succeeded, error=error or state)
        log(f"run {run_name} " + ("finished" if succeeded else f"failed: {reason or state}"))


def method_name(config: Config) -> str:
    """The name that the literature has for what a configuration trains."""
    return "DEXA" if config.clustering.clusters else "NGAME"


def recorded_config(config: Config) -> dict[str, Any]:
    """The sections that say what a run is, without those that say where it goes."""
    return {k: v for k, v in config.to_dict().items() if k not in _NOT_RECORDED}


def _licence(catalogue_uri: str) -> dict[str, str]:
    """The tag with what the ``meta.json`` of a local catalogue says of its licence, if anything."""
    meta = read_json(Path(catalogue_uri) / "meta.json")
    licence = str(meta.get("licence") or meta.get("license") or "")
    return {names.LICENCE: licence} if licence else {}


def _run_key(run_name: str) -> str:
    return os.environ.get(names.RUN_KEY_VARIABLE) or run_name
