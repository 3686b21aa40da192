"""The model that answers, and the thread that follows the registry.

A new model is loaded beside the old one, its files checked, asked a few texts, and only then put in
its place, in one assignment. Who holds the old one answers with it to the end; then it is freed.
Whatever goes wrong on the way is told, and the old model goes on answering.
"""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from xcflow.errors import ArtifactError, XcflowError
from xcflow.progress import log
from xcflow.serving.http.metrics import Metrics
from xcflow.serving.predictor import Predictor

_WARM_UP_TEXTS = ("warm up", "a somewhat longer text to be read before the first question")
_WARM_UP_K = 10


@dataclass(frozen=True)
class Wanted:
    """The model that should answer.

    Attributes:
        digest: Identity of the bundle.
        version: How people call it: the version's number, or a name.
    """

    digest: str
    version: str


class Source(Protocol):
    """Where models come from; both methods raise an ``XcflowError`` where that fails."""

    def wanted(self, alias: str) -> Wanted | None:
        """The model that an alias names, if any."""

    def fetch(self, wanted: Wanted) -> Path:
        """Its bundle, on this machine."""


@dataclass(frozen=True, eq=False)
class Served:
    """A model that is ready to answer.

    Attributes:
        predictor: The loaded bundle.
        name: The name under which it is addressed.
        version: Its version.
        digest: Identity of the bundle.
        since: Seconds since the epoch when it was loaded.
    """

    predictor: Predictor
    name: str
    version: str
    digest: str
    since: float = field(default_factory=time.time)


class Models:
    """Holds the model that answers and, when somebody asked for it, the one before.

    Args:
        source: Where models come from.
        name: The name under which the model is addressed.
        alias: Of the model that answers.
        before: Alias of the one before; empty where there is none.
        metrics: Gets what happens.
    """

    def __init__(
        self, source: Source, name: str, alias: str, before: str, metrics: Metrics
    ) -> None:
        self._source = source
        self._name = name
        self._alias = alias
        self._before = before
        self._metrics = metrics
        self._current: Served | None = None
        self._previous: Served | None = None
        self._refused: set[str] = set()
        self._trouble = ""
        self._lock = threading.Lock()  # loading is done by one thread at a time

    @property
    def current(self) -> Served | None:
        """The model that answers; None until the first one is ready."""
        return self._current

    @property
    def trouble(self) -> str:
        """What went wrong when the registry was last asked; empty if nothing did."""
        return self._trouble

    def follow(self) -> bool:
        """Ask the registry once, and take what it names; whether another model answers now."""
        with self._lock:
            try:
                wanted = self._source.wanted(self._alias)
                if wanted is None:
                    raise ArtifactError(f"the registry has no {self._alias}")
            except XcflowError as error:
                self._metrics.unreachable.inc()
                self._tell(str(error))
                return False
            if self._current and wanted.digest == self._current.digest:
                self._trouble = ""
                return False
            if wanted.digest in self._refused:
                return False
            served = self._load(wanted)
            if served is None:
                return False
            self._current, self._previous, self._trouble = served, None, ""
            self._metrics.serving(served.name, served.version, served.digest)
            self._metrics.swaps.inc()
            log(f"version {served.version} ({served.digest[:12]}) answers")
            gc.collect()  # what the old model held in cycles
            return True

    def has_previous(self) -> bool:
        """Whether there is a model before that could be asked."""
        if not self._before:
            return False
        try:
            return self._source.wanted(self._before) is not None
        except XcflowError:
            return False

    def previous(self) -> Served | None:
        """The model before, loaded when it is first asked for.

        Raises:
            XcflowError: It cannot be fetched or loaded.
        """
        if not self._before:
            return None
        with self._lock:
            wanted = self._source.wanted(self._before)
            if wanted is None:
                return None
            if self._previous is None or self._previous.digest != wanted.digest:
                self._previous = self._ready(wanted)
            return self._previous

    def _load(self, wanted: Wanted) -> Served | None:
        """The model, or None after telling why not."""
        try:
            return self._ready(wanted)
        except (ArtifactError, ValueError, KeyError, MemoryError) as error:
            # The bundle itself is at fault: it is not tried again until the alias moves.
            self._refused.add(wanted.digest)
            self._metrics.refused_models.inc()
            self._tell(f"version {wanted.version} is refused: {error or type(error).__name__}")
        except (XcflowError, OSError) as error:
            self._metrics.unreachable.inc()
            self._tell(f"version {wanted.version} cannot be fetched: {error}")
        return None

    def _ready(self, wanted: Wanted) -> Served:
        predictor = Predictor.load(self._source.fetch(wanted))
        if wanted.digest != predictor.manifest.digest:
            raise ArtifactError(f"holds the bundle {predictor.manifest.digest[:12]}")
        predictor.top_k(_WARM_UP_TEXTS, _WARM_UP_K)
        return Served(predictor, self._name, wanted.version, wanted.digest)

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:  # said once, not every two seconds
            log(f"{trouble}; " + ("the model before goes on" if self._current else "none answers"))
        self._trouble = trouble


class Follower(threading.Thread):
    """Asks the registry every so often.

    Args:
        models: What follows.
        seconds: Between two questions.
    """

    def __init__(self, models: Models, seconds: float) -> None:
        super().__init__(name="follower", daemon=True)
        self._models = models
        self._seconds = seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        """Ask until stopped."""
        while not self._stopped.wait(self._seconds):
            self._models.follow()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
