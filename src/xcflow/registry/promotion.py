"""Who is champion: model versions, aliases, and the order of moves.

Moves from one home folder are serialised by a lock, those from several machines by the record in
the tracking store: a move is written down there first, which only one can do, and then made. A
move is refused where the champion is no longer the one that the verdict is about.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from xcflow.artifact import read_manifest
from xcflow.errors import GateError, StorageError, TrackingError
from xcflow.evaluation.verdict import Judgement
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.bundles import BUNDLE, fetch_bundle, keep_bundle
from xcflow.registry.model_card import shortened
from xcflow.registry.moves import Move, MoveLog, append_move, moves
from xcflow.registry.tracking import Tracker, user_name

# A move that is written down and not made for so long was given up.
UNDER_WAY_S = 120.0


@dataclass(frozen=True)
class Version:
    """A registered version of the model.

    Attributes:
        number: Its number in the registry.
        digest: The digest of its bundle.
        compared_with: The digest of the champion it was judged against, empty for none.
        verdict: What the gate said of it.
        evaluation: The digest of the evaluation that the verdict is about.
        catalogue: The digest of the catalogue that it was trained on, empty where unknown.
        test_split: The identity of the test split.
        run: The run in MLflow that made it.
    """

    number: str
    digest: str
    compared_with: str = ""
    verdict: str = ""
    evaluation: str = ""
    catalogue: str = ""
    test_split: str = ""
    run: str = ""


# Attributes of a version -> the tags that hold them.
_TAGS = {
    "digest": names.BUNDLE_DIGEST,
    "compared_with": names.COMPARED_WITH,
    "verdict": names.VERDICT,
    "evaluation": names.EVALUATION_DIGEST,
    "catalogue": names.CATALOGUE_DIGEST,
    "test_split": names.TEST_SPLIT,
}


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
        self.log = MoveLog(tracker, model)

    def champion(self) -> Version | None:
        """The version that answers queries."""
        return self.aliased(names.CHAMPION)

    def previous(self) -> Version | None:
        """The version that was champion before the last move."""
        return self.aliased(names.PREVIOUS)

    def accepted(self, catalogue: str) -> Version | None:
        """The latest champion that was trained on another catalogue, whose digest is known.

        The present one, or where that was trained on this very catalogue, the one it was compared
        with, and so on: a catalogue is held against the same one before and after its own model is
        promoted.

        Args:
            catalogue: The digest of the catalogue that is to be held against it.
        """
        version, seen = self.champion(), {""}
        while version and version.catalogue in ("", catalogue):
            seen.add(version.digest)
            before = version.compared_with
            version = None if before in seen else self._registered(before)
        return version

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
        facts = {key: found.tags.get(tag, "") for key, tag in _TAGS.items()}
        return Version(str(found.version), **facts, run=found.run_id or "")

    def promote(
        self,
        bundle: Path,
        judgement: Judgement,
        *,
        run: str | None,
        reason: str = "",
        override: bool = False,
    ) -> Move | None:
        """Register a bundle and make it the champion.

        Args:
            bundle: The bundle's folder.
            judgement: What the gate said of it.
            run: The run in MLflow that made it, where one did.
            reason: Why, in words; by default the gate's reasons.
            override: Promote whatever the verdict and the present champion are.

        Returns:
            The move, None where the bundle is the champion already.

        Raises:
            GateError: The verdict is not PROMOTE, the candidate or champion is another by now, or
                another process was faster.
            AccessError: The user has no right to promote; nothing was written.
        """
        manifest = read_manifest(bundle, BUNDLE, verify=True)
        digest = manifest.digest
        if digest != judgement.candidate:
            other = judgement.candidate[:12]
            raise GateError(f"{bundle}: the verdict is about another model ({other})")
        reason = reason or " ".join(judgement.reasons)
        with self._lock():
            number, champion, half_made = self._settled(digest)
            if half_made:
                keep_bundle(self.home, bundle, digest)
                return self._make(half_made)
            if champion and champion.digest == digest:
                keep_bundle(self.home, bundle, digest)
                return None
            if not override:
                _require_promotable(judgement, champion)
            self.log.require_right()
            tags = {
                names.BUNDLE_DIGEST: digest,
                names.COMPARED_WITH: judgement.champion,
                names.VERDICT: judgement.verdict,
                names.EVALUATION_DIGEST: judgement.evaluation,
                names.CATALOGUE_DIGEST: str(manifest.meta.get("catalogue_digest", "")),
                names.TEST_SPLIT: judgement.test_split,
            }
            version = self._register(bundle, digest, run, tags)
            keep_bundle(self.home, bundle, digest)
            action = "override" if override else "promote"
            return self._move(number, action, version, champion, reason)

    def rollback(self, to: str | None, reason: str) -> Move:
        """Make an earlier version the champion again.

        Args:
            to: Number of the version; None for the one before the last move.
            reason: Why, in words.

        Raises:
            TrackingError: There is nothing to go back to, or it is the champion already.
            GateError: Another process was faster.
            AccessError: The user has no right to it; nothing was written.
        """
        with self._lock():
            target = self.version(to) if to else self.previous()
            if target is None:
                raise TrackingError("no champion before this one: nothing to roll back to")
            number, champion, half_made = self._settled(target.digest)
            if half_made:
                return self._make(half_made)
            if champion and champion.number == target.number:
                raise TrackingError(f"version {target.number} is the champion already")
            self.log.require_right()
            fetch_bundle(self.tracker, self.home, target.digest)
            return self._move(number, "rollback", target, champion, reason)

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
            return self.version(known.number)
        model = self.tracker.find_model(digest)
        if model is None:
            tags_of_model = {names.BUNDLE_DIGEST: digest}
            model = self.tracker.log_model(run, self.model, bundle, tags_of_model)
        with self.tracker.trouble():
            version = client.create_model_version(
                self.model, f"models:/{model}", run_id=run, tags=dict(tags), model_id=model
            )
            if card := self.tracker.model_note(model):
                client.update_model_version(self.model, version.version, shortened(card))
            self.tracker.link_version(model, self.model, str(version.version))
        return self.version(str(version.version))

    def _settled(self, digest: str) -> tuple[int, Version | None, Move | None]:
        """The number of the next move, the champion, and a move that is to be made still.

        The record is read before the alias: what is written down in between is refused a number.

        Args:
            digest: The bundle that is to be champion. Whoever wants the same as a move that is
                under way may make it in its place: its process was killed, or both do the same.

        Raises:
            GateError: A move to another bundle is under way.
        """
        done = self.log.read()
        champion = self.champion()
        if done and done[-1].version != (champion.number if champion else ""):
            age = datetime.now(UTC) - datetime.fromisoformat(done[-1].time)
            if age.total_seconds() < UNDER_WAY_S:
                if done[-1].digest == digest:
                    return len(done), champion, done[-1]
                raise GateError(
                    f"{done[-1].who} is just moving the champion to version {done[-1].version}: "
                    f"try again in {UNDER_WAY_S / 60:.0f} minutes"
                )
        return len(done) + 1, champion, None

    def _move(
        self, number: int, action: str, to: Version, champion: Version | None, reason: str
    ) -> Move:
        move = Move(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            who=user_name(self.tracker.uri),
            action=action,
            model=self.model,
            version=to.number,
            digest=to.digest,
            from_version=champion.number if champion else "",
            from_digest=champion.digest if champion else "",
            verdict=to.verdict,
            compared_with=to.compared_with,
            evaluation=to.evaluation,
            catalogue=to.catalogue,
            test_split=to.test_split,
            reason=reason,
            run=to.run,
        )
        self.log.write(number, move)
        return self._make(move)

    def _make(self, move: Move) -> Move:
        """Make a move that is written down; all of it may have been done before."""
        client, version = self.tracker.client, move.version
        with self.tracker.trouble():
            if move.from_version:
                client.set_registered_model_alias(self.model, names.PREVIOUS, move.from_version)
            client.set_registered_model_alias(self.model, names.CHAMPION, version)
            moved = f"{move.time} by {move.who}"
            client.set_model_version_tag(self.model, version, f"last_{move.action}", moved)
            client.set_model_version_tag(self.model, version, names.REASON, move.reason)
        if move not in moves(self.home):
            append_move(self.home, move)
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


def _require_promotable(judgement: Judgement, champion: Version | None) -> None:
    if judgement.verdict != names.PROMOTE:
        raise GateError(f"the verdict is {judgement.verdict}, not {names.PROMOTE}: not promoted")
    present = champion.digest if champion else ""
    if present != judgement.champion:
        raise GateError(
            "the champion was changed since this model was compared with it: "
            "run the pipeline again, the comparison is made anew"
        )
