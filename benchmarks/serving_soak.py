"""Mixed load on a server while its champion moves, breaks and its registry goes away.

    python benchmarks/serving_soak.py --minutes 30 --bundle BUNDLE --bundle OTHER_BUNDLE

Both bundles and copies of them that are broken are registered in a store of its own. Clients ask in
all ways at once and look at each answer: it must be, whole, that of the version that it names. At
the end stand the requests, those that failed, the moves and the server's memory.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle_copies import alter, mistake_labels, variant

from xcflow.artifact import read_manifest
from xcflow.config import GateConfig, TrackingConfig
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.registry.promotion import Registry
from xcflow.registry.tracking import Tracker
from xcflow.serving.predictor import Predictor
from xcflow.topk import NO_LABEL

COMMAND = (sys.executable, "-c", "from xcflow_pipelines.cli import main; main()")
PATIENCE_S = 120.0
K = 5


class Server:
    """A process of ``xcflow serve``."""

    def __init__(self, home: Path, log: Path, *arguments: str, **environment: str) -> None:
        command = [*COMMAND, "serve", "--home", str(home), "--port", "0", *arguments]
        self._log = log
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                command, stdout=stream, stderr=stream, env={**os.environ, **environment}
            )
        self.port = 0

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until(self, condition: Any, seconds: float = PATIENCE_S) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: "serving " in self.said() and self.said().partition("\n")[1])
        self.port = int(self.said().partition("\n")[0].rpartition(":")[2])
        self.wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return self.ask("GET", "/v2/health/ready")[0] == 200
        except OSError:
            return False

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Status, and what the answer says: JSON or text."""
        connection = self.connect()
        try:
            return exchange(connection, method, path, body)
        finally:
            connection.close()

    def version(self) -> str:
        return str(self.ask("GET", "/model")[1]["version"])

    def value(self, line: str) -> float:
        """A number of /metrics by the beginning of its line."""
        _, text = self.ask("GET", "/metrics")
        found = [x for x in text.splitlines() if x.startswith(line + " ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def running(*arguments: Any, **environment: str) -> Iterator[Server]:
    """A server that is ready, and ends with the block."""
    server = Server(*arguments, **environment)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
) -> tuple[int, Any]:
    connection.request(method, path, None if body is None else json.dumps(body))
    response = connection.getresponse()
    content = response.read()
    is_json = response.getheader("content-type", "").startswith("application/json")
    return response.status, json.loads(content) if is_json else content.decode()


def registered(registry: Registry, bundle: Path) -> str:
    """Make a bundle the champion; the number of its version."""
    digest = read_manifest(bundle).digest
    texts = dict.fromkeys(("champion", "evaluation", "dataset", "catalogue", "test_split"), "")
    judgement = Judgement(
        "PROMOTE", (), (), (), digest, documents=1, thresholds=GateConfig(), **texts
    )
    move = registry.promote(bundle, judgement, run=None, reason="a test", override=True)
    assert move
    return move.version


def register_broken(registry: Registry, bundle: Path, place: Path, count: int) -> list[str]:
    """Versions that cannot be served: files altered, or the labels of another model."""
    numbers = []
    for i in range(count):
        folder = variant(bundle, place / f"broken-{i}", broken=i)
        if i % 2:
            mistake_labels(folder)
        numbers.append(registered(registry, folder))
        if not i % 2:  # the copy that the server finds; what is registered is looked at first
            alter(registry.home.models / read_manifest(folder).digest)
    return numbers


@dataclass
class Load:
    """Clients that ask in all ways at once, and what became of it."""

    server: Server
    models: Mapping[str, Predictor]  # by the numbers of their versions
    texts: Sequence[str]
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._expected: dict[tuple[str, str], list[str]] = {}
        for version, predictor in self.models.items():
            for text in self.texts:
                rows = predictor.top_k([text], K).labels[0]
                self._expected[version, text] = predictor.label_ids.take(rows[rows != NO_LABEL])
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, clients: int, pause_s: float) -> None:
        self._threads = [
            threading.Thread(target=self._client, args=(seed, pause_s)) for seed in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _client(self, seed: int, pause_s: float) -> None:
        rng = random.Random(seed)
        connection = self.server.connect()
        while not self._stopped.is_set():
            start = time.perf_counter()
            try:
                failure = self._ask(connection, rng)
            except (OSError, http.client.HTTPException) as error:
                failure = f"{type(error).__name__}: {error}"
                connection.close()
            with self._lock:
                self.requests += 1
                self.seconds.append(time.perf_counter() - start)
                if failure:
                    self.failures.append(f"{time.strftime('%H:%M:%S')} {failure}")
            time.sleep(rng.random() * pause_s)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, rng: random.Random) -> str:
        """One request; what is wrong with its answer."""
        texts = rng.sample(self.texts, rng.choice([1, 1, 1, 2, min(8, len(self.texts))]))
        body: dict[str, Any] = {"texts": texts, "k": K}
        kind = rng.choice(["plain", "plain", "without", "explain", "protocol"])
        if kind == "protocol":
            tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
            asked = {"inputs": [tensor], "parameters": {"k": K}, "outputs": [{"name": "label_ids"}]}
            status, found = exchange(connection, "POST", "/v2/models/xcflow/infer", asked)
        else:
            if kind == "explain":
                body["explain"] = True
            if kind == "without":
                body["filters"] = {"without": ["no such label"]}
            status, found = exchange(connection, "POST", "/predict", body)
        if status != 200:
            return f"{kind}: {status} {found}"
        if kind == "protocol":
            version, data = found["model_version"], found["outputs"][0]["data"]
            answers = [data[i : i + K] for i in range(0, len(data), K)]
            answers = [[x for x in each if x] for each in answers]
        else:
            version = found["model"]["version"]
            answers = [[x["id"] for x in labels] for labels in found["labels"]]
        if version not in self.models:
            return f"{kind}: version {version} answers"
        for text, ids in zip(texts, answers, strict=True):
            if ids != self._expected[version, text]:
                return f"{kind}: {text!r} by version {version}: {ids}"
        return ""


