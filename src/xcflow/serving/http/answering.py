"""Questions of a batch to the model, and its answers as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xcflow.serving.answers import PROBABILITY_DIGITS, SCORE_DIGITS, as_shown
from xcflow.serving.explanation import Explanation
from xcflow.serving.filtering import Filter
from xcflow.serving.http.models import Served
from xcflow.serving.predictor import Predictor
from xcflow.topk import NO_LABEL

_SHORT_TEXT = 1_000  # characters


class Question(NamedTuple):
    """A text to answer.

    Attributes:
        text: The text.
        model: Who is asked: the same for all texts of a request, even if another takes its place.
        k: At most so many labels.
        min_probability: Labels that are less likely right are left out.
        only: Ids of the labels that may answer; None for all. Unknown ids are passed over.
        without: Ids of labels that may not.
        explain: Whether each label comes with its explanation.
    """

    text: str
    model: Served
    k: int = 10
    min_probability: float = 0.0
    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    explain: bool = False


class Answer(NamedTuple):
    """The labels of a text, and who says so.

    Attributes:
        labels: ``{"id", "text", "score", "probability"}``, best first, and with explanations
            ``"why"``.
        model: The model that answered.
    """

    labels: list[dict[str, Any]]
    model: Served


def is_light(question: Question) -> bool:
    """Whether a question takes no longer than most: a short text, and few labels of it."""
    few = question.k <= question.model.predictor.shortlist and question.only is None
    return few and not question.explain and len(question.text) <= _SHORT_TEXT


def answer(questions: Sequence[Question]) -> list[Answer]:
    """Answers in the order of the questions, each by the model that it asks."""
    answers: dict[int, Answer] = {}
    for model in {question.model for question in questions}:
        places = [i for i, each in enumerate(questions) if each.model is model]
        found = _answer(model, [questions[i] for i in places])
        answers |= zip(places, found, strict=True)
    return [answers[i] for i in range(len(questions))]


def _answer(model: Served, questions: Sequence[Question]) -> list[Answer]:
    """Answers in the order of the questions, whatever their number of labels."""
    predictor = model.predictor
    answers: dict[int, Answer] = {}
    # How deep the voices look depends on k alone, so that company changes no answer.
    depths = [max(each.k + 1, predictor.shortlist) for each in questions]
    for depth in set(depths):
        places = [i for i, each in enumerate(depths) if each == depth]
        for place, labels in zip(
            places, _labels(predictor, [questions[i] for i in places]), strict=True
        ):
            answers[place] = Answer(labels, model)
    return [answers[i] for i in range(len(questions))]


def _labels(predictor: Predictor, questions: Sequence[Question]) -> list[list[dict[str, Any]]]:
    texts, k = [each.text for each in questions], max(each.k for each in questions)
    if any(each.only is not None or each.without for each in questions):
        top = predictor.top_k_among(texts, k, [_filter(predictor, each) for each in questions])
    else:
        top = predictor.top_k(texts, k)
    shown_scores = as_shown(top.scores, SCORE_DIGITS)
    likely = as_shown(predictor.probabilities(top.scores), PROBABILITY_DIGITS)
    answers = []
    for question, rows, scores, probabilities in zip(
        questions, top.labels, shown_scores, likely, strict=True
    ):
        shown = (rows != NO_LABEL) & (probabilities >= question.min_probability)
        rows = rows[shown][: question.k]
        parts = (
            predictor.label_ids.take(rows),
            predictor.label_texts.take(rows),
            scores[shown][: question.k].tolist(),
            probabilities[shown][: question.k].tolist(),
        )
        labels: list[dict[str, Any]] = [
            {
                "id": label,
                "text": text,
                "score": score,
                "probability": probability,
            }
            for label, text, score, probability in zip(*parts, strict=True)
        ]
        if question.explain:
            for label, why in zip(labels, predictor.explain(question.text, rows), strict=True):
                label["why"] = _why(predictor, why)
        answers.append(labels)
    return answers


def _filter(predictor: Predictor, question: Question) -> Filter:
    only = None if question.only is None else _rows(predictor, question.only)
    return Filter(only, _rows(predictor, question.without))


def _rows(predictor: Predictor, ids: Sequence[str]) -> NDArray[np.int64]:
    rows = np.unique(predictor.label_ids.find(ids))
    return rows[rows >= 0]


def _why(predictor: Predictor, why: Explanation) -> dict[str, Any]:
    siblings = np.array(why.siblings, np.int64)
    names = zip(
        predictor.label_ids.take(siblings), predictor.label_texts.take(siblings), strict=True
    )
    return {
        "voices": {
            voice: {
                "score": round(said.score, PROBABILITY_DIGITS),
                "contribution": round(said.contribution, PROBABILITY_DIGITS),
            }
            for voice, said in why.voices.items()
        },
        "documents": why.documents,
        "siblings": [{"id": label, "text": text} for label, text in names],
        "siblings_share_vector": why.shares_vector,
        "evidence": [
            {"text": text, "similarity": round(cosine, PROBABILITY_DIGITS)}
            for text, cosine in why.evidence
        ],
    }
