"""Who is champion: model versions, aliases, and the record of every move.

MLflow's aliases have neither a history nor a compare-and-swap. So moves from one home folder are
serialised by a lock, a move is refused where the champion is no longer the one that the verdict is
about, and each move is appended to a file.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xcflow.artifact import read_manifest
from xcflow.errors import ArtifactError, GateError, StorageError, TrackingError
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.bundles import BUNDLE, fetch_bundle, keep_bundle
from xcflow.registry.model_card import shortened
from xcflow.registry.tracking import Tracker, user_name

# What stands on the page of the registered model.
ABOUT = (
    "Ranks labels for short texts. The alias `champion` answers, `previous` did before it; each "
    "version's description is its model card."
)


@dataclass(frozen=True)
class Version:
    """A registered version of the model.

    Attributes:
        number: Its number in the registry.
        digest: The digest of its bundle.
        compared_with: The digest of the champion it was judged against, empty for none.
        run: The run in MLflow that made it.
    """

    number: str
    digest: str
    compared_with: str = ""
    run: str = ""


@dataclass(frozen=True)
class Move:
    """One line of the record.

    Attributes:
        time: When, in UTC (ISO 8601).
        who: The user of the process.
        action: ``promote`` or ``rollback``.
        model: Name of the registered model.
        version: The champion from now on.
        digest: The digest of its bundle.
        from_version: The champion until now, empty where there was none.
        from_digest: The digest of its bundle.
        verdict: What the gate said of the new champion.
        reason: Why, in words.
        run: The run in MLflow that made the new champion.
    """

    time: str
    who: str
    action: str
    model: str
    version: str
    digest: str
    from_version: str
    from_digest: str
    verdict: str
    reason: str
    run: str


class Registry:
    """The versions of one registered model.

    Args:
        tracker: The tracking store that holds the registry.
        model: Name of the registered model.
        home: Keeps the promoted bundles and the record of moves.
    """

    def __init__(self, tracker: Tracker, model: str, home: Home) -> None:
        self.tracker = tracker
        self.model = model
        self.home = home

    def champion(self) -> Version | None:
        """The version that answers queries."""
        return self.aliased(names.CHAMPION)

    def previous(self) -> Version | None:
        """The version that was champion before the last move."""
        return self.aliased(names.PREVIOUS)

    def version(self, number: str) -> Version:
        """A version by its number.

        Raises:
            TrackingError: There is no such version.
        """
        from mlflow.exceptions import MlflowException

        with self.tracker.trouble():
            try:
                found = self.tracker.client.get_model_version(self.model, number)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise TrackingError(f"model {self.model} has no version {number}") from error
        tags = found.tags
        return Version(
            str(found.version),
            tags.get(names.BUNDLE_DIGEST, ""),
            tags.get(names.COMPARED_WITH, ""),
            found.run_id or "",
        )

    def promote(
        self,
        bundle: Path,
        *,
        candidate: str,
        run: str | None,
        verdict: str,
        compared_with: str,
        reason: str,
        override: bool = False,
    ) -> Move | None:
        """Register a bundle and make it the champion.

        Args:
            bundle: The bundle's folder.
            candidate: The digest of the bundle that the verdict is about.
            run: The run in MLflow that made it, where one did.
            verdict: What the gate said.
            compared_with: The digest of the champion that the verdict is about, empty for none.
            reason: Why, in words.
            override: Promote whatever the verdict and the present champion are.

        Returns:
            The move, None where the bundle is the champion already.

        Raises:
            GateError: The verdict is not PROMOTE, or the candidate or champion is another by now.
        """
        digest = read_manifest(bundle, BUNDLE, verify=True).digest
        if digest != candidate:
            raise GateError(f"{bundle}: the verdict is about another model ({candidate[:12]})")
        with self._lock():
            champion = self.champion()
            if champion and champion.digest == digest:
                keep_bundle(self.home, bundle, digest)
                return None
            if not override:
                _require_promotable(verdict, compared_with, champion)
            facts = {
                names.BUNDLE_DIGEST: digest,
                names.COMPARED_WITH: compared_with,
                names.VERDICT: verdict,
            }
            version = self._register(bundle, digest, run, facts)
            keep_bundle(self.home, bundle, digest)
            return self._move("promote", version, champion, verdict, reason)

    def rollback(self, to: str | None, reason: str) -> Move:
        """Make an earlier version the champion again.

        Args:
            to: Number of the version; None for the one before the last move.
            reason: Why, in words.

        Raises:
            TrackingError: There is nothing to go back to, or it is the champion already.
        """
        with self._lock():
            champion = self.champion()
            target = self.version(to) if to else self.previous()
            if target is None:
                raise TrackingError("no champion before this one: nothing to roll back to")
            if champion and champion.number == target.number:
                raise TrackingError(f"version {target.number} is the champion already")
            fetch_bundle(self.tracker, self.home, target.digest)
            return self._move("rollback", target, champion, self._verdict(target), reason)

    def aliased(self, alias: str) -> Version | None:
        """The version that an alias points to."""
        from mlflow.exceptions import MlflowException

        with self.tracker.trouble():
            try:
                aliases = self.tracker.client.get_registered_model(self.model).aliases
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
        return self.version(str(aliases[alias])) if alias in aliases else None

    def _registered(self, digest: str) -> Version | None:
        where = f"name = '{self.model}' and tags.{names.BUNDLE_DIGEST} = '{digest}'"
        with self.tracker.trouble():
            found = self.tracker.client.search_model_versions(where, max_results=1)
        return self.version(str(found[0].version)) if found else None

    def _register(
        self, bundle: Path, digest: str, run: str | None, tags: Mapping[str, str]
    ) -> Version:
        """The version that holds the bundle, made where there is none, with the given tags."""
        client = self.tracker.client
        if known := self._registered(digest):
            with self.tracker.trouble():
                for key, value in tags.items():
                    client.set_model_version_tag(self.model, known.number, key, value)
            return known
        model = self.tracker.find_model(digest)
        if model is None:
            tags_of_model = {names.BUNDLE_DIGEST: digest}
            model = self.tracker.log_model(run, self.model, bundle, tags_of_model)
        from mlflow.exceptions import MlflowException

        with self.tracker.trouble():
            try:
                client.create_registered_model(self.model, description=ABOUT)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            version = client.create_model_version(
                self.model, f"models:/{model}", run_id=run, tags=dict(tags), model_id=model
            )
            if card := self.tracker.model_note(model):
                client.update_model_version(self.model, version.version, shortened(card))
            self.tracker.link_version(model, self.model, str(version.version))
        return self.version(str(version.version))

    def _verdict(self, version: Version) -> str:
        with self.tracker.trouble():
            found = self.tracker.client.get_model_version(self.model, version.number)
        return str(found.tags.get(names.VERDICT, ""))

    def _move(
        self, action: str, to: Version, champion: Version | None, verdict: str, reason: str
    ) -> Move:
        move = Move(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            who=user_name(),
            action=action,
            model=self.model,
            version=to.number,
            digest=to.digest,
            from_version=champion.number if champion else "",
            from_digest=champion.digest if champion else "",
            verdict=verdict,
            reason=reason,
            run=to.run,
        )
        client = self.tracker.client
        with self.tracker.trouble():
            if champion:
                client.set_registered_model_alias(self.model, names.PREVIOUS, champion.number)
            client.set_registered_model_alias(self.model, names.CHAMPION, to.number)
            moved = f"{move.time} by {move.who}"
            client.set_model_version_tag(self.model, to.number, f"last_{action}", moved)
            client.set_model_version_tag(self.model, to.number, names.REASON, reason)
        _append(self.home.promotions, asdict(move))
        return move

    @contextmanager
    def _lock(self) -> Iterator[None]:
        path = self.home.promotions.with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("w")
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def moves(home: Home) -> list[Move]:
    """All recorded moves of a home folder, oldest first.

    Raises:
        ArtifactError: The record was altered and cannot be read.
    """
    try:
        lines = home.promotions.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{home.promotions}: cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Move(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ArtifactError(f"{home.promotions}, line {number}: not a record") from error
    return found


def _require_promotable(verdict: str, compared_with: str, champion: Version | None) -> None:
    if verdict != names.PROMOTE:
        raise GateError(f"the verdict is {verdict}, not {names.PROMOTE}: not promoted")
    present = champion.digest if champion else ""
    if present != compared_with:
        raise GateError(
            "the champion was changed since this model was compared with it: "
            "run the pipeline again, the comparison is made anew"
        )


def _append(path: Path, row: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
