"""What a server tells Prometheus."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Where several processes serve, each writes its numbers here, and each tells those of all.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._serving: tuple[str, str, str] | None = None
        self.requests = Counter(
            "xcflow_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "xcflow_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "xcflow_stage_seconds",
            "Of a batch: waiting, encode, search, fusion.",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batches = Histogram(
            "xcflow_batch_texts",
            "Texts that shared a pass.",
            buckets=_TEXTS,
            registry=registry,
        )
        self.refused_requests = Counter(
            "xcflow_requests_sent_away", "Requests for which there was no room.", registry=registry
        )
        self.waiting = Gauge(
            "xcflow_texts_waiting",
            "Texts that wait for a pass.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.model = Gauge(
            "xcflow_model",
            "1 for the version that answers.",
            ["name", "version", "digest"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.swaps = Counter("xcflow_model_swaps", "Changes of the model.", registry=registry)
        self.refused_models = Counter(
            "xcflow_models_refused",
            "Versions that could not be loaded or verified.",
            registry=registry,
        )
        self.unreachable = Counter(
            "xcflow_registry_errors",
            "Questions that the registry left unanswered.",
            registry=registry,
        )

    def serving(self, name: str, version: str, digest: str) -> None:
        """Note which version answers from now on."""
        if self._serving:
            self.model.labels(*self._serving).set(0)
        self._serving = (name, version, digest)
        self.model.labels(*self._serving).set(1)

    def timed(self, phases: Mapping[str, float]) -> None:
        """Note where the time of a batch went."""
        for stage, seconds in phases.items():
            self.stages.labels(stage).observe(seconds)

    def text(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        registry = self._registry
        if folder := os.environ.get(SHARED_FOLDER):
            _forget_the_dead(Path(folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """Drop what processes said of the present that have ended since; their counts stay."""
    for file in folder.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
