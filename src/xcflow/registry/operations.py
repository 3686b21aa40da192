"""What a pipeline asks of the tracking store, with plain values in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xcflow.artifact import read_manifest
from xcflow.errors import AccessError, GateError, TrackingError
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.registry import bundles, names, promotion
from xcflow.registry.model_card import Origin, model_card
from xcflow.registry.notes import run_note
from xcflow.registry.summary import (
    METRICS,
    TRAINED,
    evaluation_metrics,
    model_of,
    phase_metrics,
    read_json,
    times_csv,
)
from xcflow.registry.tracking import Tracker


def open_run(
    tracker: Tracker,
    name: str,
    key: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    dataset: Mapping[str, str],
) -> str:
    """Make or join the run of a pipeline; returns its id.

    Args:
        tracker: The tracking store.
        name: What the run is called where it is made here.
        key: By what the pipeline's tasks find it.
        params: The configuration, nested.
        tags: Facts to search runs by.
        dataset: ``name``, ``digest`` and ``source`` of the catalogue.
    """
    run = tracker.open_run(name, key, params, tags)
    tracker.log_dataset(run, dataset["name"], dataset["digest"], dataset["source"], "training")
    return run


def begin_step(
    tracker: Tracker, key: str, step: str, step_key: str, params: Mapping[str, Any]
) -> None:
    """Make the child run of a step that begins."""
    tracker.start_step(tracker.find_run(key), step, step_key, params)


def end_step(
    tracker: Tracker, key: str, step_key: str, status: str, folder: str, error: str
) -> None:
    """Close the child run of a step, with what stands in its folder, where it wrote one."""
    run = tracker.find_step(tracker.find_run(key), step_key)
    if folder:
        tracker.log_step(run, Path(folder))
    tracker.end(run, status, error)


def record_results(
    tracker: Tracker,
    name: str,
    key: str,
    params: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
) -> str:
    """Record what came out of a pipeline; returns the run's id.

    Steps that came from the cache get a child run too, so that each run is whole by itself.

    Args:
        tracker: The tracking store.
        name: What the run is called where it is made here.
        key: By what the pipeline's tasks find it.
        params: The configuration, nested.
        steps: ``name``, ``folder``, ``params``, ``from_cache`` and ``times`` of each step.
    """
    run = tracker.open_run(name, key, params, {})
    done = {n for n, child in tracker.steps(run).items() if child.info.status == names.FINISHED}
    for step in steps:
        if step["name"] not in done:
            key_of_step, cached = f"{key}/{step['name']}", bool(step["from_cache"])
            child = tracker.start_step(
                run, step["name"], key_of_step, step["params"], cached=cached
            )
            tracker.log_step(child, Path(step["folder"]))
            tracker.end(child, names.FINISHED)
    _record_outcome(tracker, run, params, {step["name"]: Path(step["folder"]) for step in steps})
    _record_times(tracker, run, steps)
    return run


def close_run(tracker: Tracker, key: str, succeeded: bool, error: str) -> str:
    """Close a pipeline's run; returns why it failed, empty where it did not."""
    run = tracker.find_run(key)
    if succeeded:
        tracker.end(run, names.FINISHED)
        return ""
    failed = [
        f"{name}: {child.data.tags.get(names.ERROR, 'failed')}"
        for name, child in tracker.steps(run).items()
        if child.info.status in (names.FAILED, names.KILLED)
    ]
    reason = "; ".join(failed) or error
    tracker.end(run, names.FAILED, reason)
    return reason


def describe_run(tracker: Tracker, key: str) -> dict[str, str]:
    """What there is to tell of a pipeline's run: see ``xcflow.steps.flow.TrackedRun``."""
    run = tracker.find_run(key)
    name, _ = tracker.description(run)
    tags = tracker.tags(run)
    return {
        "name": name,
        "verdict": tags.get(names.VERDICT, ""),
        "refused": tags.get(names.NOT_PROMOTED, ""),
        "page": tracker.run_page(run),
    }


def interrupt_run(tracker: Tracker, key: str, reason: str) -> None:
    """Close a pipeline's run that did not come to its end, with the steps that it was in."""
    run = tracker.find_run(key)
    for child in tracker.steps(run).values():
        if child.info.status == names.RUNNING:
            tracker.end(child.info.run_id, names.KILLED, reason)
    tracker.end(run, names.KILLED, reason)


def find_champion(tracker: Tracker, model: str, candidate: str) -> str:
    """The digest of the bundle that a candidate is to be compared with, empty where there is none.

    Where the candidate is the champion already, that is what it was compared with when it was
    promoted: the question, and so the cached answer, stays the same.
    """
    champion = promotion.Registry(tracker, model, Home.at()).champion()
    if champion is None:
        return ""
    return champion.compared_with if champion.digest == candidate else champion.digest


