"""The gate's verdict with its reasons: what the step ``gate_model`` writes and others read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from xcflow.artifact import read_manifest
from xcflow.config import GateConfig
from xcflow.errors import ArtifactError, GateError
from xcflow.evaluation.bootstrap import Difference
from xcflow.evaluation.result import KIND as EVALUATION

Verdict = Literal["PROMOTE", "HOLD", "REJECT"]
Outcome = Literal["yes", "no", "cannot tell"]

KIND = "verdict"
VERDICT = "verdict.json"


@dataclass(frozen=True)
class Check:
    """One question that the gate asks, and its answer.

    Attributes:
        question: What is asked, such as ``rises`` or ``does not fall``.
        outcome: The answer.
        words: The answer as a sentence.
        metric: The metric asked about, empty where there is none.
        against: The opponent, empty where there is none.
        threshold: What the difference's bound is held against.
        difference: The difference to the opponent.
    """

    question: str
    outcome: Outcome
    words: str
    metric: str = ""
    against: str = ""
    threshold: float = 0.0
    difference: Difference | None = None


@dataclass(frozen=True)
class Judgement:
    """What the gate says of a candidate.

    Attributes:
        verdict: PROMOTE, HOLD or REJECT.
        reasons: Why, in words: the answers that decided.
        notes: What decided nothing and is still worth knowing, in words.
        checks: All questions and answers.
        candidate: Digest of the candidate's bundle.
        champion: Digest of the champion's bundle it was compared with, empty where there is none.
        evaluation: Digest of the evaluation.
        dataset: Digest of the data set.
        catalogue: Digest of the catalogue that the data set was made of.
        test_split: Identity of the test split.
        documents: Number of test documents.
        thresholds: The thresholds in force.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    checks: tuple[Check, ...]
    candidate: str
    champion: str
    evaluation: str
    dataset: str
    catalogue: str
    test_split: str
    documents: int
    thresholds: GateConfig

    def to_json(self) -> str:
        """Indented JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json`` once parsed."""
        values = dict(tree)
        for name in ("reasons", "notes"):
            values[name] = tuple(values[name])
        values["checks"] = tuple(_check_from_dict(check) for check in values["checks"])
        thresholds = dict(values["thresholds"])
        thresholds["secondary"] = tuple(thresholds["secondary"])
        values["thresholds"] = GateConfig(**thresholds)
        return cls(**values)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what the step ``gate_model`` wrote.

        Raises:
            ArtifactError: The folder holds none, or it was altered.
        """
        read_manifest(folder, KIND, verify=True)
        path = Path(folder) / VERDICT
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path}: cannot be read: {error}") from error

    @classmethod
    def open_with_evaluation(cls, folder: Path, evaluation: Path) -> Self:
        """Read a verdict that is to be acted on.

        Raises:
            ArtifactError: One of the folders was altered, or holds something else.
            GateError: The verdict is about another evaluation.
        """
        judgement = cls.open(folder)
        found = read_manifest(evaluation, EVALUATION, verify=True).digest
        if found != judgement.evaluation:
            raise GateError(
                f"{folder}: the verdict is about the evaluation {judgement.evaluation[:12]}, but "
                f"{evaluation} holds {found[:12]}: judge it anew"
            )
        return judgement


def _check_from_dict(tree: Mapping[str, Any]) -> Check:
    difference = tree["difference"] and Difference(**tree["difference"])
    return Check(**{**tree, "difference": difference})
