"""Who submits the run for a catalogue, and which run that was.

Both are written down in the tracking store as parameters of one run. MLflow never changes a
parameter that was logged, and of two processes that log the same one the second is refused. So of
many that want to submit a run for the same catalogue one does, from whatever machine, and what was
submitted is found by all others, also after a lost home.

A claim is not given back: who was killed cannot. Whoever sees a claim stand unfinished for long
enough makes the next one.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from xcflow.errors import TrackingError
from xcflow.registry.tracking import NOTE, Tracker, user_name

# Tag of the experiment: the run that holds the claims.
_RUN = "claims_run"


@dataclass(frozen=True)
class Submission:
    """A run that was submitted for a catalogue.

    Attributes:
        run: Its id on the cluster.
        name: Its name there and in MLflow.
        catalogue: Where the catalogue stood.
        who: The user as whom the tracking store was asked.
        time: When it was written down, in UTC (ISO 8601).
    """

    run: str
    name: str
    catalogue: str
    who: str
    time: str


@dataclass(frozen=True)
class Attempt:
    """One wish to have a run for a catalogue; the first is made by itself, others by hand.

    Attributes:
        number: From 1.
        claims: How many processes, one after the other, claimed to submit the run.
        submission: The run, None where none is known to have been submitted.
    """

    number: int
    claims: int
    submission: Submission | None


class ClaimLog:
    """The claims and submissions for the catalogues of one registered model.

    Args:
        tracker: The tracking store.
        model: Name of the registered model.
        pipeline: What is run; empty for the retraining. Each has claims of its own.
    """

    def __init__(self, tracker: Tracker, model: str, pipeline: str = "") -> None:
        self._tracker = tracker
        self._name = f"{model} triggers" + (f" of {pipeline}" if pipeline else "")

    def open(self) -> str:
        """The run that holds the claims; made where there is none."""
        with self._tracker.trouble():
            return self._find() or self._make()

    def latest(self, digest: str) -> Attempt:
        """The latest attempt for a catalogue; the first one, without a claim, where none is."""
        attempts = self._attempts(digest)
        return attempts[max(attempts)] if attempts else Attempt(1, 0, None)

    def attempt(self, digest: str, number: int) -> Attempt:
        """An attempt for a catalogue as it stands now."""
        return self._attempts(digest).get(number, Attempt(number, 0, None))

    def claim(self, digest: str, attempt: Attempt) -> bool:
        """Claim to submit the run of an attempt, after the claims that were known.

        Returns:
            Whether the claim is this process's; another one may have been faster.
        """
        key = _key(digest, attempt.number, str(attempt.claims + 1))
        # Nobody else writes the same value: an equal one would not be refused.
        value = {"who": self._who(), "time": _now(), "token": secrets.token_hex(8)}
        return self._write(key, json.dumps(value))

    def settle(
        self, digest: str, attempt: Attempt, run: str, name: str, catalogue: str
    ) -> Submission:
        """Write down the run that this process submitted for an attempt.

        Args:
            digest: Which catalogue it is for.
            attempt: The attempt.
            run: Its id on the cluster.
            name: Its name there.
            catalogue: Where the catalogue stood.

        Returns:
            What holds, which may be another's run.
        """
        key = _key(digest, attempt.number, "run")
        submission = Submission(run, name, catalogue, self._who(), _now())
        value = json.dumps(asdict(submission), ensure_ascii=False)
        if self._write(key, value):
            return submission
        return _parsed(self._params()[key], key)

    def _attempts(self, digest: str) -> dict[int, Attempt]:
        attempts: dict[int, Attempt] = {}
        for key, value in self._params().items():
            of, number, kind = _parsed_key(key)
            if of != digest:
                continue
            attempt = attempts.get(number, Attempt(number, 0, None))
            if kind == "run":
                attempt = replace(attempt, submission=_parsed(value, key))
            else:
                attempt = replace(attempt, claims=max(attempt.claims, int(kind)))
            attempts[number] = attempt
        return attempts

    def _params(self) -> dict[str, str]:
        with self._tracker.trouble():
            run = self._find()
            return dict(self._tracker.client.get_run(run).data.params) if run else {}

    def _write(self, key: str, value: str) -> bool:
        return self._tracker.log_once(self.open(), key, value)

    def _who(self) -> str:
        return user_name(self._tracker.uri)

    def _find(self) -> str | None:
        """The run that holds the claims, None where there is none yet."""
        experiment = self._tracker.client.get_experiment_by_name(self._name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            raise TrackingError(f"the experiment {self._name!r} was deleted: restore it")
        if _RUN not in experiment.tags:
            raise TrackingError(f"the experiment {self._name!r} was made by hand: rename it")
        return str(experiment.tags[_RUN])

    def _make(self) -> str:
        """Make the run, in an experiment that gets its name, which only one can, when whole."""
        from mlflow.exceptions import MlflowException

        client, partial = self._tracker.client, f"{self._name} ({secrets.token_hex(8)})"
        where = self._tracker.artifact_location(partial)
        experiment = client.create_experiment(partial, where)
        note = "Each parameter is a claim to submit the run for a catalogue, or the run."
        run = client.create_run(experiment, run_name="claims", tags={NOTE: note})
        client.set_terminated(run.info.run_id)
        client.set_experiment_tag(experiment, _RUN, run.info.run_id)
        try:
            client.rename_experiment(experiment, self._name)
        except MlflowException:
            client.delete_experiment(experiment)
            found = self._find()
            if found is None:
                raise
            return found
        return str(run.info.run_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _key(digest: str, attempt: int, kind: str) -> str:
    return f"{digest}.{attempt}.{kind}"


def _parsed_key(key: str) -> tuple[str, int, str]:
    digest, _, rest = key.partition(".")
    attempt, _, kind = rest.partition(".")
    return digest, int(attempt), kind


def _parsed(text: str, where: str) -> Submission:
    try:
        tree: dict[str, Any] = json.loads(text)
        return Submission(**tree)
    except (ValueError, TypeError) as error:
        raise TrackingError(f"the claim {where}: not a record of this version") from error
