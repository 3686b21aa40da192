"""The tracking store behind a process of its own.

Importing mlflow and opening its store take seconds, a server may hang, and a training step may be
killed for its memory. So a second process does the recording: it costs a step nothing, cannot fail
it, and sees its end in any case, since the connection between them closes.

On one machine all tasks of a run share a service that the runner starts; on a cluster each task
starts its own. Both speak JSON lines over a socket in a private folder.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from xcflow import errors
from xcflow.errors import TrackingError, XcflowError
from xcflow.progress import log
from xcflow.registry import names

if TYPE_CHECKING:
    from xcflow.registry.tracking import Tracker

# Environment: the socket of a running service.
SOCKET_VARIABLE = "XCFLOW_TRACKING_SOCKET"
# How long a step waits for its record, and a decision for its answer.
RECORD_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 600.0


class Connection:
    """One conversation with a service.

    Args:
        path: The service's socket.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except OSError as error:
            raise TrackingError(f"the tracking process is gone ({error.strerror})") from error
        self._stream = self._socket.makefile("rw", encoding="utf-8")

    def call(self, operation: str, timeout: float = ANSWER_TIMEOUT_S, **arguments: Any) -> Any:
        """Ask for an operation of ``xcflow.registry.operations`` and return its answer.

        Raises:
            XcflowError: What the operation raised.
            TrackingError: No answer within ``timeout`` seconds, or the service ended.
        """
        self.ask(operation, **arguments)
        return self.answer(timeout)

    def ask(self, operation: str, **arguments: Any) -> None:
        """Ask for an operation without waiting; each question has its answer, in their order."""
        try:
            self._stream.write(json.dumps({"operation": operation, "arguments": arguments}) + "\n")
            self._stream.flush()
        except OSError as error:
            raise TrackingError(f"the tracking process is gone ({error.strerror})") from error

    def answer(self, timeout: float = ANSWER_TIMEOUT_S) -> Any:
        """The answer to the next question; raises what ``call`` does."""
        self._socket.settimeout(timeout)
        try:
            line = self._stream.readline()
        except TimeoutError:
            raise TrackingError(f"no answer from the tracking store in {timeout:.0f} s") from None
        except OSError as error:
            raise TrackingError(f"the tracking process is gone ({error.strerror})") from error
        if not line:
            raise TrackingError("the tracking process is gone")
        reply = json.loads(line)
        if "error" in reply:
            raise getattr(errors, reply["kind"])(reply["error"])
        return reply["result"]

    def close(self) -> None:
        """End the conversation."""
        with suppress(OSError):
            self._stream.close()
        self._socket.close()


@contextmanager
def connected() -> Iterator[Connection]:
    """A conversation with the service of this run, or with a new one for this process alone."""
    with running() as path:
        connection = Connection(path)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def running() -> Iterator[str]:
    """The socket of a service, for this process and those it starts; one that runs is shared."""
    if path := os.environ.get(SOCKET_VARIABLE):
        yield path
        return
    # A socket's path must be short, so not below a folder that the user chose.
    with TemporaryDirectory(prefix="xcflow-", dir="/tmp") as folder:
        path = f"{folder}/socket"
        command = [sys.executable, "-m", "xcflow.registry.service", path]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise TrackingError("the tracking process did not start")
            os.environ[SOCKET_VARIABLE] = path
            yield path
        finally:
            os.environ.pop(SOCKET_VARIABLE, None)
            # It ends when its standard input closes, so also when this process is killed.
            with suppress(subprocess.TimeoutExpired, OSError):
                process.communicate(timeout=RECORD_TIMEOUT_S)
            process.kill()


@contextmanager
def recorded(step: str, params: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Record the block as a child of the pipeline's run, where there is one.

    Args:
        step: Name of the step.
        params: The configuration that it reads, nested.
        folder: The folder that it writes; its curves, figures and reports are recorded at the end.
    """
    key = os.environ.get(names.RUN_KEY_VARIABLE)
    if not key:
        yield
        return
    with connected() as service:
        service.ask("begin_step", key=key, step=step, params=params)
        end = {"status": names.KILLED, "folder": "", "error": "interrupted"}
        try:
            yield
            end = {"status": names.FINISHED, "folder": str(folder), "error": ""}
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            end = {"status": names.FAILED, "folder": "", "error": reason}
            raise
        finally:
            _record_end(service, end)


def _record_end(service: Connection, end: Mapping[str, str]) -> None:
    try:
        run = service.answer(RECORD_TIMEOUT_S)
        service.call("end_step", RECORD_TIMEOUT_S, run=run, **end)
    except TrackingError as error:
        log(f"{error}; the step goes unrecorded")


class _Handler(socketserver.StreamRequestHandler):
    """One conversation: operations one after the other; a step left open was killed."""

    server: _Server

    def handle(self) -> None:
        open_step = None
        for line in self.rfile:
            request = json.loads(line)
            reply = self.server.answer(request["operation"], request["arguments"])
            if request["operation"] == "begin_step":
                open_step = reply.get("result")
            elif request["operation"] == "end_step":
                open_step = None
            with suppress(OSError):  # the other side no longer waits
                self.wfile.write((json.dumps(reply) + "\n").encode())
        if open_step:
            end = {"status": names.KILLED, "folder": "", "error": "the process was killed"}
            self.server.answer("end_step", {"run": open_step, **end})


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = False

    def __init__(self, path: str) -> None:
        super().__init__(path, _Handler)
        self._lock = threading.Lock()
        self._tracker: Tracker | None = None

    def warm_up(self) -> None:
        """Open the store before the first request comes; trouble is reported to that one."""
        with self._lock, suppress(XcflowError):
            self._open_tracker()

    def _open_tracker(self) -> Tracker:
        if self._tracker is None:
            from xcflow.registry.tracking import Tracker

            self._tracker = Tracker.from_environment()
        return self._tracker

    def answer(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a request; operations take turns."""
        with self._lock:
            try:
                from xcflow.registry import operations

                act = getattr(operations, operation)
                return {"result": act(self._open_tracker(), **arguments)}
            except XcflowError as error:
                return {"error": str(error), "kind": type(error).__name__}
            except Exception as error:  # noqa: BLE001  # nothing may take the service down
                reason = f"unexpected {type(error).__name__} in {operation}: {error}"
                return {"error": reason, "kind": TrackingError.__name__}


def main() -> None:
    """Serve on the socket given as argument until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is recorded after Ctrl-C too
    with _Server(sys.argv[1]) as server:
        for background in (server.serve_forever, server.warm_up):
            threading.Thread(target=background, daemon=True).start()
        print("ready", flush=True)  # noqa: T201
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
