"""The server of the command line: finds its model, checks its address, runs uvicorn."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from xcflow.config import TrackingConfig
from xcflow.errors import ArtifactError, MissingExtraError, XcflowError
from xcflow.home import Home
from xcflow.interruption import Interruption
from xcflow.progress import log
from xcflow.registry import names
from xcflow.storage import is_remote
from xcflow_pipelines.records import find_bundle
from xcflow_pipelines.shell import BadUsageError

if TYPE_CHECKING:
    import uvicorn

    from xcflow.serving.http.guards import App
    from xcflow.serving.http.models import Source

_REGISTERED = re.compile(r"models:/(?P<name>[^@/]+)(@(?P<alias>[^@/]+)|/(?P<version>\d+))")
# What a process that serves must know, where uvicorn starts several.
_TASK = "XCFLOW_SERVE"
# Holds what requests must bear; on a command line others could read it.
TOKEN = "XCFLOW_SERVE_TOKEN"
_GRACE_S = 30
# How a process ends that uvicorn shall not start again.
_NO_START = 3
# Longer than load balancers keep theirs, which then never ask just when one is closed.
_KEEP_ALIVE_S = 75
_BACKLOG = 2048


@dataclass(frozen=True)
class Task:
    """What is served, and to whom.

    Attributes:
        model: As the command line names it.
        home: The home folder.
        tracking: Where models are registered.
        local: Whether only this machine reaches the server.
        settings: Fields of ``ServerSettings``.
    """

    model: str
    home: str
    tracking: dict[str, Any]
    local: bool
    settings: dict[str, Any]


def serve(task: Task, host: str, port: int, workers: int, *, insecure: bool) -> None:
    """Serve until interrupted.

    Args:
        task: What is served.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        workers: Processes.
        insecure: Whether others may reach a server that asks for no token.

    Raises:
        BadUsageError: Others would reach a server that asks for no token, or the address cannot be
            listened on.
        ArtifactError: A model that was named for good cannot be loaded.
        MissingExtraError: The server's packages are not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("uvicorn", "serving") from error
    if not (task.local or task.settings.get("token") or insecure):
        raise BadUsageError(
            f"others could reach {host}: set {TOKEN} to what requests must bear, or say --insecure"
        )
    from xcflow.serving.http.connections import BoundedConnection

    name = task.model
    if is_remote(name):
        # Once: a process that starts again must not need the store, which may be away.
        found = find_bundle(Home.at(task.home), TrackingConfig(**task.tracking), name)
        task = replace(task, model=str(found))
    several = workers > 1
    if several:
        _source(task)  # what is plainly wrong is told once, not by each process
    with _listening(host, port) as listening:
        address = f"[{host}]" if ":" in host else host
        log(f"serving {name} on http://{address}:{listening.getsockname()[1]}")
        config = uvicorn.Config(
            f"{__name__}:application_of_environment" if several else application(task),
            factory=several,
            workers=workers,
            http=BoundedConnection,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=task.settings["most_connections"],
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
        if several:
            _run_several(config, task, listening)
        else:
            # It raises the signal again once all is answered: an end in good order.
            with contextlib.suppress(Interruption):
                uvicorn.Server(config).run([listening])
        log("stopped; what was accepted is answered")


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, so that who is refused hears it before a model is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or error
        raise BadUsageError(f"cannot listen on {host}, port {port}: {reason}") from error


def _run_several(config: uvicorn.Config, task: Task, listening: socket.socket) -> None:
    """Start processes, each with the model, and wait for their end."""
    from uvicorn.supervisors import Multiprocess

    from xcflow.serving.http.metrics import SHARED_FOLDER

    with tempfile.TemporaryDirectory(prefix="xcflow-metrics-") as numbers:
        os.environ |= {_TASK: json.dumps(asdict(task)), SHARED_FOLDER: numbers}
        processes = Multiprocess(config, sockets=[listening])
        processes.run()
    if any(each.exitcode == _NO_START for each in processes.processes):
        raise ArtifactError(f"{task.model}: a process could not start, as it said above")


def application_of_environment() -> App:
    """The application of one of several processes; where there is none, all of them end."""
    try:
        return application(Task(**json.loads(os.environ[_TASK])))
    except XcflowError as error:
        log(str(error))
        sys.exit(_NO_START)


def application(task: Task) -> App:
    """The application that serves a task.

    Raises:
        ArtifactError: A model that was named for good cannot be loaded.
    """
    from xcflow.serving.http.app import create_app
    from xcflow.serving.http.metrics import Metrics
    from xcflow.serving.http.models import Models
    from xcflow.serving.http.settings import ServerSettings

    settings, metrics = ServerSettings(**task.settings), Metrics()
    source, alias, before = _source(task)
    models = Models(source, settings.model_name, alias, before, metrics)
    if not before and not models.follow():
        raise ArtifactError(models.trouble)
    return create_app(models, settings, metrics, local=task.local)


def _source(task: Task) -> tuple[Source, str, str]:
    """Where the model comes from, its alias, and the alias of the one before."""
    from xcflow.registry.following import RegisteredModels
    from xcflow.serving.http.sources import Folder, Registered

    home, tracking = Home.at(task.home), TrackingConfig(**task.tracking)
    name = task.model
    if found := _REGISTERED.fullmatch(name):
        tracking = TrackingConfig(**{**task.tracking, "model_name": found["name"]})
        name = found["alias"] or found["version"]
    elif name not in (names.CHAMPION, names.PREVIOUS) and not name.isdigit():
        return Folder(find_bundle(home, tracking, name)), "", ""
    before = names.PREVIOUS if name == names.CHAMPION else ""
    return Registered(RegisteredModels(home, tracking)), name, before
