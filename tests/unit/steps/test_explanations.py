"""Filters and explanations of a model that the steps made."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.retrieval.fusion import FEATURES, VOICES, Fusion
from xcflow.serving.explanation import contributions
from xcflow.serving.filtering import Filter
from xcflow.serving.predictor import Predictor
from xcflow.topk import NO_LABEL

TEXTS = ["amber goat w", "koala", "ebony ibis y x"]


@pytest.fixture(scope="module")
def predictor(model: Any) -> Predictor:
    return model.predictor()


def shown(labels: np.ndarray) -> list[int]:
    return labels[labels != NO_LABEL].tolist()


def test_filters_leave_the_order_of_what_passes(predictor: Predictor):
    size = len(predictor.label_ids)
    whole = predictor.top_k(TEXTS, size)
    filters = [
        Filter(),
        Filter(only=np.array([1, 3, 8])),
        Filter(without=np.array([4, 8]), only=np.array([2, 4, 8])),
    ]
    found = predictor.top_k_among(TEXTS, size, filters)
    assert shown(found.labels[0]) == shown(whole.labels[0])
    assert shown(found.labels[1]) == [x for x in shown(whole.labels[1]) if x in (1, 3, 8)]
    assert shown(found.labels[2]) == [2]


def test_labels_that_no_voice_named_are_judged_where_a_filter_names_them(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
):
    whole = predictor.top_k(TEXTS, len(predictor.label_ids))
    last = shown(whole.labels[0])[-1]
    monkeypatch.setitem(predictor._settings, "shortlist", 1)
    unnamed = [row for row in range(12) if row not in shown(predictor.top_k(TEXTS, 1).labels)]
    assert unnamed
    only = np.array(sorted({last, *unnamed}))
    found = predictor.top_k_among(TEXTS, len(only), [Filter(only=only)] * 3)
    assert all(sorted(shown(row)) == only.tolist() for row in found.labels)


def test_an_explanation_adds_up(predictor: Predictor):
    top = predictor.top_k(["amber goat w"], 3)
    rows = np.array(shown(top.labels[0]))
    for row, why in zip(rows, predictor.explain("amber goat w", rows), strict=True):
        assert why.label == row
        assert tuple(why.voices) == VOICES
        assert row not in why.siblings
        assert len(set(why.siblings)) == len(why.siblings) > 0
        assert all(text for text, _ in why.evidence)
        cosines = [cosine for _, cosine in why.evidence]
        assert cosines == sorted(cosines, reverse=True)
        named = predictor.label_texts[int(row)]
        assert bool(why.documents) == bool(why.evidence)
        assert all(named in text for text, _ in why.evidence)


def test_a_label_without_documents_has_no_evidence(predictor: Predictor):
    zebra = int(predictor.label_texts.find(["zebra"])[0])
    why = predictor.explain("zebra", np.array([zebra]))[0]
    assert why.documents == 0
    assert why.evidence == []
    assert why.voices["words"].score == pytest.approx(1.0, abs=1e-5)


@given(st.integers(0, 99), st.integers(1, 4))
def test_contributions_are_shapley_values(seed: int, hidden: int):
    rng = np.random.default_rng(seed)
    features, count = rng.standard_normal((9, len(FEATURES))).astype(np.float32), len(FEATURES)
    fusion = Fusion(
        *rng.uniform(0.5, 1, (2, count)).astype(np.float32),
        rng.standard_normal((count, hidden)).astype(np.float32),
        *rng.standard_normal((2, hidden)).astype(np.float32),
        rng.standard_normal(count).astype(np.float32),
    )
    rows = np.array([4, 0])
    shares = contributions(fusion, features, rows)
    average = features[rows].copy()
    voiced = [i for i, name in enumerate(FEATURES) if name != "log_count"]
    average[:, voiced] = features.mean(axis=0)[voiced]
    expected = fusion.score(features[rows]) - fusion.score(average)
    np.testing.assert_allclose(sum(shares.values()), expected, atol=1e-4)
    # A voice whose features are all at their mean adds nothing.
    features[:, FEATURES.index("words")] = 0.25
    np.testing.assert_allclose(contributions(fusion, features, rows)["words"], 0.0, atol=1e-5)