@dataclass
class Report:
    """What came of it."""

    requests: int
    failures: list[str]
    moves: int
    refused: int
    outages: int
    memory_mb: tuple[float, float]
    slowest_ms: float
    median_ms: float


def soak(
    load: Load, registry: Registry, broken: Sequence[str], seconds: float, moves: int
) -> Report:
    """Load a server for some time while its champion moves.

    Args:
        load: Clients, and the server with its whole versions.
        registry: In a sqlite store, which is moved away now and then.
        broken: Versions that the server must refuse.
        seconds: How long.
        moves: Moves between whole versions; those to broken ones come on top.
    """
    server, whole = load.server, itertools.cycle(load.models)
    load.start(clients=4, pause_s=0.05)
    start, step = time.monotonic(), seconds / (moves + 1)
    outages = 0
    memory = 0.0
    try:
        for i in range(moves):
            time.sleep(max(0.0, start + i * step - time.monotonic()))
            if i % 4 == 1 and i // 4 < len(broken):
                refused = server.value("xcflow_models_refused_total")
                registry.rollback(broken[i // 4], "a test")
                server.wait_until(
                    lambda before=refused: server.value("xcflow_models_refused_total") > before
                )
            target = next(each for each in whole if each != server.version())
            registry.rollback(target, "a test")
            server.wait_until(lambda now=target: server.version() == now)
            if i % 5 == 3:
                outages += 1
                with moved_away(registry.home.database):
                    errors = server.value("xcflow_registry_errors_total")
                    server.wait_until(
                        lambda before=errors: server.value("xcflow_registry_errors_total") > before
                    )
            if i == moves // 4:
                memory = server.memory_mb()
        time.sleep(max(0.0, start + seconds - time.monotonic()))
    finally:
        load.stop()
    taken = sorted(load.seconds)
    return Report(
        load.requests,
        load.failures,
        moves,
        len(broken),
        outages,
        (round(memory, 1), round(server.memory_mb(), 1)),
        round(1000 * taken[-1], 1),
        round(1000 * taken[len(taken) // 2], 2),
    )


@contextmanager
def moved_away(file: Path) -> Iterator[None]:
    """A store that is not there for a while."""
    away = file.with_suffix(".away")
    file.rename(away)
    try:
        yield
    finally:
        away.rename(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--bundle", type=Path, action="append", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home.at(Path(folder) / "home")
        registry = Registry(Tracker.at(TrackingConfig(), home), "xcflow", home)
        broken = register_broken(registry, arguments.bundle[0], Path(folder), 5)
        models = {registered(registry, each): Predictor.load(each) for each in arguments.bundle}
        texts = next(iter(models.values())).examples[:20]
        with running(home.root, Path(folder) / "log") as server:
            load = Load(server, models, texts)
            report = soak(load, registry, broken, 60 * arguments.minutes, arguments.moves)
    print(json.dumps(report.__dict__, indent=2))


if __name__ == "__main__":
    main()
