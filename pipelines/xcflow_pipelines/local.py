"""The pipeline on this machine, by Kubeflow's local runner."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from xcflow.artifact import read_manifest
from xcflow.config import Config
from xcflow.disk import remove_leftovers, writable, write_text
from xcflow.errors import ArtifactError, BusyError, TrackingError, XcflowError
from xcflow.home import VARIABLE as HOME_VARIABLE
from xcflow.home import Home
from xcflow.interruption import Interruption, interruptible
from xcflow.registry.names import RUN_KEY_VARIABLE
from xcflow.registry.service import connected, running
from xcflow.registry.store import URI_VARIABLE
from xcflow.registry.tracking import EXPERIMENT_VARIABLE, tracking_uri
from xcflow.steps.flow import SUMMARY
from xcflow_pipelines.watcher import Lines, Listener, LocalRun, Watcher

NAME_CHARS = 32  # of a catalogue's and a profile's name in the name of a run
# How long a task that was told to end may take.
GRACE_S = 30.0
_SCRATCH = "tmp-"
_UNENDED = "unended"


def run_locally(
    config: Config,
    *,
    name: str,
    key: str,
    catalogue: Path,
    catalogue_digest: str,
    library_digest: str,
    home: Home,
    listener: Listener,
    fresh: bool = False,
    refresh: bool = False,
) -> LocalRun:
    """Run a pipeline: retraining, or the refresh of the champion.

    Args:
        config: The configuration.
        name: Name of the run, new in this home.
        key: By what its tasks find it in the tracking store, new there.
        catalogue: Folder of the catalogue.
        catalogue_digest: Identity of its content.
        library_digest: Identity of the library's code.
        home: Gets everything that the run writes.
        listener: Called when a task's state changes, with an empty line, and for each line that a
            step prints.
        fresh: Whether to take nothing from the cache.
        refresh: Whether the champion is refreshed.

    Raises:
        BusyError: Another run uses this home.
        StorageError: The home cannot be written.
        Interruption: Somebody ended the run; its tasks have ended too.
    """
    run = LocalRun(name, home.runs / name)
    start = time.monotonic()
    with _locked(home), _prepared(home, run.folder) as scratch, temporary_files_in(scratch):
        forget_lost_outputs(home.cache, everything=fresh)
        environment = {
            HOME_VARIABLE: str(home.root),
            RUN_KEY_VARIABLE: key,
            URI_VARIABLE: tracking_uri(config.tracking, home),
            EXPERIMENT_VARIABLE: config.tracking.experiment,
            "TMPDIR": scratch,
        }
        arguments = {
            "run_name": name,
            "catalogue_uri": str(catalogue),
            "catalogue_digest": catalogue_digest,
            "library_digest": library_digest,
            "config": config.to_json(),
        }
        watcher = Watcher(run, listener)
        with (
            _environment(environment),
            running(),
            _recorded_end(home, run.folder, key),
            _passed_on_to_tasks(watcher),
            _quiet(watcher),
        ):
            _run_pipeline(arguments, home, run.folder, refresh=refresh)
        watcher.close()
    run.seconds = time.monotonic() - start
    run.summary = _summary(run.folder)
    return run


def new_run_name(home: Home, label: str) -> str:
    """A name that no run of this home has: the label, the local time, a number where needed.

    Args:
        home: The home folder.
        label: What the run is, as ``run_label`` says it.
    """
    first = f"{label}-{time.strftime('%m%d-%H%M')}"
    candidates = itertools.chain([first], (f"{first}-{n}" for n in itertools.count(2)))
    return next(name for name in candidates if not (home.runs / name).exists())


def run_label(catalogue: str, profile: str, config: Config) -> str:
    """What most often differs between runs: the catalogue, the profile, K and the seed."""
    clusters, seed = config.clustering.clusters, config.run.seed
    return f"{_short(catalogue)}-{_short(profile)}-K{clusters}-s{seed}"


def refresh_label(catalogue: str) -> str:
    """What differs between refreshes: the catalogue."""
    return f"{_short(catalogue)}-refresh"


def _short(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:NAME_CHARS].strip("-")


def forget_lost_outputs(cache: Path, *, everything: bool = False) -> None:
    """Remove cache entries whose outputs are gone or incomplete, so that their steps run again.

    Kubeflow's cache looks only whether the output's path exists.

    Args:
        cache: The local runner's cache.
        everything: Whether to remove the good ones too.
    """
    for entry in cache.glob("*.json"):
        if everything or not _is_whole(entry):
            entry.unlink(missing_ok=True)


def _is_whole(entry: Path) -> bool:
    """Whether a cache entry can be read and each folder that it names is complete."""
    try:
        outputs = json.loads(entry.read_text(encoding="utf-8")).values()
        for folder in [Path(o["uri"]) for o in outputs if isinstance(o, dict)]:
            if folder.is_dir():
                read_manifest(folder)
    except (ArtifactError, ValueError, KeyError, OSError):
        return False
    return True


def _run_pipeline(arguments: Mapping[str, str], home: Home, folder: Path, *, refresh: bool) -> None:
    from kfp import local

    from xcflow_pipelines.placement import on_this_machine
    from xcflow_pipelines.refreshing import refreshing_pipeline
    from xcflow_pipelines.retraining import retraining_pipeline

    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder),
        enable_caching=True,
        cache_root=str(home.cache),
        raise_on_error=False,
    )
    declared = refreshing_pipeline if refresh else retraining_pipeline
    declared(on_this_machine)(**arguments)


@contextlib.contextmanager
def _passed_on_to_tasks(watcher: Watcher) -> Iterator[None]:
    """Let an interruption end the task that runs, then the block; a second one all at once."""
    present = _descendants(os.getpid())  # the tracking process still has the end to record
    patience: list[threading.Timer] = []

    def handle(number: int, frame: FrameType | None) -> None:
        everything = _descendants(os.getpid())
        if watcher.interruption and watcher.interruption.number == number:
            _send(signal.SIGKILL, everything)
            raise watcher.interruption
        if watcher.interruption:  # a terminal and a scheduler may both tell
            return
        watcher.interruption = Interruption(number)
        if not (tasks := everything - present):
            raise watcher.interruption
        _send(signal.SIGTERM, tasks)
        patience.append(threading.Timer(GRACE_S, _send, (signal.SIGKILL, tasks)))
        patience[0].start()

    try:
        with interruptible(handle):
            yield
    finally:
        for timer in patience:
            timer.cancel()


@contextlib.contextmanager
def _recorded_end(home: Home, folder: Path, key: str) -> Iterator[None]:
    """Tell the tracking store where the block is interrupted, and of runs before that were killed.

    A file in the run's folder tells the next run that this one had no end.
    """
    for unended in home.runs.glob(f"*/{_UNENDED}"):
        _record_no_end(unended.read_text(encoding="utf-8"), "the run was killed")
        unended.unlink()
    write_text(folder / _UNENDED, key)
    try:
        yield
    except Interruption:
        _record_no_end(key, "interrupted")
        raise
    finally:
        (folder / _UNENDED).unlink()


def _record_no_end(key: str, reason: str) -> None:
    with contextlib.suppress(TrackingError), connected() as service:
        service.record("interrupt_run", key=key, reason=reason)


def _send(number: int, processes: set[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _descendants(pid: int) -> set[int]:
    """The processes below a process, where the system lists them (Linux)."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found |= {child} | _descendants(child)
    return found


