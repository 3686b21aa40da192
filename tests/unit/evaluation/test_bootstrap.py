"""The paired bootstrap against a slow one, against theory, and at its edges."""

import math

import numpy as np
import pytest

from xcflow.evaluation import bootstrap
from xcflow.evaluation.bootstrap import paired_bootstrap
from xcflow.evaluation.ratios import Ratio


def ratio(numerator, denominator=None):
    numerator = np.asarray(numerator, np.float64)
    return Ratio(numerator, np.ones_like(numerator) if denominator is None else denominator)


def run(a, b, **changes):
    return paired_bootstrap(a, b, **({"resamples": 2000, "alpha": 0.05, "seed": 0} | changes))


def test_equals_a_slow_bootstrap_of_a_ratio():
    random = np.random.default_rng(0)
    total = random.uniform(0.5, 4, 30)
    a, b = (ratio(random.uniform(0, total), total) for _ in range(2))
    draws = np.random.default_rng(7).integers(30, size=(500, 30), dtype=np.int64)
    slow = [
        a.numerator[d].sum() / total[d].sum() - b.numerator[d].sum() / total[d].sum() for d in draws
    ]
    found = run([a], [b], resamples=500, seed=7)[0]
    assert found.difference == pytest.approx(a.value - b.value)
    assert found.low == pytest.approx(np.quantile(slow, 0.05))
    assert found.high == pytest.approx(np.quantile(slow, 0.95))
    assert found.p_better == pytest.approx((sum(s <= 0 for s in slow) + 1) / 501)
    assert found.p_worse == pytest.approx((sum(s >= 0 for s in slow) + 1) / 501)


def test_bounds_agree_with_the_normal_approximation():
    random = np.random.default_rng(1)
    a, b = random.random(5000) < 0.5, random.random(5000) < 0.45
    found = run([ratio(a)], [ratio(b)])[0]
    error = (a.astype(float) - b).std() / math.sqrt(5000)
    assert found.low == pytest.approx(a.mean() - b.mean() - 1.645 * error, abs=0.1 * error)
    assert found.high == pytest.approx(a.mean() - b.mean() + 1.645 * error, abs=0.1 * error)


def test_all_metrics_share_their_draws_in_blocks_of_any_size(monkeypatch):
    random = np.random.default_rng(2)
    a, b = ([ratio(random.random(40)) for _ in range(3)] for _ in range(2))
    together = run(a, b)
    alone = [run([x], [y])[0] for x, y in zip(a, b, strict=True)]
    monkeypatch.setattr(bootstrap, "BLOCK_CELLS", 333)
    in_blocks = run(a, b)
    for one, other, third in zip(together, alone, in_blocks, strict=True):
        assert one.low == pytest.approx(other.low) == pytest.approx(third.low)
        assert one.p_better == other.p_better == third.p_better


def test_sides_change_when_the_models_do():
    random = np.random.default_rng(3)
    a, b = ratio(random.random(50)), ratio(random.random(50))
    there, back = run([a], [b])[0], run([b], [a])[0]
    assert there.difference == -back.difference
    assert there.low == pytest.approx(-back.high)
    assert there.p_better == pytest.approx(back.p_worse)


def test_equal_models_differ_by_nothing():
    same = ratio([0.0, 1.0, 1.0])
    found = run([same], [same])[0]
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.p_better == found.p_worse == 1.0


def test_one_document_that_counts_is_enough_and_none_gives_nan():
    some = np.array([0.0] * 9 + [1.0])
    found = run([ratio(some, some)], [ratio(np.zeros(10), some)])[0]
    assert (found.low, found.high) == (1.0, 1.0)
    nothing = ratio(np.zeros(10), np.zeros(10))
    assert math.isnan(run([nothing], [nothing])[0].low)


def test_no_metric_no_result():
    assert run([], []) == []


def test_equal_models_are_found_better_at_about_the_stated_rate():
    """Two models of the same quality on fresh documents, many times over."""
    random = np.random.default_rng(4)
    trials, better = 400, 0
    for trial in range(trials):
        a, b = random.random(300) < 0.4, random.random(300) < 0.4
        better += run([ratio(a)], [ratio(b)], resamples=200, seed=trial)[0].low > 0
    assert 0.02 <= better / trials <= 0.085  # 0.05 and three standard errors
