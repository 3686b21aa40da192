"""A run for a catalogue that came in: whether one is due, and exactly one of it.

Which catalogue it is, is told from outside (``xcflow.catalogue.outline``), and held against the
champion's. Who submits is decided in the tracking store (``xcflow.registry.claims``). Between a
claim and the record of its run a process may be killed; whoever sees a claim stand unfinished for
``Patience.claim_s`` takes it over, and finds the run by its name where it was submitted. Of two
that were submitted all the same, because a process was held up for so long and then went on, the
one on record stays and the other is cancelled by its own maker.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple, Protocol

from xcflow.catalogue.difference import Difference, find_difference
from xcflow.catalogue.outline import Outline, look_at
from xcflow.config import Config
from xcflow.errors import ArtifactError, TrackingError
from xcflow.home import Home
from xcflow.progress import log
from xcflow.registry.bundles import fetch_profile
from xcflow.registry.claims import Attempt, ClaimLog, Submission
from xcflow.registry.promotion import Registry, Version
from xcflow.registry.tracking import Tracker
from xcflow_pipelines import refreshing

State = Literal["accepted", "known", "due", "submitted"]


class Run(NamedTuple):
    """A run on a cluster: its id there, and its name there and in MLflow."""

    id: str
    name: str


class Cluster(Protocol):
    """Where runs are submitted. What cannot be asked or is refused is an ``XcflowError``."""

    def prepare(self, outline: Outline) -> None:
        """Make all ready for a submission, so that nothing but the run itself is left to make."""

    def submit(self, key: str, outline: Outline) -> Run:
        """Submit the run of a key, or find it where it was submitted."""

    def state(self, run: str) -> str:
        """How a run stands, as the cluster calls it."""

    def is_over(self, state: str) -> bool:
        """Whether a run that stands so came to its end, whatever that was."""

    def cancel(self, run: str) -> None:
        """End a run."""


@dataclass(frozen=True)
class Patience:
    """How long others are waited for.

    Attributes:
        claim_s: A claim that stood for so long without a run was given up. Longer than a
            submission takes.
        poll_s: Seconds between two looks.
    """

    claim_s: float = 120.0
    poll_s: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What came of a trigger.

    Attributes:
        state: ``accepted``: the champion knows this catalogue; ``known``: a run was
            submitted for it before; ``due``: one would be submitted; ``submitted``: one was.
        outline: The catalogue.
        accepted: The digest of the catalogue that was accepted last, empty for none.
        difference: What is new beside that one, None where there is none or nothing is new.
        submission: The run.
        run_state: How the run stands, as the cluster calls it; empty where it was not asked.
    """

    state: State
    outline: Outline
    accepted: str
    difference: Difference | None = None
    submission: Submission | None = None
    run_state: str = ""


class Trigger:
    """Submits runs for the catalogues of one registered model.

    Args:
        config: The configuration of the runs.
        tracker: The tracking store.
        home: Keeps bundles.
        cluster: Where runs are submitted.
        patience: How long others are waited for.
        pipeline: Name of the pipeline that is run; empty for the retraining. A catalogue has one
            run of each.
    """

    def __init__(
        self,
        config: Config,
        tracker: Tracker,
        home: Home,
        cluster: Cluster,
        patience: Patience = Patience(),
        pipeline: str = "",
    ) -> None:
        self._config = config
        self._tracker = tracker
        self._home = home
        self._cluster = cluster
        self._patience = patience
        self._pipeline = pipeline
        self._claims = ClaimLog(tracker, config.tracking.model_name, pipeline)

    def pull(self, uri: str, *, again: bool = False, dry_run: bool = False) -> Outcome:
        """Submit a run for a catalogue where one is due.

        Args:
            uri: Where the catalogue stands.
            again: Whether another run is due where the latest one is over, or the catalogue is
                the accepted one.
            dry_run: Whether to submit nothing.

        Raises:
            XcflowError: The catalogue, the tracking store or the cluster cannot be asked, or there
                is no champion that a refresh could let take the catalogue in.
        """
        outline = look_at(uri, self._config.data)
        registry = Registry(self._tracker, self._config.tracking.model_name, self._home)
        champion = registry.champion()
        if champion is None and self._pipeline == refreshing.NAME:
            raise TrackingError("there is no champion yet to take a catalogue in: retrain first")
        accepted = champion.catalogue if champion else ""
        attempt = self._claims.latest(outline.digest)
        if known := attempt.submission:
            run_state = self._cluster.state(known.run)
            if not (again and self._cluster.is_over(run_state)):
                return Outcome("known", outline, accepted, None, known, run_state)
            attempt = Attempt(attempt.number + 1, 0, None)
        elif not again and self._is_accepted(outline, accepted):
            return Outcome("accepted", outline, accepted)
        difference = self._difference(champion, outline)
        if dry_run:
            return Outcome("due", outline, accepted, difference)
        self._cluster.prepare(outline)
        submission, is_own = self._submitted(outline, attempt)
        state: State = "submitted" if is_own else "known"
        return Outcome(state, outline, accepted, difference, submission)

    def _is_accepted(self, outline: Outline, accepted: str) -> bool:
        if outline.content or not accepted:
            return bool(accepted) and outline.content == accepted
        contents = self._tracker.contents_of_listing(outline.digest)
        return any(accepted.startswith(content) for content in contents)

    def _difference(self, champion: Version | None, outline: Outline) -> Difference | None:
        if champion is None:
            return None
        with TemporaryDirectory() as scratch:
            try:
                profile = fetch_profile(self._tracker, self._home, champion.digest, Path(scratch))
            except ArtifactError as error:  # of a version that wrote no profiles, or by hand
                return Difference(None, None, (f"what is new is not known: {error}",))
            return find_difference(profile, outline, self._config.data)

    def _submitted(self, outline: Outline, attempt: Attempt) -> tuple[Submission, bool]:
        """The run of an attempt, and whether this process submitted it."""
        wait_s = self._patience.claim_s if attempt.claims else 0.0
        while True:
            attempt = self._watched(outline.digest, attempt, wait_s)
            if attempt.submission:
                return attempt.submission, False
            if self._claims.claim(outline.digest, attempt):
                break
            wait_s = self._patience.claim_s
        model = self._config.tracking.model_name
        key = f"{model} {outline.digest} {attempt.number} {self._pipeline}".rstrip()
        run = self._cluster.submit(key, outline)
        held = self._claims.settle(outline.digest, attempt, run.id, run.name, outline.uri)
        if held.run != run.id:
            log(f"run {held.run} was submitted meanwhile: {run.id} is cancelled")
            self._cluster.cancel(run.id)
        return held, held.run == run.id

    def _watched(self, digest: str, attempt: Attempt, wait_s: float) -> Attempt:
        """An attempt once it has its run, or has stood for so long as it stands."""
        end = time.monotonic() + wait_s
        while attempt.submission is None and time.monotonic() < end:
            time.sleep(self._patience.poll_s)
            now = self._claims.attempt(digest, attempt.number)
            if now.claims != attempt.claims:
                end = time.monotonic() + wait_s
            attempt = now
        return attempt