def find_refreshed(tracker: Tracker, model: str, catalogue: str, key: str) -> str:
    """The digest of the champion's bundle, which is to take in a catalogue.

    The run that asks is marked as a refresh of that champion.

    Raises:
        GateError: There is no champion, or it was made of this very catalogue.
    """
    champion = promotion.Registry(tracker, model, Home.at()).champion()
    if champion is None:
        raise GateError("there is no champion to refresh: train a model first (xcflow run)")
    with suppress(TrackingError):  # no decision hangs on it
        tags = {names.KIND: names.REFRESH, names.REFRESHED_FROM: f"version {champion.number}"}
        tracker.tag(tracker.find_run(key), tags)
    if champion.catalogue == catalogue:
        raise GateError(
            f"the champion (version {champion.number}) was made of this very catalogue: there is "
            "nothing to refresh"
        )
    return champion.digest


def find_accepted(tracker: Tracker, model: str, catalogue: str) -> str:
    """The digest of the bundle whose catalogue is the last accepted one beside a given one.

    Empty where there is none.
    """
    version = promotion.Registry(tracker, model, Home.at()).accepted(catalogue)
    return version.digest if version else ""


def fetch_bundle(tracker: Tracker, digest: str) -> str:
    """The local folder of a registered bundle."""
    return str(bundles.fetch_bundle(tracker, Home.at(), digest))


def promote(
    tracker: Tracker,
    model: str,
    bundle: str,
    verdict: str,
    evaluation: str,
    key: str,
) -> dict[str, str] | None:
    """Make a bundle the champion by the folders of its verdict and of what that is about.

    Returns:
        The move, None where the bundle is the champion already.

    Raises:
        AccessError: The user has no right to it. The run says so.
    """
    judgement = Judgement.open_with_evaluation(Path(verdict), Path(evaluation))
    run = tracker.find_run(key) if key else None
    registry = promotion.Registry(tracker, model, Home.at())
    try:
        move = registry.promote(Path(bundle), judgement, run=run)
    except AccessError as error:
        if run:
            tracker.tag(run, {names.NOT_PROMOTED: str(error)})
        raise
    return None if move is None else asdict(move)


def _record_times(tracker: Tracker, run: str, steps: Sequence[Mapping[str, Any]]) -> None:
    """Where the time went: each step's in its child, all in the run; of cached ones as it was."""
    timed = [step for step in steps if step["times"]]
    children = tracker.steps(run)
    for step in timed:
        figures = phase_metrics(step["name"], step["times"])
        tracker.log_figures(children[step["name"]].info.run_id, figures)
    seconds = {f"time/{step['name']}": step["times"]["seconds"] for step in timed}
    tracker.log_figures(run, seconds)
    tracker.log_text(run, times_csv(timed), names.TIMES_FILE)


def _record_outcome(
    tracker: Tracker, run: str, params: Mapping[str, Any], folders: Mapping[str, Path]
) -> None:
    bundle, evaluation = model_of(folders), folders["evaluate_model"]
    digest = read_manifest(bundle, bundles.BUNDLE).digest
    model = tracker.find_model(digest)
    if model is None:
        name, _ = tracker.description(run)
        model = tracker.log_model(run, name, bundle, {names.BUNDLE_DIGEST: digest})
    tracker.link_model(run, model)
    verdict = read_json(folders["gate_model"] / names.VERDICT_FILE)
    tags = {names.VERDICT: str(verdict["verdict"]), names.BUNDLE_DIGEST: digest[:12]}
    metrics = read_json(evaluation / METRICS)
    _record_datasets(tracker, run, folders["validate_data"], metrics)
    tracker.log_results(run, evaluation_metrics(metrics), tags, model, metrics["test_split"])
    tracker.describe(run, run_note(verdict, metrics))
    for name in ("check_drift", "evaluate_model", "gate_model"):
        for report in sorted(folders[name].glob("*.html")):
            tracker.log_folder(run, report, f"reports/{name}")
    for step in TRAINED.keys() & folders.keys():
        tracker.log_curves(run, step, folders[step])
    # Whoever promotes on another machine fetches these two and the model.
    tracker.log_folder(run, evaluation, names.EVALUATION_PLACE)
    tracker.log_folder(run, folders["gate_model"], names.VERDICT_PLACE)
    _record_card(tracker, run, model, params, folders)


def _record_datasets(tracker: Tracker, run: str, dataset: Path, metrics: Mapping[str, Any]) -> None:
    """What was validated and tested on, beside the catalogue that the run began with."""
    manifest, tags = read_manifest(dataset), tracker.tags(run)
    name, sizes = tags.get(names.CATALOGUE, "catalogue"), manifest.meta
    source = str(dataset)
    held_out = {"documents": sizes["validation_documents"], "labels": sizes["labels"]}
    tracker.log_dataset(run, f"{name} validation", manifest.digest, source, "validation", held_out)
    tracker.log_dataset(
        run, f"{name} test", metrics["test_split"], source, "test", metrics["counts"]
    )


def _record_card(
    tracker: Tracker,
    run: str,
    model: str,
    config: Mapping[str, Any],
    folders: Mapping[str, Path],
) -> None:
    tags, (name, _) = tracker.tags(run), tracker.description(run)
    origin = Origin(
        run=name,
        run_id=run,
        model=model,
        method=tags.get(names.METHOD, ""),
        catalogue=tags.get(names.CATALOGUE, ""),
        licence=tags.get(names.LICENCE, ""),
        config=config,
    )
    card = model_card(origin, folders)
    tracker.log_text(run, card, names.CARD_FILE)
    tracker.describe_model(model, card)
