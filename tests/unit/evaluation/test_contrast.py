"""A run against the reference: what is said, and what cannot be."""

import numpy as np
import pytest

from xcflow.errors import ArtifactError
from xcflow.evaluation.contrast import Run, Setting, contrast
from xcflow.evaluation.examples import Answers, Flips

LABELS = ["a", "b", "c", "d"]
TEST = [[0, 1], [2], [3], [0]]
TEXTS = [f"text of test{i}" for i in range(len(TEST))]


def answering(scripted, *answers):
    return scripted(LABELS, dict(zip(TEXTS, map(list, answers), strict=True)))


@pytest.fixture
def runs(make_dataset, scripted, evaluated):
    """Two runs of four documents: better by two labels, worse by one, then as good twice."""
    dataset = make_dataset(LABELS, [[0], [0], [1], [2], [3]], TEST)
    old = answering(scripted, "cd", "ca", "ad", "bc")
    new = answering(scripted, "ab", "ab", "da", "cb")
    settings = {"run.seed": "1", "clustering.clusters": "0", "old.key": "x"}
    return (
        Run("old", evaluated(dataset, old, ks=(1, 2)), settings),
        Run("new", evaluated(dataset, new, ks=(1, 2)), {**settings, "run.seed": "2"}),
    )


def test_a_positive_difference_means_that_the_other_run_is_better(runs):
    found = contrast(*runs)
    p2 = found.comparison.differences["P@2"]
    assert (p2.b, p2.a, p2.difference) == (0.25, 0.375, 0.125)
    assert contrast(*runs[::-1]).comparison.differences["P@2"].difference == -0.125
    assert "R@2/head" in found.comparison.differences
    assert found.left_out == {}
    assert found.frequency_depth == 2


def test_documents_that_flipped_stand_in_the_order_of_their_change(runs):
    found = contrast(*runs)
    assert found.flips.better.tolist() == [0]
    assert found.flips.worse.tolist() == [1]
    assert found.flips.same == 2
    better = found.flipped[0][0]
    assert (better.id, better.text, better.right) == ("test0", "text of test0", (0, 2))
    assert [(x.id, x.right) for x in better.a] == [("c", False), ("d", False)]
    assert [(x.text, x.right) for x in better.b] == [("label a", True), ("label b", True)]
    assert [x.id for x in better.truth] == ["a", "b"]


def test_equal_changes_are_ordered_by_the_finer_one_then_by_row(make_dataset, scripted, evaluated):
    dataset = make_dataset(LABELS, [[0]], [[0], [0], [0], [0]])
    nothing = evaluated(dataset, answering(scripted, "d", "d", "d", "a"), ks=(1, 2))
    something = evaluated(dataset, answering(scripted, "ba", "ab", "ab", "bc"), ks=(1, 2))
    answers = [Answers(e, "fused", 2) for e in (nothing, something)]
    flips = Flips.between(*answers, 2)
    assert flips.better.tolist() == [1, 2, 0]
    assert flips.worse.tolist() == [3]
    assert Flips.between(*answers[::-1], 2).worse.tolist() == [1, 2, 0]


def test_examples_are_drawn_alike_each_time_and_differ(large_dataset, noisy, evaluated):
    evaluations = [evaluated(large_dataset, noisy(large_dataset, p, 1)) for p in (0.3, 0.6)]
    runs = [Run(str(i), e, {}) for i, e in enumerate(evaluations)]
    found = contrast(*runs)
    assert found.examples == contrast(*runs).examples
    for (better, worse), (most, least) in zip([found.examples], [found.flipped], strict=True):
        assert len({e.id for e in (*better, *worse)}) == 30
        assert all(e.right[1] > e.right[0] for e in better)
        assert all(e.right[1] < e.right[0] for e in worse)
        assert most == better[:3]
        assert least == worse[:3]
    assert len(found.flips.better) + len(found.flips.worse) + found.flips.same == 600


def test_recall_by_frequency_agrees_with_the_figures(large_dataset, noisy, evaluated):
    evaluations = [evaluated(large_dataset, noisy(large_dataset, p, 1)) for p in (0.3, 0.6)]
    found = contrast(*(Run(str(i), e, {}) for i, e in enumerate(evaluations)))
    assert found.frequency_depth == 10
    weights = [f.group.test_positives for f in found.frequency]
    gain = np.average([f.recall.difference for f in found.frequency], weights=weights)
    hits = [e.ratio("fused", "P@5").numerator.sum() * 5 for e in evaluations]
    assert gain == pytest.approx((hits[1] - hits[0]) / sum(weights))
    assert all(f.recall.low <= f.recall.difference <= f.recall.high for f in found.frequency)


def test_only_what_differs_of_the_configuration_is_named(runs):
    assert contrast(*runs).settings == (Setting("run.seed", "1", "2"),)
    gone = Run("gone", runs[1].evaluation, {"run.seed": "1", "clustering.clusters": "0"})
    assert contrast(runs[0], gone).settings == (Setting("old.key", "x", None),)
    unknown = Run("unknown", runs[1].evaluation, {})
    found = contrast(runs[0], unknown)
    assert found.settings == ()
    assert found.left_out == {"configuration": "none is recorded of unknown"}


def test_what_cannot_be_compared_is_named_with_its_reason(make_dataset, scripted, evaluated):
    model = answering(scripted, "a", "a", "a", "a")
    one, other = (
        Run(name, evaluated(make_dataset(LABELS, train, TEST), model, ks=ks), {"run.seed": "1"})
        for name, train, ks in (
            ("one", [[0], [1], [1]], (1, 3)),
            ("other", [[0], [1], [0], [0], [0], [0]], (1, 2)),
        )
    )
    found = contrast(one, other)
    assert set(found.comparison.differences) == {"P@1", "nDCG@1", "R@1"}
    assert found.frequency == ()
    assert {what: why.partition(",")[0] for what, why in found.left_out.items()} == {
        "metrics @3": "measured of one only",
        "metrics @2": "measured of other only",
        "PSP@k": "the propensities differ",
        "metrics of the slices": "the slices differ",
        "recall by label frequency": "the labels' frequencies differ",
    }


def test_other_documents_or_no_common_depth_are_refused(make_dataset, scripted, evaluated):
    model = answering(scripted, "a", "a", "a", "a")
    dataset = make_dataset(LABELS, [[0]], TEST)
    one = Run("one", evaluated(dataset, model, ks=(1,)), {})
    deep = Run("deep", evaluated(dataset, model, ks=(3,)), {})
    with pytest.raises(ArtifactError, match=r"one and deep have no depth in common \(1 and 3\)"):
        contrast(one, deep)
    elsewhere = make_dataset(LABELS, [[0]], [[1], [1], [1], [1]])
    with pytest.raises(ArtifactError, match="different test splits"):
        contrast(one, Run("else", evaluated(elsewhere, model, ks=(1,)), {}))
