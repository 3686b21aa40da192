"""The record of moves of the champion, twice: in the home folder and in the tracking store.

``promotions.jsonl`` in the home has a line for each move that was made from there. Each line holds
the sha256 of the line before, so a line that is changed, dropped or put in between is noticed.

In the store each move is a parameter of one run, ``move_00001`` and so on. MLflow never changes a
parameter that was logged, and of two processes that log the same one the second is refused. So
the record outlives a lost home, all machines share it, and whoever gets its move written down may
make it: this is the compare-and-swap that MLflow's aliases lack.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from xcflow.errors import (
    AccessError,
    ArtifactError,
    CredentialsError,
    GateError,
    StorageError,
    TrackingError,
)
from xcflow.home import Home
from xcflow.registry import names
from xcflow.registry.tracking import Tracker, user_name

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

_BEFORE = "sha256_of_line_before"
_PREFIX = "move_"
# MLflow cuts parameters at 6,000 characters; the rest of a move needs at most 1,500.
_REASON_CHARACTERS = 4_000

# What stands on the page of the registered model.
_ABOUT = (
    "Ranks labels for short texts. The alias `champion` answers, `previous` did before it; each "
    "version's description is its model card."
)


@dataclass(frozen=True)
class Move:
    """The champion's alias went from one version to another.

    Attributes:
        time: When, in UTC (ISO 8601).
        who: The user of the process.
        action: ``promote``, ``override`` (promoted whatever the gate said) or ``rollback``.
        model: Name of the registered model.
        version: The champion from now on.
        digest: The digest of its bundle.
        from_version: The champion until now, empty where there was none.
        from_digest: The digest of its bundle.
        verdict: What the gate said of the new champion.
        compared_with: The digest of the champion that the verdict compares it with.
        evaluation: The digest of the evaluation that the verdict is about.
        catalogue: The digest of the catalogue that the new champion was trained on.
        test_split: The identity of the test split.
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
    compared_with: str
    evaluation: str
    catalogue: str
    test_split: str
    reason: str
    run: str


def append_move(home: Home, move: Move) -> None:
    """Write a move at the end of the home's record."""
    path = home.promotions
    lines = _lines(home)
    row = asdict(move) | {_BEFORE: _sha256(lines[-1]) if lines else ""}
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error


def moves(home: Home) -> list[Move]:
    """All moves in the home's record, oldest first.

    Raises:
        ArtifactError: A line is none.
    """
    return [_parsed(line, f"{home.promotions}, line {i}") for i, line in _numbered(home)]


def altered_line(home: Home) -> int | None:
    """The number of the first line that does not follow the one before; None where all do.

    Raises:
        ArtifactError: A line is none.
    """
    before = ""
    for number, line in _numbered(home):
        if _tree(line, f"{home.promotions}, line {number}").get(_BEFORE) != before:
            return number
        before = _sha256(line)
    return None


class MoveLog:
    """The record of moves in the tracking store.

    Args:
        tracker: The tracking store.
        model: Name of the registered model.
    """

    def __init__(self, tracker: Tracker, model: str) -> None:
        self._tracker = tracker
        self._model = model

    def read(self) -> list[Move]:
        """All moves of the model from whatever machine, oldest first."""
        model = self._registered()
        run = model.tags.get(names.MOVES_RUN) if model else None
        if run is None:
            return []
        with self._tracker.trouble():
            params = self._tracker.client.get_run(run).data.params
        keys = sorted(key for key in params if key.startswith(_PREFIX))
        try:
            return [_parsed(params[key], f"{key} of the run {run}") for key in keys]
        except ArtifactError as error:
            raise TrackingError(str(error)) from error

    def write(self, number: int, move: Move) -> None:
        """Write down the move that is about to be made.

        Args:
            number: One more than there were moves when it was decided on.
            move: The move.

        Raises:
            GateError: Another process wrote down a move of this number first.
        """
        short = replace(move, reason=move.reason[:_REASON_CHARACTERS])
        text = json.dumps(asdict(short), ensure_ascii=False)
        if not self._tracker.log_once(self.open(), f"{_PREFIX}{number:05d}", text):
            raise GateError(
                "another promotion was faster: run the pipeline again, the comparison is made anew"
            )

    def require_right(self) -> None:
        """Make sure, before anything is written, that this user may move the champion.

        Aliases need the right to change the registered model. So does a tag, and to set the same
        tag again changes nothing.

        Raises:
            AccessError: The user may not.
        """
        run = self.open()
        try:
            with self._tracker.trouble():
                self._tracker.client.set_registered_model_tag(self._model, names.MOVES_RUN, run)
        except CredentialsError:
            raise
        except AccessError as error:
            who = user_name(self._tracker.uri)
            raise AccessError(
                f"{who} may not promote: it needs the right EDIT on the registered model "
                f"{self._model} (role promoter, mlflow/README.md)"
            ) from error

    def open(self) -> str:
        """The run that holds the moves; made with the registered model, which only one can make."""
        from mlflow.exceptions import MlflowException

        client, model = self._tracker.client, self._registered()
        if model and names.MOVES_RUN in model.tags:
            return str(model.tags[names.MOVES_RUN])
        with self._tracker.trouble():
            run = self._create_run()
            try:
                client.create_registered_model(
                    self._model, tags={names.MOVES_RUN: run}, description=_ABOUT
                )
                return run
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            model = client.get_registered_model(self._model)
            if names.MOVES_RUN not in model.tags:  # the model was made by hand
                client.set_registered_model_tag(self._model, names.MOVES_RUN, run)
                return run
            client.delete_run(run)
        return str(model.tags[names.MOVES_RUN])

    def _registered(self) -> RegisteredModel | None:
        from mlflow.exceptions import MlflowException

        with self._tracker.trouble():
            try:
                return self._tracker.client.get_registered_model(self._model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None

    def _create_run(self) -> str:
        """In an experiment of its own, so that it does not stand among the runs of the pipeline."""
        from mlflow.exceptions import MlflowException

        client, name = self._tracker.client, f"{self._model} champions"
        try:
            client.create_experiment(name, self._tracker.artifact_location(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise TrackingError(f"the experiment {name!r} was deleted: restore it")
        note = f"Each parameter is a move of the champion of the model {self._model}."
        tags = {"mlflow.note.content": note}
        run = client.create_run(experiment.experiment_id, run_name="moves", tags=tags)
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)


def _lines(home: Home) -> list[str]:
    try:
        return home.promotions.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{home.promotions}: cannot be read: {error.strerror}") from error


def _numbered(home: Home) -> Iterator[tuple[int, str]]:
    return enumerate(_lines(home), 1)


def _tree(text: str, where: str) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(text)
        return tree
    except ValueError as error:
        raise ArtifactError(f"{where}: not a record") from error


def _parsed(text: str, where: str) -> Move:
    tree = _tree(text, where)
    try:
        return Move(**{key: value for key, value in tree.items() if key != _BEFORE})
    except (TypeError, AttributeError) as error:
        raise ArtifactError(f"{where}: not a record") from error


def _sha256(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
