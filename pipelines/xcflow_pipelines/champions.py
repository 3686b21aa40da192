"""The commands that move the champion or show the registry."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import typer

from xcflow.config import TrackingConfig
from xcflow.errors import MissingExtraError
from xcflow.home import Home
from xcflow.interruption import Interruption, held_back
from xcflow.registry.moves import Move, MoveLog, moves
from xcflow.registry.promotion import Registry
from xcflow.registry.store import public_uri
from xcflow.registry.tracking import Tracker, tracking_uri
from xcflow_pipelines.records import find_judged
from xcflow_pipelines.shell import FAILED, OK, BadUsageError

# As in mlflow/server.env, which an installed package does not carry along.
SERVER = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def promote_run(
    home: Home, tracking: TrackingConfig, name: str, reason: str, override: bool
) -> Move | None:
    """Make the model of a run the champion; None where it is already.

    Raises:
        GateError: The verdict does not allow it and there is no override.
    """
    from xcflow.evaluation.verdict import Judgement

    run = find_judged(home, tracking, name)
    judgement = Judgement.open_with_evaluation(run.verdict, run.evaluation)
    registry = Registry(Tracker.at(tracking, home), tracking.model_name, home)
    return registry.promote(
        run.bundle,
        judgement,
        run=run.mlflow_run or None,
        reason=reason,
        override=override,
    )


def roll_back(home: Home, tracking: TrackingConfig, to: str, reason: str) -> Move:
    """Make an earlier version the champion again.

    Raises:
        TrackingError: There is nothing to go back to.
    """
    registry = Registry(Tracker.at(tracking, home), tracking.model_name, home)
    return registry.rollback(to or None, reason)


def moves_of(home: Home, tracking: TrackingConfig) -> list[Move]:
    """All moves of the champion, oldest first.

    From the home's record, which is at hand at once; from the store where the record is lost, or
    where other machines move the champion too.
    """
    own = tracking_uri(tracking, home) == f"sqlite:///{home.database}"
    if own and (home.promotions.exists() or not home.database.exists()):
        return moves(home)
    return MoveLog(Tracker.at(tracking, home), tracking.model_name).read()


def serve_mlflow(home: Home, tracking: TrackingConfig, host: str, port: int) -> int:
    """Serve MLflow's pages on the store of a home until interrupted."""
    from importlib.util import find_spec

    if find_spec("mlflow.server") is None:
        raise MissingExtraError("mlflow", "tracking")
    uri = tracking_uri(tracking, home)
    if uri.startswith(("http://", "https://")):
        typer.echo(f"this home records to {public_uri(uri)}: open that address")
        return OK
    _require_free(host, port)
    home.root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--default-artifact-root", str(home.artifacts)]
    command += ["--host", host, "--port", str(port)]
    # It may hold a password, and commands are public.
    environment = os.environ | SERVER | {"MLFLOW_BACKEND_STORE_URI": uri}
    page = Tracker.at(tracking, home).runs_page()
    typer.echo(f"MLflow on {public_uri(uri)}: http://{host}:{port}{page} (Ctrl-C ends it)")
    process = None
    try:
        with held_back():  # or an interruption might leave a server that nobody knows of
            process = subprocess.Popen(command, env=environment, start_new_session=True)
        return OK if process.wait() == 0 else FAILED
    except Interruption:
        if process:  # with all that it has started by now
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        return OK


def _require_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            return
    except OSError as error:
        raise BadUsageError(
            f"{host}:{port}: {error.strerror}: choose another port with --port"
        ) from error
