"""Reliability and its error against counting by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xcflow.evaluation.calibration import calibration_error, calibration_facts, reliability
from xcflow.ragged import Ragged
from xcflow.topk import TopK


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
    assert sum(b["pairs"] for b in facts["bins"]) == 4


def test_nothing_was_predicted():
    top = TopK.none(2, 10)
    facts = calibration_facts(top, np.zeros((2, 10)), Ragged.from_rows([[1], [2]]))
    assert facts["after"]["ECE@10"] == 0.0
    assert facts["bins"] == []
