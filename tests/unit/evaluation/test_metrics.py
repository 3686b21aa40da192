"""The metrics against hand-computed values and against an obvious, slow reference."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.config import EvaluationConfig
from xcflow.evaluation.metrics import (
    Measure,
    contains,
    drop_filtered,
    inverse_propensity,
    without,
)
from xcflow.evaluation.ratios import MetricName, metrics_of, ratio, slices_present, summarise
from xcflow.evaluation.slices import SLICES
from xcflow.ragged import Ragged
from xcflow.topk import NO_LABEL, TopK


def slow_metric(kind, k, predictions, truth, gains, chosen=None):
    """One metric with Python loops, straight from its definition."""
    chosen = set(range(len(gains))) if chosen is None else chosen
    numerator, denominator = 0.0, 0.0
    for predicted, true in zip(predictions, truth, strict=True):
        if not true:
            continue
        first = [label for label in predicted if label >= 0][:k]
        hits = [label in true and label in chosen for label in first]
        if kind == "P":
            numerator += sum(hits) / k
            denominator += 1
        elif kind == "R":
            own = [label for label in true if label in chosen]
            if own:
                numerator += sum(hits) / len(own)
                denominator += 1
        elif kind == "nDCG":
            ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(true))))
            numerator += sum(1 / math.log2(j + 2) for j, hit in enumerate(hits) if hit) / ideal
            denominator += 1
        else:
            numerator += sum(gains[label] for label, hit in zip(first, hits, strict=True) if hit)
            denominator += sum(sorted((gains[label] for label in true), reverse=True)[:k])
    return numerator / denominator if denominator else math.nan


@st.composite
def cases(draw):
    size = draw(st.integers(1, 12))
    label = st.integers(0, size - 1)
    documents = draw(st.integers(1, 6))
    rows = st.lists(label, unique=True, max_size=size)
    truth = [sorted(draw(rows)) for _ in range(documents)]
    predictions = [draw(rows) for _ in range(documents)]
    counts = draw(st.lists(st.integers(0, 50), min_size=size, max_size=size))
    ks = tuple(sorted(draw(st.sets(st.integers(1, 15), min_size=1, max_size=4))))
    width = draw(st.integers(0, size))
    return size, truth, predictions, counts, ks, width


def padded(predictions, width):
    return np.array([(row + [NO_LABEL] * width)[:width] for row in predictions], np.int32).reshape(
        len(predictions), width
    )


@given(cases())
def test_every_metric_equals_the_slow_reference(case):
    _, truth, predictions, counts, ks, width = case
    counts = np.array(counts)
    measure = Measure.of_training(counts, 1000, EvaluationConfig(ks=ks))
    labels = padded(predictions, width)
    cut = [row[:width] for row in predictions]

    figures = metrics_of(labels, Ragged.from_rows(truth), measure)

    for name, value in figures.items():
        parsed = MetricName.parse(name)
        expected = slow_metric(parsed.kind, parsed.k, cut, truth, measure.gains)
        assert value == pytest.approx(expected, rel=1e-5, nan_ok=True), name


@given(cases())
def test_slices_equal_the_slow_reference_and_add_up(case):
    _, truth, predictions, counts, ks, width = case
    measure = Measure.of_training(np.array(counts), 1000, EvaluationConfig(ks=ks))
    rows = [i for i, labels in enumerate(truth) if labels]
    if not rows:
        return
    truth = [truth[i] for i in rows]
    predictions = [predictions[i][:width] for i in rows]
    ragged = Ragged.from_rows(truth)
    truth_part = measure.truth(ragged)
    part = measure.ranking(padded(predictions, width), ragged)
    sums = dict.fromkeys(summarise(truth_part, part, ks), 0.0)

    for index, name in enumerate(SLICES):
        chosen = set(np.flatnonzero(measure.slice_of == index).tolist())
        for metric, value in summarise(truth_part, part, ks, name).items():
            parsed = MetricName.parse(metric)
            expected = slow_metric(parsed.kind, parsed.k, predictions, truth, measure.gains, chosen)
            assert value == pytest.approx(expected, rel=1e-5, nan_ok=True), (name, metric)
            sums[metric] += value
        present = any(label in chosen for row in truth for label in row)
        assert present == (name in slices_present(truth_part))

    for metric, value in summarise(truth_part, part, ks).items():
        if metric.startswith(("P@", "PSP@")):
            assert sums[metric] == pytest.approx(value, rel=1e-5)


@given(cases())
def test_blocks_add_up_to_the_whole(case):
    _, truth, predictions, counts, ks, width = case
    measure = Measure.of_training(np.array(counts), 1000, EvaluationConfig(ks=ks))
    ragged, labels = Ragged.from_rows(truth), padded(predictions, width)
    whole = measure.ranking(labels, ragged)
    for start in range(len(truth)):
        block = measure.ranking(labels[start : start + 1], ragged.slice(start, start + 1))
        for one, all_ in zip(block, whole, strict=True):
            np.testing.assert_array_equal(one[0], all_[start])


@given(cases(), st.data())
def test_filtered_pairs_leave_predictions_and_truth(case, data):
    size, truth, predictions, *_ = case
    label = st.integers(0, size - 1)
    filtered = [data.draw(st.lists(label, unique=True)) for _ in truth]
    removed = Ragged.from_rows(filtered)
    k = data.draw(st.integers(1, size))
    top = TopK(
        padded(predictions, size), np.tile(-np.arange(size, dtype=np.float32), (len(truth), 1))
    )

    best = drop_filtered(top, removed, size, k)
    left = without(Ragged.from_rows(truth), removed)

    for i in range(len(truth)):
        expected = [label for label in predictions[i] if label not in filtered[i]][:k]
        got = best.labels[i]
        assert got[got >= 0].tolist() == expected
        assert (got[len(expected) :] == NO_LABEL).all()
        assert np.isneginf(best.scores[i, len(expected) :]).all()
        places = [predictions[i].index(label) for label in expected]
        assert best.scores[i, : len(expected)].tolist() == [-float(p) for p in places]
        assert left[i].tolist() == [label for label in truth[i] if label not in filtered[i]]


def test_by_hand():
    # Two documents; label 2 is found at rank 2 of the first, label 0 at rank 1 of the second.
    truth = Ragged.from_rows([[1, 2], [0]])
    labels = np.array([[3, 2, 0], [0, 1, 2]])
    gains = np.array([1.0, 4.0, 2.0, 8.0])
    measure = Measure((1, 2, 3), gains, np.zeros(4, np.int8))
    found = metrics_of(labels, truth, measure)
    expected = {
        "P@1": 0.5,
        "P@2": (1 / 2 + 1 / 2) / 2,
        "P@3": (1 / 3 + 1 / 3) / 2,
        "nDCG@1": 0.5,
        "nDCG@2": (0.6309298 / (1 + 0.6309298) + 1) / 2,
        "PSP@1": 1 / (4 + 1),
        "PSP@2": (2 + 1) / (6 + 1),
        "R@1": (0 / 2 + 1 / 1) / 2,
        "R@3": (1 / 2 + 1 / 1) / 2,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def test_psp_is_a_ratio_of_totals_not_a_mean_of_ratios():
    truth = Ragged.from_rows([[0], [1]])
    measure = Measure((1,), np.array([1.0, 9.0]), np.zeros(2, np.int8))
    found = metrics_of(np.array([[0], [0]]), truth, measure)
    assert found["PSP@1"] == pytest.approx(1 / 10)


def test_inverse_propensity_by_hand():
    # N = e^2 makes ln N - 1 = 1, a = 1 and b = 1 make C = 2: q = 1 + 2 / (n + 1).
    documents = 7389
    scale = math.log(documents) - 1
    q = inverse_propensity(np.array([0, 1, 9]), documents, 1.0, 1.0)
    np.testing.assert_allclose(q, 1 + 2 * scale / np.array([1.0, 2.0, 10.0]))


@pytest.mark.parametrize("documents", [0, 1, 2])
def test_inverse_propensity_of_hardly_any_documents_weighs_all_labels_alike(documents):
    assert inverse_propensity(np.array([0, 1, 2]), documents, 0.55, 1.5).tolist() == [1, 1, 1]


def test_documents_without_a_label_count_for_nothing():
    measure = Measure((1,), np.ones(2), np.zeros(2, np.int8))
    truth = Ragged.from_rows([[], [1], []])
    assert metrics_of(np.array([[0], [1], [1]]), truth, measure)["R@1"] == 1.0


def test_no_document_at_all_gives_nan_not_a_crash():
    measure = Measure((1, 3), np.ones(2), np.zeros(2, np.int8))
    found = metrics_of(np.zeros((1, 2), np.int32), Ragged.from_rows([[]]), measure)
    assert all(math.isnan(value) for value in found.values())


def test_contains_ignores_missing_labels_next_to_the_last_label_of_the_row_before():
    rows = Ragged.from_rows([[4], [0]])
    assert contains(rows, np.array([[4], [-1]]), 5).tolist() == [[True], [False]]


@pytest.mark.parametrize("name", ["P@0", "P5", "F1@3", "nDCG@5/tail", "P@5/middle", "R@-1", ""])
def test_unknown_metric_names_are_refused(name):
    with pytest.raises(ValueError, match="is no metric"):
        MetricName.parse(name)


def test_metric_names_round_trip():
    for name in ("P@1", "nDCG@10", "PSP@5/head", "R@100/cold"):
        assert str(MetricName.parse(name)) == name


def test_ratio_of_recall_counts_only_documents_with_a_label_of_the_slice():
    measure = Measure((1,), np.ones(2), np.array([0, 2], np.int8))
    truth = Ragged.from_rows([[0], [0, 1]])
    part = measure.ranking(np.array([[0], [1]]), truth)
    tail = ratio(measure.truth(truth), part, MetricName("R", 1, "tail"), (1,))
    assert tail.denominator.tolist() == [0.0, 1.0]
    assert tail.value == 1.0
