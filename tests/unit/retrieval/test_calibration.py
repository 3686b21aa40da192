"""Curves from scores to probabilities."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xcflow.config import CalibrationConfig
from xcflow.ragged import Ragged
from xcflow.retrieval.calibration import Calibrator, fit_calibrator
from xcflow.retrieval.calibration import fit_curve as curve_of
from xcflow.retrieval.ranking import top_of_rows


def fit_curve(scores: np.ndarray, right: np.ndarray, config: CalibrationConfig) -> Calibrator:
    return Calibrator((1.0, 0.0), curve_of(scores, right, config))


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
    assert curve.curve.method == method
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
    assert fit_curve(scores, right, config).curve.method == "isotonic"
    few = np.flatnonzero(right)[:49]
    rest = np.flatnonzero(~right)
    chosen = np.concatenate([few, rest])
    assert fit_curve(scores[chosen], right[chosen], config).curve.method == "platt"


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


class Lists:
    """Documents with 30 proposals each; offsets differ by document, so raw scores mislead."""

    def __init__(self, documents: int, true: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.proposals = Ragged.from_rows([range(30)] * documents)
        utilities = rng.gumbel(0.0, 1.0, (documents, 30)) + rng.normal(0.0, 2.0, (documents, 30))
        believed = utilities - rng.gumbel(0.0, 1.0, (documents, 30))
        chosen = np.argsort(-utilities, axis=1)[:, :true]
        self.truth = Ragged.from_rows(np.sort(chosen, axis=1))
        offsets = rng.normal(0.0, 3.0, (documents, 1))
        self.scores = (believed + offsets).astype(np.float32).ravel()

    def brier(self, found: Calibrator) -> float:
        shared = found.comparable(self.scores, self.proposals)
        top = top_of_rows(self.proposals, shared, 10)
        right = top.rows().also_in(self.truth)
        return float(np.square(found(top.scores).ravel() - right).mean())


@pytest.mark.parametrize("true", [1, 3])
def test_scores_of_documents_become_comparable(true):
    lists, others = Lists(600, true), Lists(600, true, seed=1)
    found = fit_calibrator(lists.scores, lists.proposals, lists.truth, CalibrationConfig())
    raw = top_of_rows(lists.proposals, lists.scores, 10)
    right = raw.rows().also_in(lists.truth)
    plain = fit_curve(raw.scores.ravel().astype(np.float64), right, CalibrationConfig())
    assert others.brier(found) < others.brier(plain) - 0.005


def test_nothing_is_certain():
    scores, _, right = pairs(2_000)
    likely = fit_curve(scores, right, CalibrationConfig())(np.array([-100.0, 100.0]))
    assert 0.0 < likely[0] < 0.01
    assert 0.99 < likely[1] < 1.0


def test_no_ranking_changes():
    lists = Lists(50, 2)
    found = fit_calibrator(lists.scores, lists.proposals, lists.truth, CalibrationConfig())
    shared = found.comparable(lists.scores, lists.proposals)
    before = top_of_rows(lists.proposals, lists.scores, 30)
    after = top_of_rows(lists.proposals, shared, 30)
    np.testing.assert_array_equal(before.labels, after.labels)
    assert (np.diff(found(after.scores), axis=1) <= 0).all()


def test_only_the_best_labels_of_a_document_count():
    lists = Lists(120, 3)
    config = CalibrationConfig(depth=3)
    shown = top_of_rows(lists.proposals, lists.scores, 3).rows()
    # What is true beyond the third place might as well be wrong.
    kept = lists.truth.keep(lists.truth.also_in(shown))
    some = kept.lengths > 0
    rows = np.flatnonzero(some)
    scores, proposals = lists.scores[some[lists.proposals.row_ids()]], lists.proposals.take(rows)
    assert len(kept.take(rows).data) < len(lists.truth.take(rows).data)
    found = fit_calibrator(scores, proposals, lists.truth.take(rows), config)
    again = fit_calibrator(scores, proposals, kept.take(rows), config)
    assert found.to_dict() == again.to_dict()


def test_a_document_without_a_true_label_says_nothing():
    lists, config = Lists(120, 1), CalibrationConfig()
    asked = np.arange(120) % 3 > 0
    scores, proposals = lists.scores[asked[lists.proposals.row_ids()]], lists.proposals
    rows = np.flatnonzero(asked)
    found = fit_calibrator(scores, proposals.take(rows), lists.truth.take(rows), config)
    truth = lists.truth.keep(asked[lists.truth.row_ids()])
    again = fit_calibrator(lists.scores, proposals, truth, config)
    assert found.to_dict() == again.to_dict()


@pytest.mark.parametrize("rows", [[], [[]], [[4]], [[1, 2], [], [7]]])
def test_little_or_nothing_was_proposed(rows):
    proposals = Ragged.from_rows(rows)
    scores = np.arange(len(proposals.data), dtype=np.float32)
    truth = Ragged.from_rows([[2]] * len(rows))
    found = fit_calibrator(scores, proposals, truth, CalibrationConfig())
    shared = found.comparable(scores, proposals)
    assert np.isfinite(shared).all()
    assert np.isfinite(found(shared)).all()


def test_no_label_has_no_probability_and_files_keep_the_curve():
    curve = fit_curve(*pairs(2_000)[::2], CalibrationConfig())
    assert curve(np.float32([-np.inf])) == 0.0
    again = Calibrator.from_dict(json.loads(json.dumps(curve.to_dict())))
    scores = np.linspace(-5, 10, 50).reshape(5, 10)
    np.testing.assert_array_equal(again(scores), curve(scores))
    assert again.curve.method == curve.curve.method
