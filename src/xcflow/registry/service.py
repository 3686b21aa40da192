"""The tracking store behind a process of its own.

Importing mlflow and opening its store take seconds, a server may hang, and a training step may be
killed for its memory. So a second process does the recording: it costs a step nothing, cannot fail
it, and sees its end in any case, since the connection between them closes.

What is only to be recorded goes to an outbox on disk first and is answered at once; it is sent in
the background, again and again while the store is away. What needs an answer (the champion, a
promotion) is asked for after all that was recorded before.

On one machine all tasks of a run share a service that the runner starts; on a cluster each task
starts its own. Both speak JSON lines over a socket in a private folder.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from xcflow import errors
from xcflow.errors import StorageError, StoreAwayError, TrackingError, XcflowError
from xcflow.home import Home
from xcflow.progress import log
from xcflow.registry import names
from xcflow.registry.outbox import Outbox, Record

if TYPE_CHECKING:
    from xcflow.registry.tracking import Tracker

# Environment: the socket of a running service.
SOCKET_VARIABLE = "XCFLOW_TRACKING_SOCKET"
# How long a step waits for its record, and a decision for its answer.
RECORD_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 600.0
# How long a decision asks a store again that is away, and the pause between two attempts.
PATIENCE_S = 120.0
RETRY_S = 5.0
# Operations that need no answer, and those whose answer is worth waiting for where there is one.
RECORDING = ("open_run", "begin_step", "end_step", "interrupt_run")
REPORTING = ("record_results", "close_run")


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

    def decide(self, operation: str, patience: float = PATIENCE_S, **arguments: Any) -> Any:
        """``call``, again and again for ``patience`` seconds while the store is away.

        Raises:
            XcflowError: What the operation raised.
            StoreAwayError: The store was away all the time.
        """
        end = time.monotonic() + patience
        told = False
        while True:
            try:
                return self.call(operation, **arguments)
            except StoreAwayError as error:
                if (left := end - time.monotonic()) <= 0:
                    raise
                if not told:
                    log(f"{error}; asking again for {left:.0f} s")
                told = True
                time.sleep(min(RETRY_S, left))

    def record(self, operation: str, **arguments: Any) -> Any:
        """Have something recorded, now or as soon as the store is there.

        Returns:
            The answer of a reporting operation; None where it is not there yet.

        Raises:
            TrackingError: Neither store nor outbox can be written.
        """
        self.ask(operation, **arguments)
        reply = self._reply(ANSWER_TIMEOUT_S)
        if away := reply.get("away"):
            log(f"{away}; what is to be recorded waits and is sent later")
        return reply["result"]

    def ask(self, operation: str, **arguments: Any) -> None:
        """Ask for an operation without waiting; each question has its answer, in their order."""
        try:
            self._stream.write(json.dumps({"operation": operation, "arguments": arguments}) + "\n")
            self._stream.flush()
        except OSError as error:
            raise TrackingError(f"the tracking process is gone ({error.strerror})") from error

    def answer(self, timeout: float = ANSWER_TIMEOUT_S) -> Any:
        """The answer to the next question; raises what ``call`` does."""
        return self._reply(timeout)["result"]

    def _reply(self, timeout: float) -> dict[str, Any]:
        self._socket.settimeout(timeout)
        try:
            line = self._stream.readline()
        except TimeoutError:
            raise TrackingError(f"no answer from the tracking store in {timeout:.0f} s") from None
        except OSError as error:
            raise TrackingError(f"the tracking process is gone ({error.strerror})") from error
        if not line:
            raise TrackingError("the tracking process is gone")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise getattr(errors, reply["kind"])(reply["error"])
        return reply

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
    step_key = f"{key}/{step}/{secrets.token_hex(4)}"
    with connected() as service:
        with survived("the step goes unrecorded"):
            service.record("begin_step", key=key, step=step, step_key=step_key, params=params)
        end = _end(names.KILLED, error="interrupted")
        try:
            yield
            end = _end(names.FINISHED, folder=str(folder))
        except Exception as error:
            end = _end(names.FAILED, error=" ".join(str(error).split()) or type(error).__name__)
            raise
        finally:
            with survived("the step goes unrecorded"):
                service.record("end_step", key=key, step_key=step_key, **end)


@contextmanager
def survived(consequence: str) -> Iterator[None]:
    """Report trouble with the tracking store and go on; for where no decision hangs on it."""
    try:
        yield
    except TrackingError as error:
        log(f"{error}; {consequence}")


def _end(status: str, folder: str = "", error: str = "") -> dict[str, str]:
    return {"status": status, "folder": folder, "error": error}


class _Handler(socketserver.StreamRequestHandler):
    """One conversation: operations one after the other; a step left open was killed."""

    server: _Server

    def handle(self) -> None:
        open_step: dict[str, str] = {}
        for line in self.rfile:
            request = json.loads(line)
            operation, arguments = request["operation"], request["arguments"]
            if operation == "begin_step":
                open_step = {key: arguments[key] for key in ("key", "step_key")}
                self.server.peers.add(self._peer())
            elif operation == "end_step":
                open_step = {}
                self.server.peers.discard(self._peer())
            reply = self.server.answer(operation, arguments)
            with suppress(OSError):  # the other side no longer waits
                self.wfile.write((json.dumps(reply) + "\n").encode())
        if open_step:
            self.server.peers.discard(self._peer())
            end = _end(names.KILLED, error="the process was killed")
            self.server.answer("end_step", {**open_step, **end})

    def _peer(self) -> int:
        """The process at the other end."""
        size = struct.calcsize("3i")
        facts = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", facts)[0])


class _Server(socketserver.ThreadingUnixStreamServer):
    """Answers conversations and sends in the background what is to be recorded.

    Attributes:
        peers: Processes in the middle of a step.
    """

    daemon_threads = False

    def __init__(self, path: str) -> None:
        super().__init__(path, _Handler)
        self.peers: set[int] = set()
        self._lock = threading.Lock()
        self._tracker: Tracker | None = None
        self._outbox = Outbox(Home.at())
        self._something_waits = threading.Event()
        self._answers: dict[Path, Any] = {}
        self._trouble: XcflowError | None = None

    def keep_sending(self) -> None:
        """Open the store before the first request comes, then send what is put in the outbox."""
        while True:
            self.send()
            self._something_waits.clear()
            self._something_waits.wait(RETRY_S if self._outbox.waiting() else None)

    def send(self) -> None:
        """Send what waits for this process's store."""
        with self._lock:
            self._send()

    def _send(self) -> None:
        try:
            tracker = self._open_tracker()
            from xcflow.registry.sending import send, store_of_environment

            self._answers |= send(self._outbox, store_of_environment(Home.at()), tracker)
            self._trouble = None
        except XcflowError as error:
            self._trouble = error
        except Exception as error:  # noqa: BLE001  # nothing may take the service down
            self._trouble = TrackingError(f"unexpected {type(error).__name__}: {error}")

    def _open_tracker(self) -> Tracker:
        if self._tracker is None:
            from xcflow.registry.tracking import Tracker

            self._tracker = Tracker.from_environment()
        return self._tracker

    def answer(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a request."""
        if operation in RECORDING + REPORTING:
            return self._record(operation, arguments)
        with self._lock:
            self._send()
            if isinstance(self._trouble, StoreAwayError):
                return _error(self._trouble)
            return self._act(operation, arguments)

    def _record(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        from xcflow.registry.sending import store_of_environment

        try:
            record = Record(store_of_environment(Home.at()), operation, arguments)
            place = self._outbox.put(record)
        except StorageError:  # no room for it, but the store may have some
            with self._lock:
                return self._act(operation, arguments)
        if operation in RECORDING:
            self._something_waits.set()
        else:
            self.send()
        away = str(self._trouble) if self._trouble else ""
        return {"result": self._answers.pop(place, None), "away": away}

    def _act(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            from xcflow.registry import operations

            act = getattr(operations, operation)
            return {"result": act(self._open_tracker(), **arguments)}
        except XcflowError as error:
            return _error(error)
        except Exception as error:  # noqa: BLE001
            kind = type(error).__name__
            return _error(TrackingError(f"unexpected {kind} in {operation}: {error}"))


def _error(error: XcflowError) -> dict[str, Any]:
    return {"error": str(error), "kind": type(error).__name__}


def main() -> None:
    """Serve on the socket given as argument until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is recorded after Ctrl-C too
    with _Server(sys.argv[1]) as server:
        for background in (server.serve_forever, server.keep_sending):
            threading.Thread(target=background, daemon=True).start()
        print("ready", flush=True)  # noqa: T201
        sys.stdin.read()
        server.shutdown()
        # Whoever started them is gone, and would not see their end. 0 is the number of one that is
        # not seen from here; to the system it means this whole group of processes.
        for process in server.peers - {0}:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
    server.send()


if __name__ == "__main__":
    main()
