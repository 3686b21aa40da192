"""The model that answers, and the thread that follows the registry.

A new model is loaded beside the old one, its files checked, asked a few texts, and only then put in
its place, in one assignment. Who holds the old one answers with it to the end; then it is freed.
Whatever goes wrong on the way is told, and the old model goes on answering.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from xcflow.errors import ArtifactError, StorageError, TrackingError, XcflowError
from xcflow.progress import log
from xcflow.serving.http.metrics import Metrics
from xcflow.serving.predictor import Predictor

_WARM_UP_TEXTS = ("warm up", "a somewhat longer text to be read before the first question")
_WARM_UP_K = 10
# What passes by itself: a registry or a store that is away, a full disk, other large processes. All
# else is the bundle's own fault, which is not tried again until the alias has moved.
_PASSING = (OSError, MemoryError, StorageError, TrackingError)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0


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

    def forget(self, but: Collection[str]) -> None:
        """Let go of the bundles on this machine that were fetched, but for some digests."""


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


@dataclass(frozen=True)
class _Failure:
    """A model that could not be had.

    Attributes:
        reason: Why, in words.
        times: How often in a row.
        again: When it is tried again, in seconds of ``time.monotonic``.
    """

    reason: str
    times: int
    again: float


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
        self._wanted_before: Wanted | None = None
        self._failures: dict[str, _Failure] = {}
        self._trouble = ""
        # The one before is loaded while somebody waits for it, which must not wait for a champion.
        self._following, self._loading_previous = threading.Lock(), threading.Lock()

    @property
    def current(self) -> Served | None:
        """The model that answers; None until the first one is ready."""
        return self._current

    @property
    def trouble(self) -> str:
        """What went wrong when the registry was last asked; empty if nothing did."""
        return self._trouble

    @property
    def has_previous(self) -> bool:
        """Whether the registry named a model before when it was last asked."""
        return self._wanted_before is not None

    def follow(self) -> bool:
        """Ask the registry once, and take what it names; whether another model answers now."""
        with self._following:
            try:
                wanted = self._source.wanted(self._alias)
                before = self._source.wanted(self._before) if self._before else None
            except XcflowError as error:
                self._metrics.unreachable.inc()
                self._tell(str(error))
                return False
            self._wanted_before = before
            if wanted is None:
                self._tell(f"the registry has no {self._alias}")
                return False
            # What failed is forgotten when no alias names it any more.
            named = {each.digest for each in (wanted, before) if each}
            for digest in set(self._failures) - named:
                self._failures.pop(digest, None)
            if self._current and wanted.digest == self._current.digest:
                self._trouble = ""
                return False
            try:
                served = self._obtain(wanted)
            except ArtifactError as error:
                self._tell(str(error))
                return False
            self._current, self._previous, self._trouble = served, None, ""
            self._metrics.serving(served.name, served.version, served.digest)
            self._metrics.swaps.inc()
            log(f"version {served.version} ({served.digest[:12]}) answers")
            gc.collect()  # what the old model held in cycles
            self._source.forget(named)
            return True

    def previous(self) -> Served | None:
        """The model before, loaded when it is first asked for; None where there is none.

        Raises:
            ArtifactError: It cannot be had.
        """
        with self._loading_previous:
            wanted, current, held = self._wanted_before, self._current, self._previous
            if wanted is None:
                return None
            for known in (current, held):
                if known and known.digest == wanted.digest:
                    return known
            served = self._obtain(wanted)
            if current is self._current:  # else it may be the one before the one before
                self._previous = served
            return served

    def _obtain(self, wanted: Wanted) -> Served:
        """The model, loaded and verified; what failed before is not tried again too soon.

        Raises:
            ArtifactError: Why it cannot be had.
        """
        failure = self._failures.get(wanted.digest)
        if failure and time.monotonic() < failure.again:
            raise ArtifactError(failure.reason)
        try:
            served = self._ready(wanted)
        except Exception as error:  # noqa: BLE001  # a broken bundle may raise anything
            reason = self._failed(wanted, error, failure.times if failure else 0)
            raise ArtifactError(reason) from None
        self._failures.pop(wanted.digest, None)
        return served

    def _failed(self, wanted: Wanted, error: Exception, before: int) -> str:
        """Note a failure; returns what to say of it."""
        said = str(error) or type(error).__name__
        if isinstance(error, _PASSING):
            self._metrics.unreachable.inc()
            reason = f"version {wanted.version} cannot be had now: {said}"
            again = time.monotonic() + min(_FIRST_WAIT_S * 2.0**before, _LONGEST_WAIT_S)
        else:
            self._metrics.refused_models.inc()
            reason, again = f"version {wanted.version} is refused: {said}", math.inf
        self._failures[wanted.digest] = _Failure(reason, before + 1, again)
        return reason

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
    """Asks the registry at once, and then every so often.

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
        while not self._stopped.is_set():
            try:
                self._models.follow()
            except Exception as error:  # noqa: BLE001  # a server that follows no more is worse
                log(f"unexpected {type(error).__name__}: {error}; the registry is asked again")
            self._stopped.wait(self._seconds)

    def stop(self, seconds: float = 5.0) -> None:
        """Ask no more; a model that is being fetched is waited for so long."""
        self._stopped.set()
        self.join(seconds)
