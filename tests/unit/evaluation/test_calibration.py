"""Reliability and its error against counting by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xcflow.evaluation.calibration import calibration_error, calibration_facts, reliability
from xcflow.ragged import Ragged
from xcflow.topk import TopK

# Exact in single precision, as scores are kept.
SHARES = st.integers(0, 64).map(lambda i: i / 64)


def test_bins_by_hand():
    bins = reliability(
        np.array([0.05, 0.08, 0.1, 0.95, 1.0]), np.array([False, True, True, True, False])
    )
    assert [(b["low"], b["pairs"], b["right"]) for b in bins] == [
        (0.0, 2, 0.5),
        (0.1, 1, 1.0),
        (0.9, 2, 0.5),
    ]
    expected = (2 * abs(0.065 - 0.5) + abs(0.1 - 1.0) + 2 * abs(0.975 - 0.5)) / 5
    assert abs(calibration_error(bins) - expected) < 1e-12


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40))
def test_the_error_against_a_loop(data):
    expected = 0.0
    for i in range(10):
        inside = [(p, r) for p, r in data if min(int(p * 10), 9) == i]
        expected += abs(sum(p for p, _ in inside) - sum(r for _, r in inside))
    bins = reliability(
        np.array([p for p, _ in data], np.float64), np.array([r for _, r in data], np.bool_)
    )
    assert abs(calibration_error(bins) - expected / max(len(data), 1)) < 1e-9


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 9), SHARES), max_size=10),
            st.sets(st.integers(0, 9), min_size=1),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_error_at_every_depth_against_the_definition(documents):
    """The k best pairs (score, right or wrong) of all documents in ten bins of equal width."""
    top, likely = TopK.none(len(documents), 10), np.zeros((len(documents), 10))
    answers = []
    for i, (said, true) in enumerate(documents):
        ranked = sorted(dict(said).items(), key=lambda pair: -pair[1])
        answers.append([(p, label in true) for label, p in ranked])
        for j, (label, p) in enumerate(ranked):
            top.labels[i, j], top.scores[i, j], likely[i, j] = label, 8 * p - 3, p
    facts = calibration_facts(top, likely, Ragged.from_rows([sorted(y) for _, y in documents]))
    low, high = (f((p for a in answers for p, _ in a), default=0.0) for f in (min, max))
    for k in (1, 3, 5, 10):
        pooled = [pair for a in answers for pair in a[:k]]
        raw = [((p - low) / ((high - low) or 1.0), right) for p, right in pooled]
        for when, pairs in (("after", pooled), ("before", raw)):
            assert abs(facts[when][f"ECE@{k}"] - slow_error(pairs)) < 1e-9, (when, k)


def slow_error(pairs):
    bins = [[] for _ in range(10)]
    for p, right in pairs:
        bins[min(int(p * 10), 9)].append((p, right))
    total = 0.0
    for inside in filter(None, bins):
        confidence = sum(p for p, _ in inside) / len(inside)
        accuracy = sum(right for _, right in inside) / len(inside)
        total += len(inside) / len(pairs) * abs(confidence - accuracy)
    return total


def test_before_and_after_by_depth():
    top = TopK(
        np.array([[4, 2, 7], [1, -1, -1]], np.int32),
        np.array([[3.0, 2.0, 1.0], [2.0, -np.inf, -np.inf]], np.float32),
    )
    truth = Ragged.from_rows([[2, 4], [5]])
    likely = np.array([[1.0, 0.75, 0.0], [0.25, 0.0, 0.0]])
    facts = calibration_facts(top, likely, truth)
    assert list(facts["after"]) == ["ECE@1", "ECE@3"]
    # Scores 3, 2, 1 and 2 stretch to 1, .5, 0 and .5; right are the first two.
    assert facts["before"] == {"ECE@1": 0.25, "ECE@3": 0.0}
    assert facts["after"] == {"ECE@1": 0.125, "ECE@3": 0.125}
    assert [sum(b["pairs"] for b in facts["bins"][when]) for when in ("before", "after")] == [4, 4]


def test_nothing_was_predicted():
    top = TopK.none(2, 10)
    facts = calibration_facts(top, np.zeros((2, 10)), Ragged.from_rows([[1], [2]]))
    assert facts["after"]["ECE@10"] == 0.0
    assert facts["bins"] == {"before": [], "after": []}
