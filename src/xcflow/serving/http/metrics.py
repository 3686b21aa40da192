"""What a server tells Prometheus."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Where several processes serve, each writes its numbers here, and each tells those of all.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
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
        for labels in list(self.model._metrics):
            self.model.labels(*labels).set(0)
        self.model.labels(name, version, digest).set(1)

    def timed(self, phases: Mapping[str, float]) -> None:
        """Note where the time of a batch went."""
        for stage, seconds in phases.items():
            self.stages.labels(stage).observe(seconds)

    def text(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        registry = self._registry
        if os.environ.get(SHARED_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
