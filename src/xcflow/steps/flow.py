"""What surrounds the steps in a pipeline: the run, the champion, the record of the results.

Trouble with the tracking store is reported and gone over wherever no decision hangs on it: a
trained model is worth more than its record.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xcflow
from xcflow.artifact import MANIFEST, read_manifest
from xcflow.config import Config, DataConfig
from xcflow.errors import ConfigError, StorageError, TrackingError
from xcflow.home import Home
from xcflow.library import library_digest
from xcflow.progress import log
from xcflow.registry import names
from xcflow.registry.service import connected, survived
from xcflow.registry.summary import read_json, settings_that_differ
from xcflow.steps import REFRESHING, RETRAINING, STEPS, webhook
from xcflow.steps.task import TIMES, Artifact, one_line_errors
from xcflow.storage import fetch, read_file

# Name of the output of ``record_run``.
SUMMARY = "summary"
# Steps whose outputs ``record_run`` gets, in the order in which it gets them.
RECORDED = tuple(name for name in RETRAINING if name != "promote_model")
# The same of ``record_refresh``.
RECORDED_OF_REFRESH = tuple(name for name in REFRESHING if name != "promote_model")
# Stands in the name of a run for the time of its start, which a schedule does not know beforehand.
START_TIME = "{time}"
# How the key of a run looks that Kubeflow Pipelines has started on a cluster.
_KUBEFLOW_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Sections that say where a run goes, not what it is.
_NOT_RECORDED = ("tracking", "resources", "cluster", "notify", "distributed")


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
        digest, listing = catalogue_digest, ""
        if not digest:
            digest, listing = _present_catalogue(catalogue_uri, settings.data)
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
                    **({names.CATALOGUE_LISTING: listing} if listing else {}),
                },
                dataset={"name": catalogue, "digest": digest, "source": catalogue_uri},
            )
        return name, digest, *(settings.to_json(step.sections) for step in STEPS.values())


def _present_catalogue(uri: str, config: DataConfig) -> tuple[str, str]:
    """The identity of what stands at a URI right now, and that of its listing.

    The latter by which a trigger knows a catalogue without a seal in a store; it is empty where
    there is none, or the catalogue was changed while it was read.
    """
    from xcflow.catalogue.outline import look_at
    from xcflow.catalogue.readers import catalogue_digest

    outline = look_at(uri, config)
    if outline.content:
        return outline.content, ""
    # The copy is that which validate_data takes, where both have one home.
    digest = catalogue_digest(fetch(uri, Home.at().downloads), config.format)
    unchanged = look_at(uri, config).digest == outline.digest
    return digest, outline.digest if unchanged else ""


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


def find_refreshed(config: str, catalogue: str) -> str:
    """The digest of the champion's bundle, which is to take in a catalogue."""
    with one_line_errors(), connected() as service:
        tracking = Config.from_json(config).tracking
        key = os.environ.get(names.RUN_KEY_VARIABLE, "")
        question = {"model": tracking.model_name, "catalogue": catalogue, "key": key}
        return str(service.decide("find_refreshed", tracking.patience_seconds, **question))


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


def record_run(
    run_name: str,
    config: str,
    outputs: Sequence[Artifact],
    summary: str,
    recorded: Sequence[str] = RECORDED,
) -> None:
    """Record the results of a run, and write a summary for whoever started it.

    Args:
        run_name: Name of the run.
        config: The whole configuration as JSON.
        outputs: The folders of the recorded steps.
        summary: The file to write.
        recorded: The steps.
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
            for name, artifact in zip(recorded, outputs, strict=True)
        ]
        run = ""
        lost = "results and model are not recorded, they stay in the pipeline's folder"
        with survived(lost), connected() as service:
            answer = service.record(
                "record_results",
                name=run_name,
                key=key,
                params=recorded_config(settings),
                steps=steps,
            )
            run = answer or ""
        facts = {
            "run": run_name,
            "mlflow_run": run,
            "folders": {step["name"]: step["folder"] for step in steps},
            "times": {step["name"]: step["times"] for step in steps},
        }
        text = json.dumps(facts, indent=2)
        Path(summary).write_text(text + "\n", encoding="utf-8")


def close_run(run_name: str, config: str, state: str, error: str) -> None:
    """Close the pipeline's run and say how it ended, here and to a webhook."""
    with one_line_errors():
        settings, key = Config.from_json(config), _run_key(run_name)
        url = os.environ.get(webhook.VARIABLE) or settings.notify.webhook
        succeeded, reason = state == "SUCCEEDED", ""
        tracked = TrackedRun(run_name.replace(START_TIME, key))
        with survived("the run's end goes unrecorded"), connected() as service:
            said = service.record("close_run", key=key, succeeded=succeeded, error=error or state)
            reason = said or ""
            if url:
                tracked = TrackedRun(**service.call("describe_run", key=key))
        reason = "" if succeeded else reason or error or state
        log(f"run {tracked.name} " + ("finished" if succeeded else f"failed: {reason}"))
        if url:
            webhook.post(url, _ending(settings, key, state, reason, tracked), settings.notify)


@dataclass(frozen=True)
class TrackedRun:
    """What the tracking store knows of a run.

    Attributes:
        name: Its name.
        verdict: The gate's verdict, empty where it did not come to that.
        refused: Why its model was not promoted in spite of the verdict, empty where it was.
        page: Where a person sees it, empty where nobody serves it.
    """

    name: str
    verdict: str = ""
    refused: str = ""
    page: str = ""


def _ending(config: Config, key: str, state: str, reason: str, run: TrackedRun) -> dict[str, Any]:
    """How a run ended, for programs and, as ``text``, for chats."""
    outcome = f"failed: {reason}"
    if state == "SUCCEEDED":
        promoted = run.verdict == names.PROMOTE and not run.refused
        outcome = "promoted" if promoted else f"finished, {run.verdict}"
        outcome += f", not promoted: {run.refused}" if run.refused else ""
    pages = config.cluster.ui or config.cluster.host
    links = {"mlflow": run.page}
    if pages and re.fullmatch(_KUBEFLOW_ID, key):
        links["kubeflow"] = f"{pages.rstrip('/')}/#/runs/details/{key}"
    return {
        "text": f"xcflow run {run.name}: {outcome}",
        "run": run.name,
        "run_key": key,
        "state": state,
        "verdict": run.verdict,
        "error": reason,
        "links": {name: page for name, page in links.items() if page},
    }


def method_name(config: Config) -> str:
    """The name that the literature has for what a configuration trains."""
    return "DEXA" if config.clustering.clusters else "NGAME"


def recorded_config(config: Config) -> dict[str, Any]:
    """The sections that say what a run is, without those that say where it goes."""
    return {k: v for k, v in config.to_dict().items() if k not in _NOT_RECORDED}


def _licence(catalogue_uri: str) -> dict[str, str]:
    """The tag with what the ``meta.json`` of a catalogue says of its licence, if anything."""
    where = f"{catalogue_uri.rstrip('/')}/meta.json"
    try:
        meta = json.loads(read_file(where) or b"{}")
        licence = str(meta.get("licence") or meta.get("license") or "")
    except (StorageError, ValueError, AttributeError) as error:
        log(f"{where}: tells no licence ({error})")
        return {}
    return {names.LICENCE: licence} if licence else {}


def _run_key(run_name: str) -> str:
    return os.environ.get(names.RUN_KEY_VARIABLE) or run_name