@contextlib.contextmanager
def _quiet(watcher: Watcher) -> Iterator[None]:
    """Hand what the runner logs and prints to the watcher."""
    root, interpreter = logging.getLogger(), sys.executable
    level = root.level
    root.addFilter(watcher)
    root.setLevel(logging.INFO)
    # The runner puts the interpreter's path into a shell command without quoting it.
    sys.executable = shlex.quote(interpreter)
    try:
        with contextlib.redirect_stdout(Lines(watcher.see)), warnings.catch_warnings():
            # It warns of each setting that only a cluster heeds.
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.executable = interpreter
        root.removeFilter(watcher)
        root.setLevel(level)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def temporary_files_in(folder: str) -> Iterator[None]:
    """Keep this process's temporary files in a folder.

    Python asks the environment for their place only once, so without this a second run in the same
    process would look for the folder of the first, which is gone.
    """
    before = tempfile.tempdir
    tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[None]:
    """Keep other runs away: two at once would fight over checkpoints and memory."""
    path = home.root / "run.lock"
    with writable(home.root):
        home.root.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            raise BusyError(
                f"{home.root}: is used by another run (process {stream.read() or 'unknown'}): "
                "wait for its end, or choose another --home"
            ) from None
        with writable(path):
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
        yield


@contextlib.contextmanager
def _prepared(home: Home, folder: Path) -> Iterator[str]:
    """Make the run's folder, and a place for temporary files; remove what killed runs left."""
    with writable(folder):
        remove_leftovers(home.root, f"{_SCRATCH}*")
        remove_leftovers(home.runs, "*/*/*/.*.partial-*")
        folder.mkdir(parents=True)
        home.cache.mkdir(exist_ok=True)
        scratch = TemporaryDirectory(prefix=_SCRATCH, dir=home.root, ignore_cleanup_errors=True)
    with scratch as name:
        yield name


def _summary(folder: Path) -> dict[str, Any]:
    found = list(folder.glob(f"*/record-r*/{SUMMARY}"))  # record_run or record_refresh
    if not found:
        return {}
    try:
        summary: dict[str, Any] = json.loads(found[0].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise XcflowError(f"{found[0]}: cannot be read: {error}") from error
    return summary
