"""Answers as everybody outside gets them: label ids with rounded scores and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from xcflow.serving.predictor import Predictor
from xcflow.topk import NO_LABEL

SCORE_DIGITS = 6
PROBABILITY_DIGITS = 4


class Label(TypedDict):
    """One label of an answer.

    Attributes:
        id: Its stable id.
        score: What it is ranked by; only comparable within one answer.
        probability: How likely it is right, in [0, 1].
    """

    id: str
    score: float
    probability: float


def best_labels(
    predictor: Predictor, texts: Sequence[str], k: int, min_probability: float = 0.0
) -> list[list[Label]]:
    """For each text its best labels, best first.

    Args:
        predictor: The model.
        texts: The texts.
        k: At most so many labels for each.
        min_probability: Labels that are less likely right are left out.

    Raises:
        DataError: A text that is none.
        ValueError: ``k`` is not positive.
    """
    top = predictor.top_k(list(texts), k)
    # What is left out is told by what is shown: no label comes with less than was asked for.
    likely = as_shown(predictor.probabilities(top.scores), PROBABILITY_DIGITS)
    kept = (top.labels != NO_LABEL) & (likely >= min_probability)
    ids = predictor.label_ids.take(top.labels[kept])
    scores = as_shown(top.scores[kept], SCORE_DIGITS)
    columns = zip(ids, scores.tolist(), likely[kept].tolist(), strict=True)
    labels = (
        Label(id=label, score=score, probability=probability)
        for label, score, probability in columns
    )
    return [list(islice(labels, count)) for count in kept.sum(axis=1).tolist()]


def as_shown(values: NDArray[np.float32], digits: int) -> NDArray[np.float64]:
    """Scores or probabilities, rounded."""
    return values.astype(np.float64).round(digits)
