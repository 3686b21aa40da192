"""Curves from scores to probabilities."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.config import CalibrationConfig
from xcflow.ragged import Ragged
from xcflow.retrieval.calibration import Calibrator, fit_calibrator, fit_curve


def pairs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, the probability that each is right, and whether it is."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(3.0, 2.0, count)
    probability = 1.0 / (1.0 + np.exp(-1.5 * (scores - 4.0)))
    return scores, probability, rng.random(count) < probability


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_the_true_probabilities_are_found(method):
    curve = fit_curve(*pairs(20_000)[::2], CalibrationConfig(method=method))
    scores, probability, _ = pairs(5_000, seed=1)
    assert curve.method == method
    assert np.abs(curve(scores) - probability).mean() < 0.02


def test_platt_is_the_best_sigmoid_for_its_targets():
    scores, _, right = pairs(60)
    curve = fit_curve(scores, right, CalibrationConfig(method="platt"))
    high, low = (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2)
    target = np.where(right, high, low)

    def loss(a: float, b: float) -> float:
        p = 1.0 / (1.0 + np.exp(-(a * scores + b)))
        return float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).sum())

    p = curve(scores).astype(np.float64)
    found = float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).sum())
    grid = [loss(a, b) for a in np.linspace(0.1, 4, 80) for b in np.linspace(-15, 5, 160)]
    assert found <= min(grid) + 1e-3


def test_scarce_data_gets_a_sigmoid():
    config = CalibrationConfig(min_right=50)
    scores, _, right = pairs(1_000)
    assert fit_curve(scores, right, config).method == "isotonic"
    few = np.flatnonzero(right)[:49]
    rest = np.flatnonzero(~right)
    chosen = np.concatenate([few, rest])
    assert fit_curve(scores[chosen], right[chosen], config).method == "platt"


@given(
    st.lists(st.tuples(st.floats(-20, 20), st.booleans()), max_size=30),
    st.sampled_from(["auto", "isotonic", "platt"]),
)
def test_every_curve_rises_between_0_and_1(data, method):
    scores = np.array([score for score, _ in data], np.float64)
    right = np.array([is_right for _, is_right in data], np.bool_)
    curve = fit_curve(scores, right, CalibrationConfig(method=method, min_right=5))
    found = curve(np.linspace(-30, 30, 100))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert (np.diff(found) >= 0).all()


def test_scores_that_say_nothing():
    right = np.array([True, False, False, False] * 5)
    for scores in (np.zeros(20), np.where(right, -1.0, 1.0)):
        curve = fit_curve(scores, right, CalibrationConfig(method="platt"))
        assert curve(np.array([-9.0, 0.0, 9.0])) == pytest.approx(6 / 22)


def test_only_the_best_labels_of_a_document_count():
    proposals = Ragged.from_rows([[3, 5, 8], [], [2, 4]])
    truth = Ragged.from_rows([[5, 9], [1], [2]])
    scores = np.array([0.3, 0.9, 0.1, 0.4, 0.5], np.float32)
    config = CalibrationConfig(method="isotonic", depth=2)
    found = fit_calibrator(scores, proposals, truth, config)
    shown, right = np.float32([0.9, 0.3, 0.5, 0.4]), np.array([True, False, False, True])
    expected = fit_curve(shown.astype(np.float64), right, config)
    np.testing.assert_array_equal(found(scores), expected(scores))


def test_no_label_has_no_probability_and_files_keep_the_curve():
    curve = fit_curve(*pairs(2_000)[::2], CalibrationConfig())
    assert curve(np.float32([-np.inf])) == 0.0
    again = Calibrator.from_dict(json.loads(json.dumps(curve.to_dict())))
    scores = np.linspace(-5, 10, 50).reshape(5, 10)
    np.testing.assert_array_equal(again(scores), curve(scores))
    assert again.method == curve.method
