"""What the gate does to candidates of known quality, over many simulated test splits."""

from dataclasses import replace

import numpy as np
import pytest
from gate_power import (
    Population,
    agreement,
    ranks_of,
    shift_for,
    simulate,
    terms_of,
    verdicts,
)

from xcflow.config import default_gate

DOCUMENTS = 8_735
NO_SHIFT = [0.0] * 4
# 99.9% of Binomial(1000, .05) lie at or below 73, and 99.9% at or above 30.
MOST, FEWEST = 73, 30


@pytest.fixture(scope="module")
def population():
    return Population.bundled()


def test_equal_models_are_promoted_at_most_at_the_stated_rate(population):
    gate = default_gate()
    assert gate.alpha == 0.05
    found = verdicts(population, 300, NO_SHIFT, replace(gate, resamples=300), trials=1_000)
    assert found["PROMOTE"] <= found["rises"]
    # The primary question alone errs just as often as it says.
    assert FEWEST <= found["rises"] <= MOST


def test_a_real_lift_of_one_point_is_promoted_with_the_stated_power(population):
    trials, stated = 150, 0.7  # docs/gate.md
    shift = shift_for(population, 0.01)
    gate = replace(default_gate(), resamples=400)
    found = verdicts(population, DOCUMENTS, [shift] * 4, gate, trials)
    slack = 3 * np.sqrt(stated * (1 - stated) / trials)
    assert found["PROMOTE"] / trials > stated - slack
    assert found["REJECT"] == 0


def test_a_model_that_gains_at_the_head_and_loses_the_tail_is_not_promoted(population):
    gate = replace(default_gate(), resamples=200, secondary=())
    lopsided = [0.5, 0.0, -0.4, 0.0]
    found = verdicts(population, DOCUMENTS, lopsided, gate, trials=20)
    assert found["PROMOTE"] == 0
    assert found["rises"] == 20
    unguarded = replace(gate, slice_metric="")
    assert verdicts(population, DOCUMENTS, lopsided, unguarded, trials=20)["PROMOTE"] == 20


def test_the_simulation_is_that_of_models_like_the_shipped_one(population):
    assert len(population.truth) == DOCUMENTS
    drawn = simulate(population, 20_000, NO_SHIFT, np.random.default_rng(0))
    assert agreement(drawn) == pytest.approx(0.8, abs=0.02)
    figures = {m: drawn.ratio("champion", m).value for m in ("P@1", "P@5", "R@10", "R@100")}
    quick = {"P@1": 0.49, "P@5": 0.24, "R@10": 0.55, "R@100": 0.78}
    assert figures == pytest.approx(quick, abs=0.05)


def test_the_simulated_terms_are_those_of_a_ranking(population):
    """Written out as lists of labels, the simulated ranks are measured the same."""
    measure, truth = population.measure, population.truth.slice(0, 300)
    ranks = ranks_of(truth, np.random.default_rng(0).normal(1.0, 2.0, len(truth.data)))
    listed = np.full((len(truth), measure.depth), -1)
    shown = ranks < measure.depth
    listed[truth.row_ids()[shown], ranks[shown]] = truth.data[shown]
    assert (listed >= 0).sum() == shown.sum()  # no two pairs of a document share a rank
    expected = measure.ranking(listed, truth)
    found = terms_of(truth, ranks, measure.slice_of[truth.data], measure)
    np.testing.assert_array_equal(found.hits, expected.hits)
    np.testing.assert_allclose(found.psp, expected.psp, rtol=1e-5)
    np.testing.assert_allclose(found.ndcg, expected.ndcg, rtol=1e-5)
