"""Whoever else asks, an answer is the same, and that of the predictor."""

import numpy as np
import pytest

from xcflow.serving.answers import best_labels
from xcflow.serving.filtering import Filter
from xcflow.serving.http.answering import Question, answer
from xcflow.serving.http.models import Served
from xcflow.serving.predictor import Predictor
from xcflow.topk import NO_LABEL

TEXTS = ["amber goat x", "black heron", "coral", "denim ibis w", "zebra", "", "中 red"]


@pytest.fixture(scope="module")
def served(predictor):
    return Served(predictor, "xcflow", "1", predictor.manifest.digest)


@pytest.fixture(scope="module")
def other(other_bundle):
    predictor = Predictor.load(other_bundle)
    return Served(predictor, "xcflow", "2", predictor.manifest.digest)


def test_an_answer_is_that_of_the_predictor(served, predictor):
    answers = answer([Question(text, served, 3) for text in TEXTS])
    top = predictor.top_k(TEXTS, 3)
    for found, rows, scores in zip(answers, top.labels, top.scores, strict=True):
        assert found.model is served
        assert [x["id"] for x in found.labels] == predictor.label_ids.take(rows[rows != NO_LABEL])
        assert [x["score"] for x in found.labels] == pytest.approx(
            scores[: len(found.labels)], abs=1e-5
        )
        likely = predictor.probabilities(scores[: len(found.labels)])
        assert [x["probability"] for x in found.labels] == pytest.approx(likely, abs=1e-4)


def questions(served, other):
    rng = np.random.default_rng(5)
    for i in range(40):
        yield Question(
            TEXTS[i % len(TEXTS)],
            (served, other)[int(rng.integers(2))],
            int(rng.integers(1, 30)),
            float(rng.choice([0.0, 0.3])),
            (None, ("l1", "l3", "l11", "unknown"), ())[int(rng.integers(3))],
            ((), ("l0", "unknown"))[int(rng.integers(2))],
            bool(rng.integers(2)),
        )


def test_company_changes_no_answer(served, other):
    asked = list(questions(served, other))
    together = answer(asked)
    for question, found in zip(asked, together, strict=True):
        alone = answer([question])[0]
        assert found.model is alone.model is question.model
        assert [x["id"] for x in found.labels] == [x["id"] for x in alone.labels]
        for one, two in zip(found.labels, alone.labels, strict=True):
            assert (one["score"], one["probability"]) == (two["score"], two["probability"])
            assert ("why" in one) == question.explain


def test_filters_and_the_least_probability(served, predictor):
    only = ("l11", "l3", "unknown")
    (found,) = answer([Question("amber goat", served, 5, only=only)])
    rows = predictor.label_ids.find(["l11", "l3"])
    top = predictor.top_k_among(["amber goat"], 5, [Filter(np.unique(rows))])
    assert [x["id"] for x in found.labels] == predictor.label_ids.take(top.labels[0][:2])
    (none,) = answer([Question("amber goat", served, 5, only=())])
    assert none.labels == []
    (best, *_), *_ = (each.labels for each in answer([Question("amber goat", served, 5)]))
    (rest,) = answer([Question("amber goat", served, 5, without=(best["id"],))])
    assert best["id"] not in [x["id"] for x in rest.labels]
    (sure,) = answer(
        [Question("amber goat", served, 12, min_probability=best["probability"] - 0.001)]
    )
    assert all(x["probability"] >= best["probability"] - 0.001 for x in sure.labels)


@pytest.mark.parametrize("off", [-4e-5, 0.0, 4e-5])
def test_no_label_is_shown_with_less_than_the_least_probability(served, predictor, off):
    (everything,) = answer([Question("amber goat", served, 12)])
    for label in everything.labels:
        least = min(max(label["probability"] + off, 0.0), 1.0)
        (found,) = answer([Question("amber goat", served, 12, min_probability=least)])
        expected = [x for x in everything.labels if x["probability"] >= least]
        assert found.labels == expected
        (batch,) = best_labels(predictor, ["amber goat"], 12, least)
        assert [x["id"] for x in batch] == [x["id"] for x in expected]


def test_an_explanation_adds_up(served):
    (found,) = answer([Question("amber goat", served, 2, explain=True)])
    for label in found.labels:
        why = label["why"]
        assert set(why["voices"]) >= {"encoder", "classifier"}
        assert why["documents"] >= 0
        assert all(0 <= each["similarity"] <= 1.0001 for each in why["evidence"])
